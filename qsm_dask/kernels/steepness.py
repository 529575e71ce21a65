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
    squares = np.empty(nz)
    for i in range(nx):
        for j in range(ny):
            here, there = field[i, j], inside[i, j]
            squares[:] = 0.0
            for axis in range(2):
                a, b = max(0, i - (axis == 0)), max(0, j - (axis == 1))
                c, d = min(nx - 1, i + (axis == 0)), min(ny - 1, j + (axis == 1))
                # At a face a voxel is its own neighbour, which must not count as one.
                low, high = (a, b) != (i, j), (c, d) != (i, j)
                _add_squares(here, field[a, b], inside[a, b], low, field[c, d], inside[c, d], high, size[axis], squares)
            for m in range(nz):
                before, after = m > 0 and there[m - 1], m + 1 < nz and there[m + 1]
                step = np.float64(here[m + 1] if after else here[m]) - np.float64(here[m - 1] if before else here[m])
                squares[m] += (step / (max(1, before + after) * size[2])) ** 2
                length[i, j, m] = np.sqrt(squares[m]) if there[m] else 0.0


@compiled
def _add_squares(
    here: Real, before: Real, inside_before: Mask, low: bool, after: Real, inside_after: Mask, high: bool,
    size: float, squares: NDArray[np.float64],
) -> None:  # fmt: skip
    """Add the squared slopes of a line of voxels, from the lines beside it where they are inside the mask."""
    for m in range(here.size):
        lower, upper = low & inside_before[m], high & inside_after[m]
        step = np.float64(after[m] if upper else here[m]) - np.float64(before[m] if lower else here[m])
        steps = np.float64(1.0) + (lower & upper)
        squares[m] += (step / (steps * size)) ** 2
