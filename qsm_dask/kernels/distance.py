"""Exact Euclidean depth inside a mask, as far as it is asked for."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsm_dask.kernels.doors import Mask, check_mask, check_voxel_size
from qsm_dask.kernels.jit import compiled

_TOLERANCE = 1e-5
"""Relative room for rounding when a squared distance is compared with a squared radius."""


def depth_squared(mask: NDArray[Any], voxel_size: ArrayLike, limit_mm: float) -> NDArray[np.float32]:
    """The squared distance [mm^2] from each voxel to the nearest voxel outside the mask.

    Distances are between voxel centres and exact up to `limit_mm`; deeper voxels have the limit's
    square. Whatever lies beyond the array is outside. Beside its result it takes two planes
    of memory, where `scipy.ndimage.distance_transform_edt` takes some fifteen volumes.

    Parameters
    ----------
    mask : (x, y, z).
    voxel_size : spacing [mm].
    limit_mm : distance [mm] at which the search ends.

    Returns
    -------
    float32 array of the mask's shape, 0 outside the mask.

    Raises
    ------
    ValueError : the mask is empty or not three-dimensional, or voxel_size is unusable.

    References
    ----------
    Separable transform: Saito and Toriwaki 1994, doi:10.1016/0031-3203(94)90133-3
    """
    inside, (x, y, z) = check_mask(mask), check_voxel_size(voxel_size)
    # One voxel more than asked for, so that what is not within the limit is seen to be beyond it.
    limit = np.float32((limit_mm + max(x, y, z)) ** 2)
    squared = np.empty(inside.shape, np.float32)
    _along_rows(inside, squared, z, limit)
    _along_planes(squared, _squares(y, limit))
    _along_planes(squared.transpose(1, 0, 2), _squares(x, limit))
    return squared


def deeper(squared: NDArray[np.float32], radius_mm: float) -> Mask:
    """Where a sphere of `radius_mm` around the voxel's centre holds no centre outside the mask.

    Parameters
    ----------
    squared : what `depth_squared` returned for a limit of at least `radius_mm`.
    """
    result: Mask = squared > reach(radius_mm)
    return result


def reach(radius_mm: float) -> float:
    """The squared distance [mm^2] up to which a voxel's centre belongs to a sphere."""
    return radius_mm**2 * (1.0 + _TOLERANCE)


def _squares(size: float, limit: np.float32) -> NDArray[np.float32]:
    steps = math.ceil(math.sqrt(limit) / size)
    return ((np.arange(steps + 1) * size) ** 2).astype(np.float32)


@compiled
def _along_rows(inside: Mask, squared: NDArray[np.float32], size: float, limit: np.float32) -> None:
    nx, ny, nz = inside.shape
    for i in range(nx):
        for j in range(ny):
            run = 0
            for m in range(nz):
                run = run + 1 if inside[i, j, m] else 0
                squared[i, j, m] = run
            run = 0
            for m in range(nz - 1, -1, -1):
                run = run + 1 if inside[i, j, m] else 0
                distance = min(squared[i, j, m], np.float32(run)) * size
                squared[i, j, m] = min(np.float32(distance * distance), limit)


@compiled
def _along_planes(squared: NDArray[np.float32], squares: NDArray[np.float32]) -> None:
    nx, ny, nz = squared.shape
    plane = np.empty((ny, nz), np.float32)
    for i in range(nx):
        plane[:] = squared[i]
        for j in range(ny):
            row = squared[i, j]
            farthest = row.max()
            for step in range(1, squares.size):
                more = squares[step]
                if more >= farthest:  # no row from here on is nearer
                    break
                for other in (j - step, j + step):
                    if 0 <= other < ny:
                        for m in range(nz):
                            row[m] = min(row[m], plane[other, m] + more)
                    else:
                        for m in range(nz):
                            row[m] = min(row[m], more)
