"""The field of view, and head coordinates at its voxels."""

import numpy as np
from numpy.typing import NDArray

from qsm_dask.phantom.randomness import smooth_field
from qsm_dask.phantom.shapes import Frame, Volume
from qsm_dask.phantom.subject import Subject

FIELD_OF_VIEW_MM = (192.0, 224.0, 160.0)
"""Size of the field of view; a shape sets the voxel size."""

CENTRE_MM = (0.0, -15.0, 16.0)
"""MNI position of the centre of the field of view."""

NECK_MM = 64.0
"""How far the head goes on below the field of view, as a source of background field."""

_SLICE_MM = 20.0
"""The thickest slice there can be: eight slices."""

_half = np.asarray(FIELD_OF_VIEW_MM) / 2.0
EXTENT_MM = np.stack([CENTRE_MM - _half - (0.0, 0.0, NECK_MM + _SLICE_MM), CENTRE_MM + _half])
"""Corners (2, 3) of what any grid covers, the neck included; lattices of random fields are fixed in it."""

Positions = list[NDArray[np.float64]]


def voxel_size(shape: tuple[int, int, int]) -> tuple[float, float, float]:
    """Spacing [mm] that a matrix gives in the fixed field of view.

    Raises
    ------
    ValueError : fewer than eight voxels along an axis: too few for a brain.
    """
    if min(shape) < 8:
        raise ValueError(f"shape {shape} is too small for a head; give at least 8 voxels along each axis")
    x, y, z = (length / n for length, n in zip(FIELD_OF_VIEW_MM, shape, strict=True))
    return x, y, z


def slices_below(shape: tuple[int, int, int]) -> int:
    """Slices that hold the neck, below those of the field of view."""
    return int(np.ceil(NECK_MM / voxel_size(shape)[2]))


def voxel_positions(shape: tuple[int, int, int], below: int = 0) -> Positions:
    """Voxel centres along x, y and z [mm], with `below` slices more at the low end of z."""
    positions = []
    for axis, (n, size, centre) in enumerate(zip(shape, voxel_size(shape), CENTRE_MM, strict=True)):
        first = -below if axis == 2 else 0
        positions.append(np.asarray(centre + (np.arange(first, n) - (n - 1) / 2.0) * size, dtype=np.float64))
    return positions


def head_frame(
    subject: Subject, positions: Positions, spacing: tuple[float, float, float], rng: np.random.Generator
) -> Frame:
    """Head coordinates of every voxel: an affine map and a smooth deformation."""
    matrix = subject.head_from_array
    grid = np.ix_(*(position - middle for position, middle in zip(positions, CENTRE_MM, strict=True)))
    coordinates = []
    for axis in range(3):
        part: Volume = subject.deformation_mm * smooth_field(rng, positions, EXTENT_MM, 45.0)
        for other in range(3):
            part += (matrix[axis, other] * grid[other]).astype(np.float32)
        part += np.float32(CENTRE_MM[axis])
        coordinates.append(part)
    return Frame(coordinates[0], coordinates[1], coordinates[2], spacing, matrix)


def affine_of(shape: tuple[int, int, int], pose: NDArray[np.float64]) -> NDArray[np.float64]:
    """The affine of the field of view, turned by the rotation `pose` about its centre.

    Returns
    -------
    (4, 4) voxel index to scanner position [mm]; its columns are orthogonal.
    """
    affine = np.eye(4)
    affine[:3, :3] = pose @ np.diag(voxel_size(shape))
    middle = (np.asarray(shape) - 1) / 2.0
    affine[:3, 3] = np.asarray(CENTRE_MM) - affine[:3, :3] @ middle
    return affine
