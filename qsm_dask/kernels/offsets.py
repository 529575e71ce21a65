"""Removing what phase a scan has at echo time zero."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsm_dask.kernels import series
from qsm_dask.kernels.doors import check_voxel_size
from qsm_dask.kernels.jit import compiled
from qsm_dask.kernels.series import Mask, Real
from qsm_dask.kernels.smoothing import gaussian
from qsm_dask.kernels.unwrap.romeo import romeo

_TURN = 2 * np.pi
_ROUNDS = 2
"""At the rim of the mask a Gaussian sees one side of a sloping offset; a second round halves that error."""


def mcpc3ds(
    phase: NDArray[Any],
    mask: NDArray[Any],
    te: ArrayLike,
    voxel_size: ArrayLike,
    magnitude: NDArray[Any] | None = None,
    /,
    *,
    smoothing_mm: float = 7.0,
) -> tuple[Real, Real]:
    """Remove the phase offset that coils and transmitter leave, by MCPC-3D-S on combined data.

    The phase that accrues between the first two echoes (their Hermitian inner product, unwrapped
    in space) is extrapolated to echo time zero; what the first echo has beyond that is the offset.
    It is smoothed as a complex number, each voxel by the inverse variance of its offset, then what
    that leaves of it is smoothed and added, and the sum is taken from every echo. Where the inner
    product is a turn off, phase stays proportional to echo time for the first two echoes, whatever
    their spacing.

    Parameters
    ----------
    phase : (echo, x, y, z) wrapped phase [rad] of two echoes or more, of one read-out polarity.
    mask : (x, y, z) voxels to work on.
    te : (echo,) echo times [s].
    voxel_size : spacing [mm].
    magnitude : (echo, x, y, z) or None: all voxels count alike.
    smoothing_mm : standard deviation of the Gaussian [mm]; offsets vary over centimetres. 7 is the default of the
        authors' program.

    Returns
    -------
    phase : float32 (echo, x, y, z) wrapped phase without offset [rad], zero outside the mask.
    phase_offset : float32 (x, y, z) what was removed [rad], -pi to pi, zero outside the mask.

    Raises
    ------
    ValueError : fewer than two echoes, shapes or echo counts that disagree, an empty mask, NaN or
        infinite values inside the mask, a magnitude that is zero throughout it, or a smoothing that is not positive.

    References
    ----------
    K. Eckstein et al., Magn. Reson. Med. 2018, doi:10.1002/mrm.26963
    """
    times = series.echo_times(te, at_least=2)
    inside = series.inside(mask)
    wrapped = series.echoes("phase", phase, times, inside)
    strength = series.brightness(magnitude, times, inside)
    size = check_voxel_size(voxel_size)
    if not (math.isfinite(smoothing_mm) and smoothing_mm > 0):
        raise ValueError(f"smoothing_mm is {smoothing_mm}: it must be a positive length in mm")
    offset = _offset(wrapped, inside, float(times[0]), float(times[1] - times[0]), strength, size, smoothing_mm)
    removed = np.zeros(wrapped.shape, dtype=np.float32)
    _remove(wrapped, offset, inside, removed)
    return removed, offset


def _offset(
    wrapped: Real,
    inside: Mask,
    first: float,
    spacing: float,
    strength: Real | None,
    size: tuple[float, float, float],
    smoothing_mm: float,
) -> Real:
    ratio = first / spacing
    product = np.zeros((1, *inside.shape), dtype=np.float32)
    _phase_between(wrapped, inside, product)
    brightness = None
    if strength is not None:
        brightness = np.zeros((1, *inside.shape), dtype=np.float32)
        _geometric_mean(strength, inside, brightness)
    accrued = romeo(product, inside, spacing, brightness)[0]
    real: Real = product[0]
    del product, brightness
    offset, imaginary = np.zeros_like(real), np.zeros_like(real)
    smooth_offset(wrapped, strength, inside, ratio, accrued, voxels(smoothing_mm, size), offset, real, imaginary)
    return offset


def voxels(length_mm: float, size: tuple[float, float, float]) -> tuple[float, float, float]:
    """A length along each axis [voxels]."""
    return length_mm / size[0], length_mm / size[1], length_mm / size[2]


def smooth_offset(
    wrapped: Real,
    strength: Real | None,
    inside: Mask,
    ratio: float,
    accrued: Real,
    sigma: tuple[float, float, float],
    offset: Real,
    real: Real,
    imaginary: Real,
) -> None:
    """Add to `offset` what the first echo has beyond `ratio` times the accrued phase, smoothed as a complex number.

    Parameters
    ----------
    wrapped : (echo, x, y, z) of which the first echo counts [rad].
    strength : (echo, x, y, z) magnitude of the first two echoes, or None: all voxels count alike.
    inside : (x, y, z).
    ratio : first echo time over the echo spacing.
    accrued : (x, y, z) phase between the first two echoes, unwrapped [rad].
    sigma : of the Gaussian [voxels].
    offset : what is known of it, zero at first [rad]; changed in place.
    real, imaginary : scratch. They leave as the smoothed numbers of the last round, whose modulus is
        the mean weight of the voxels around.
    """
    weights = wrapped if strength is None else strength
    for _ in range(_ROUNDS):
        _extrapolate(wrapped, weights, strength is not None, inside, ratio, accrued, offset, real, imaginary)
        gaussian(real, sigma)
        gaussian(imaginary, sigma)
        _add_angle(real, imaginary, inside, offset)


@compiled
def _phase_between(phase: Real, inside: Mask, product: Real) -> None:
    """Phase of the Hermitian inner product of the first two echoes."""
    nx, ny, nz = inside.shape
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                if inside[x, y, z]:
                    step = phase[1, x, y, z] - phase[0, x, y, z]
                    product[0, x, y, z] = step - _TURN * np.rint(step / _TURN)


@compiled
def _geometric_mean(magnitude: Real, inside: Mask, brightness: Real) -> None:
    nx, ny, nz = inside.shape
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                if inside[x, y, z]:
                    squared = float(magnitude[0, x, y, z]) * float(magnitude[1, x, y, z])
                    brightness[0, x, y, z] = np.sqrt(max(0.0, squared))


@compiled
def _extrapolate(
    phase: Real,
    magnitude: Real,
    weighted: bool,
    inside: Mask,
    ratio: float,
    accrued: Real,
    known: Real,
    real: Real,
    imaginary: Real,
) -> None:
    """What the known offset leaves of the offset, weighted, as a complex number."""
    nx, ny, nz = inside.shape
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                if not inside[x, y, z]:
                    real[x, y, z] = 0
                    imaginary[x, y, z] = 0
                    continue
                weight = 1.0
                if weighted:
                    a, b = float(magnitude[0, x, y, z]) ** 2, float(magnitude[1, x, y, z]) ** 2
                    noise = (1 + ratio) ** 2 * b + ratio**2 * a
                    weight = a * b / noise if noise > 0 else 0.0
                angle = phase[0, x, y, z] - ratio * accrued[x, y, z] - known[x, y, z]
                real[x, y, z] = weight * np.cos(angle)
                imaginary[x, y, z] = weight * np.sin(angle)


@compiled
def _add_angle(real: Real, imaginary: Real, inside: Mask, offset: Real) -> None:
    """Add the angle of the smoothed numbers to the offset, and bring the sum to half a turn at most."""
    nx, ny, nz = inside.shape
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                if inside[x, y, z]:
                    angle = offset[x, y, z] + np.arctan2(imaginary[x, y, z], real[x, y, z])
                    offset[x, y, z] = angle - _TURN * np.rint(angle / _TURN)


@compiled
def _remove(phase: Real, offset: Real, inside: Mask, removed: Real) -> None:
    echoes, nx, ny, nz = phase.shape
    for echo in range(echoes):
        for x in range(nx):
            for y in range(ny):
                for z in range(nz):
                    if inside[x, y, z]:
                        angle = phase[echo, x, y, z] - offset[x, y, z]
                        removed[echo, x, y, z] = angle - _TURN * np.rint(angle / _TURN)
