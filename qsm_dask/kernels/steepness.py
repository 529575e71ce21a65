"""How steep a map is: the length of its gradient inside a mask."""

import numpy as np
from numpy.typing import NDArray

from qsm_dask.kernels.doors import Mask, Vector
from qsm_dask.kernels.jit import compiled
from qsm_dask.kernels.series import Real


def steepness(field: Real, inside: Mask, size: Vector) -> NDArray[np.float32]:
    """The length of the gradient, from neighbours inside the mask only.

    Differences are central, one-sided where only one neighbour is inside, and none where neither is.

    Parameters
    ----------
    field : (x, y, z), finite inside the mask.
    inside : the mask.
    size : voxel size [mm].

    Returns
    -------
    length (x, y, z) [units of the field per mm], zero outside the mask.
    """
    length = np.zeros(field.shape, np.float32)
    _steepness(field, inside, np.array(size), length)
    return length


@compiled
def _steepness(field: Real, inside: Mask, size: NDArray[np.float64], length: NDArray[np.float32]) -> None:
    nx, ny, nz = field.shape
    for i in range(nx):
        for j in range(ny):
            for m in range(nz):
                if not inside[i, j, m]:
                    continue
                here = np.float64(field[i, j, m])
                square = 0.0
                for axis in range(3):
                    first, last, steps = here, here, 0
                    a = i - (axis == 0), j - (axis == 1), m - (axis == 2)
                    b = i + (axis == 0), j + (axis == 1), m + (axis == 2)
                    if min(a) >= 0 and inside[a]:
                        first, steps = np.float64(field[a]), steps + 1
                    if b[0] < nx and b[1] < ny and b[2] < nz and inside[b]:
                        last, steps = np.float64(field[b]), steps + 1
                    if steps:
                        square += ((last - first) / (steps * size[axis])) ** 2
                length[i, j, m] = np.sqrt(square)
