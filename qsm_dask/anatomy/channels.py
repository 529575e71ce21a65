"""What registration compares, whichever program optimises it, and ITK's way to say where an image lies."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qsm_dask.atlas import Image
from qsm_dask.units import TO_LPS


class Channel(NamedTuple):
    """One contrast of both images and how much it counts."""

    fixed: Image
    moving: Image
    weight: float


class Place(NamedTuple):
    """Where an image lies, as ITK says it: position of the first voxel [mm], spacing [mm], axes in columns."""

    origin: list[float]
    spacing: list[float]
    direction: NDArray[np.float64]


def place(affine: NDArray[np.float64]) -> Place:
    """The place of an image with an affine of this project."""
    matrix = TO_LPS @ affine
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    return Place(matrix[:3, 3].tolist(), spacing.tolist(), matrix[:3, :3] / spacing)


def displaced(moved: NDArray[Any], affine: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Positions (x, y, z) of each voxel along each axis [mm], after ITK's displacements (axis, x, y, z) [mm]."""
    index = np.ix_(*(np.arange(n, dtype=np.float64) for n in moved.shape[1:]))
    points = []
    for axis in range(3):
        point = affine[axis, 3] + TO_LPS[axis, axis] * moved[axis].astype(np.float64)
        for other in range(3):
            point += affine[axis, other] * index[other]
        points.append(point)
    return points
