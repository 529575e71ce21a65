"""The fluid of the ventricles: little R2*, one susceptibility, and so a zero that every scan brings along."""

import numpy as np
from numpy.typing import NDArray

from qsm_dask.kernels import series
from qsm_dask.kernels.components import components
from qsm_dask.kernels.doors import Mask, Vector
from qsm_dask.kernels.jit import compiled

REACH_MM = 30.0
"""From the centroid of the mask; farther out, little R2* is fluid in furrows and the noise of dark voxels."""

_PIECES = 3
"""How many connected pieces are taken: two lateral ventricles, and the third if it is apart."""


def ventricles(r2star: NDArray[np.float32], inside: Mask, size: Vector, below: float) -> Mask:
    """The fluid in the middle of the brain, as Liu 2018 finds it.

    Parameters
    ----------
    r2star : effective transverse relaxation rate (x, y, z) [1/s].
    inside : the brain.
    size : voxel size [mm].
    below : largest R2* of fluid [1/s].

    Returns
    -------
    mask : the largest three pieces of little R2* within 30 mm of the brain's centroid; empty where there is none.

    Raises
    ------
    ValueError : r2star does not fit the mask or is not finite inside it.

    References
    ----------
    Liu 2018, doi:10.1002/mrm.26946
    """
    rate = series.volume("r2star", r2star, inside)
    box, squares = [], []
    for axis, (centre, step) in enumerate(zip(_centroid(inside), size, strict=True)):
        square = np.square((np.arange(inside.shape[axis]) - centre) * step)
        near = np.flatnonzero(square < REACH_MM**2)
        box.append(slice(int(near[0]), int(near[-1]) + 1) if near.size else slice(0))
        squares.append(square[box[axis]].reshape([-1 if a == axis else 1 for a in range(3)]))
    middle = tuple(box)
    fluid = np.zeros(inside.shape, np.bool_)
    found = (sum(squares) < REACH_MM**2) & inside[middle] & (rate[middle] < np.float32(below))
    fluid[middle] = components(found).largest(_PIECES)
    return fluid


@compiled
def _centroid(inside: Mask) -> tuple[float, float, float]:
    nx, ny, nz = inside.shape
    total, x, y, z = 0, 0, 0, 0
    for i in range(nx):
        for j in range(ny):
            row, along = 0, 0
            for m in range(nz):
                row += inside[i, j, m]
                along += m * inside[i, j, m]
            total, x, y, z = total + row, x + i * row, y + j * row, z + along
    return x / total, y / total, z / total
