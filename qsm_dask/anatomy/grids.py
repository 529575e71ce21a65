"""Grids on which a scan is compared: its voxels in blocks, moved to where the other image lies."""

import numpy as np
from numpy.typing import NDArray

from qsm_dask.atlas import Image

Real = NDArray[np.float32]


def blocks(affine: NDArray[np.float64], resolution_mm: float) -> tuple[int, int, int]:
    """Voxels of the scan in one that is compared, along each axis."""
    x, y, z = (max(1, int(resolution_mm / size + 1e-6)) for size in np.linalg.norm(affine[:3, :3], axis=0))
    return x, y, z


def coarser(affine: NDArray[np.float64], step: tuple[int, int, int]) -> NDArray[np.float64]:
    """The affine of the grid whose voxels are blocks."""
    blocks = np.diag([*step, 1.0])
    blocks[:3, 3] = (np.asarray(step) - 1) / 2.0
    return np.asarray(affine, dtype=np.float64) @ blocks


def centre(brain: Image) -> NDArray[np.float64]:
    """Centre of gravity of a brain [mm]."""
    counts = [brain.values.sum(axis=tuple(other for other in range(3) if other != axis)) for axis in range(3)]
    index = [float(count @ np.arange(count.size)) / float(count.sum()) for count in counts]
    return np.asarray(brain.affine[:3, :3] @ index + brain.affine[:3, 3])


def moved(image: Image, shift: NDArray[np.float64]) -> Image:
    """The image laid elsewhere, by a shift [mm]."""
    affine = image.affine.copy()
    affine[:3, 3] += shift
    return Image(image.values, affine)


def positions(shape: tuple[int, ...], affine: NDArray[np.float64]) -> Real:
    """Position (axis, x, y, z) of each voxel of a grid [mm]."""
    index = np.ix_(*(np.arange(n, dtype=np.float64) for n in shape))
    found = np.empty((3, *shape), dtype=np.float32)
    for axis in range(3):
        found[axis] = affine[axis, 3] + sum(affine[axis, other] * index[other] for other in range(3))
    return found
