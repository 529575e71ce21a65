"""The one door of the inversions: inputs checked, grid padded, kernel and data at hand.

Every inversion takes `local_field`, `mask`, `voxel_size` and `b0_dir`; those that fit a phase take `b0`, `te`,
`magnitude` and `field_noise` too (`wrapped` says what they are for). What they mean, and what is refused, is
said here once.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsm_dask.kernels import fourier, series
from qsm_dask.kernels.dipole import dipole_spectrum
from qsm_dask.kernels.doors import Mask, Vector, check_direction, check_volume, check_voxel_size
from qsm_dask.kernels.fourier import Box, Shape, Volume
from qsm_dask.kernels.inversion.wrapped import WrappedField, wrapped_field

_AROUND_MM = 40.0
"""Zeros behind each axis of the smallest box [mm]: 40 give the maps of the whole grid, 20 triple MEDI's error on
cylinders of the package qsm-forward (1.4 to 3.8 %), as images of the periodic grid are so near."""


@dataclass(frozen=True)
class Grid:
    """Where an inversion computes.

    Attributes
    ----------
    whole : shape of the scan's own grid.
    box : the part of it that is computed in; it holds the mask.
    inside : the mask in the box.
    size : voxel size [mm].
    shape : padded grid of the box.
    dipole : kernel on its half spectrum.
    """

    whole: tuple[int, ...]
    box: Box
    inside: Mask
    size: Vector
    shape: Shape
    dipole: Volume

    @property
    def edge_mm(self) -> float:
        """Edge of the cube with a voxel's volume [mm]."""
        return math.prod(self.size) ** (1 / 3)

    def crop(self, chi: Volume, scale: float = 1.0) -> Volume:
        """The map on the scan's own grid, divided by `scale`, zero outside the mask."""
        result = np.zeros(self.whole, np.float32)
        x, y, z = self.inside.shape
        np.copyto(result[self.box], chi[:x, :y, :z], where=self.inside)
        result /= np.float32(scale)
        return result


def linear(
    local_field: NDArray[np.float32], mask: NDArray[np.bool_], voxel_size: ArrayLike, b0_dir: ArrayLike
) -> tuple[Grid, NDArray[np.float32]]:
    """What an inversion of the field as a real number works with: the grid, and the field as it was given.

    The grid is the whole scan's: outside the mask zeros pass for data, and the nearer images of a smaller grid add up
    to a point to the error of RTS and two to that of Tikhonov (NRMSE, head phantoms).

    Parameters
    ----------
    local_field : relative field of the sources inside the mask (x, y, z) [ppm].
    mask : voxels where it is known.
    voxel_size : spacing [mm].
    b0_dir : unit vector of B0 in array axes.

    Raises
    ------
    ValueError : inputs do not fit one another or are not finite inside the mask.
    """
    inside = series.inside(mask)
    grid = _grid(inside, voxel_size, b0_dir, tight=False)
    return grid, check_volume("local_field", local_field, inside)


def wrapped(
    local_field: NDArray[np.float32],
    mask: NDArray[np.bool_],
    voxel_size: ArrayLike,
    b0_dir: ArrayLike,
    b0: ArrayLike,
    te: ArrayLike,
    magnitude: NDArray[np.float32] | None,
    field_noise: NDArray[np.float32] | None,
) -> tuple[Grid, WrappedField]:
    """What an inversion of the field as a phase works with: the grid, and the phase with its weights in its box.

    That is the smallest one that holds the mask, with a margin of 40 mm where the whole grid is larger: nothing is
    claimed about the field outside the mask, and the air of a scan makes a third of the work.

    Parameters
    ----------
    local_field, mask, voxel_size, b0_dir : as of `linear`.
    b0 : field strength [T].
    te : echo times [s].
    magnitude : of each echo, for the weights; without it and without noise all voxels count the same.
    field_noise : standard deviation of the field [ppm], for the weights in place of the magnitude.

    Raises
    ------
    ValueError : inputs do not fit one another or are not finite inside the mask.
    """
    inside = series.inside(mask)
    grid = _grid(inside, voxel_size, b0_dir, tight=True)
    data = wrapped_field(local_field, inside, b0, te, magnitude, field_noise)
    phase, weight = (np.ascontiguousarray(volume[grid.box]) for volume in (data.phase, data.weight))
    return grid, WrappedField(phase, weight, data.scale)


def _grid(inside: Mask, voxel_size: ArrayLike, b0_dir: ArrayLike, *, tight: bool) -> Grid:
    size, direction = check_voxel_size(voxel_size), check_direction(b0_dir)
    shape = fourier.padded_shape(inside.shape, size, fourier.MARGIN_MM)
    whole, box = inside.shape, (slice(None),) * 3
    if tight:
        box = fourier.smallest_box(inside)
        inside = series.read_only(np.ascontiguousarray(inside[box]))
        x, y, z = map(min, shape, fourier.padded_shape(inside.shape, size, _AROUND_MM))
        shape = x, y, z
    return Grid(whole, box, inside, size, shape, dipole_spectrum(shape, size, direction))
