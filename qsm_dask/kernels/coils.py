"""Combining the images of receive coils, which come one volume at a time."""

from collections.abc import Callable, Iterator
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsm_dask.kernels import series
from qsm_dask.kernels.doors import check_positive, check_voxel_size
from qsm_dask.kernels.jit import compiled
from qsm_dask.kernels.offsets import smooth_offset, voxels
from qsm_dask.kernels.series import Real
from qsm_dask.kernels.unwrap.romeo import romeo

Stream = Callable[[int], Iterator[NDArray[Any]]]
"""Called with the number of leading echoes that are wanted; yields volumes (x, y, z) coil by coil, echo by echo.

A volume may be overwritten when the next one is asked for.
"""

_TURN = 2 * np.pi


def mcpc3ds(
    coil_phase: Stream,
    coil_magnitude: Stream,
    te: ArrayLike,
    voxel_size: ArrayLike,
    /,
    *,
    smoothing_mm: float = 7.0,
) -> tuple[Real, Real]:
    """Combine the coils of a multi-channel acquisition by MCPC-3D-S, while it is ingested.

    The Hermitian inner product of the first two echoes, summed over coils, knows no coil's phase;
    it is unwrapped once. What the first echo of a coil has beyond that, extrapolated to echo time
    zero, is the coil's offset, smoothed as in `offset.mcpc3ds`. Coils are added as complex numbers
    without their offsets, each by its magnitude smoothed in the same way, where the paper takes the
    magnitude of the voxel itself. That is a matched filter: noise stays Gaussian and that of one
    coil, where a root of the sum of squares would lift dark late echoes by the root of the number
    of coils, and R2* would come out too low. The magnitude, over the root of the summed squares of
    the weights, is what the root of the sum of squares would be without noise.

    Coils are read twice and never held: memory does not grow with their number.

    This stage stands in no pipeline: it runs while a dataset is ingested, wherever a scan comes coil by coil, as no
    store should hold all coils. `ingest` and `run` take `smoothing_mm` as `--coil-smoothing`, and `apply` runs the
    stage on files.

    Parameters
    ----------
    coil_phase : wrapped phase [rad] of each coil and echo, two echoes or more.
    coil_magnitude : magnitude, in the same order.
    te : (echo,) echo times [s].
    voxel_size : spacing [mm].
    smoothing_mm : standard deviation of the Gaussian [mm]; offsets vary over centimetres. 7 is the default of the
        authors' program.

    Returns
    -------
    phase : float32 (echo, x, y, z) wrapped phase of all coils, without offset [rad].
    magnitude : float32 (echo, x, y, z), in units of `coil_magnitude`.

    Raises
    ------
    ValueError : fewer than two echoes, volumes that differ in shape or are NaN or infinite, coils
        that lack an echo, no signal in any coil, or a smoothing that is not positive.

    References
    ----------
    K. Eckstein et al., Magn. Reson. Med. 2018, doi:10.1002/mrm.26963
    P. B. Roemer et al., The NMR phased array, Magn. Reson. Med. 1990, doi:10.1002/mrm.1910160203
    """
    times = series.echo_times(te, at_least=2)
    size = check_voxel_size(voxel_size)
    check_positive(smoothing_mm=smoothing_mm)
    spacing = float(times[1] - times[0])
    accrued = _accrued(coil_phase, coil_magnitude, spacing)
    echoes, shape = times.size, accrued.shape
    phase, magnitude = np.zeros((2, *shape), np.float32), np.zeros((2, *shape), np.float32)
    held_phase, held_magnitude = series.read_only(phase), series.read_only(magnitude)
    offset, real, imaginary, power = (np.zeros(shape, np.float32) for _ in range(4))
    # The sum is made where the result will stand: real parts become magnitudes, imaginary parts phases.
    summed_real, summed_imaginary = (np.zeros((echoes, *shape), np.float32) for _ in range(2))
    everywhere = series.inside(np.ones(shape, np.bool_))
    ratio, sigma = float(times[0]) / spacing, voxels(smoothing_mm, size)
    for echo, angle, strength in _volumes(coil_phase, coil_magnitude, echoes, shape):
        if echo > 1:
            _add_coil(angle, strength, offset, real, summed_real[echo], summed_imaginary[echo])
            continue
        phase[echo], magnitude[echo] = angle, strength
        if echo == 1:
            offset[...] = 0
            smooth_offset(held_phase, held_magnitude, everywhere, ratio, accrued, sigma, offset, real, imaginary)
            _weigh(real, imaginary, power)
            for e in (0, 1):
                _add_coil(held_phase[e], held_magnitude[e], offset, real, summed_real[e], summed_imaginary[e])
    _to_polar(summed_real, summed_imaginary, power)
    return summed_imaginary, summed_real


def _accrued(coil_phase: Stream, coil_magnitude: Stream, spacing: float) -> Real:
    """Phase between the first two echoes [rad], of all coils, unwrapped; zero where there is no signal."""
    first: Real | None = None
    for echo, angle, strength in _volumes(coil_phase, coil_magnitude, 2, None):
        if first is None:
            first, before = np.empty_like(angle), np.empty_like(angle)
            product, brightness = (np.zeros((1, *angle.shape), np.float32) for _ in range(2))
        if echo == 0:
            first[...], before[...] = angle, strength
        else:
            _add_product(first, before, angle, strength, product[0], brightness[0])
    if first is None:
        raise ValueError("there is no coil to combine")
    del first, before, angle, strength
    _split(product[0], brightness[0])
    inside = brightness[0] > 0
    if not inside.any():
        raise ValueError(
            "coil_magnitude is 0 everywhere in the first two echoes of all coils: there is nothing to combine"
        )
    accrued: Real = romeo(product, inside, spacing, brightness)[0]
    _centre(accrued, brightness[0])
    return accrued


def _volumes(
    coil_phase: Stream, coil_magnitude: Stream, echoes: int, shape: tuple[int, ...] | None
) -> Iterator[tuple[int, Real, Real]]:
    """Echo number, phase and magnitude of each volume, checked."""
    unequal = "coil_phase and coil_magnitude do not hold the same coils and echoes"
    count = -1
    for count, (angle, strength) in enumerate(zip_longest(coil_phase(echoes), coil_magnitude(echoes))):
        if angle is None or strength is None:
            raise ValueError(unequal)
        shape = shape or angle.shape
        if angle.shape != shape or strength.shape != shape:
            raise ValueError(f"coils have volumes of {shape}, {angle.shape} and {strength.shape}: they must be equal")
        yield (
            count % echoes,
            series.echoes("coil_phase", angle[None], None, None)[0],
            series.echoes("coil_magnitude", strength[None], None, None)[0],
        )
    if (count + 1) % echoes:
        raise ValueError(unequal)


@compiled
def _add_product(first_phase: Real, first: Real, second_phase: Real, second: Real, real: Real, imaginary: Real) -> None:
    nx, ny, nz = real.shape
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                weight = float(first[x, y, z]) * float(second[x, y, z])
                angle = second_phase[x, y, z] - first_phase[x, y, z]
                real[x, y, z] += weight * np.cos(angle)
                imaginary[x, y, z] += weight * np.sin(angle)


@compiled
def _split(real: Real, imaginary: Real) -> None:
    """The inner product, in place: its angle, and the root of its modulus, which is a magnitude."""
    nx, ny, nz = real.shape
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                re, im = real[x, y, z], imaginary[x, y, z]
                real[x, y, z] = np.arctan2(im, re)
                imaginary[x, y, z] = np.sqrt(np.hypot(re, im))


@compiled
def _centre(accrued: Real, brightness: Real) -> None:
    """Bring the mean over what has signal closest to zero by whole turns: air outvotes a head if each voxel counts."""
    nx, ny, nz = accrued.shape
    total, weights = 0.0, 0.0
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                weight = float(brightness[x, y, z]) ** 2
                total += weight * accrued[x, y, z]
                weights += weight
    shift = np.float32(_TURN * np.rint(total / weights / _TURN))
    if shift != 0:
        for x in range(nx):
            for y in range(ny):
                for z in range(nz):
                    if brightness[x, y, z] > 0:
                        accrued[x, y, z] -= shift


@compiled
def _weigh(real: Real, imaginary: Real, power: Real) -> None:
    """The weight of a coil, into `real`, and its square added to that of the coils before."""
    nx, ny, nz = real.shape
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                squared = np.hypot(real[x, y, z], imaginary[x, y, z])
                real[x, y, z] = np.sqrt(squared)
                power[x, y, z] += squared


@compiled
def _add_coil(phase: Real, magnitude: Real, offset: Real, weight: Real, real: Real, imaginary: Real) -> None:
    nx, ny, nz = real.shape
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                size = weight[x, y, z] * magnitude[x, y, z]
                angle = phase[x, y, z] - offset[x, y, z]
                real[x, y, z] += size * np.cos(angle)
                imaginary[x, y, z] += size * np.sin(angle)


@compiled
def _to_polar(real: Real, imaginary: Real, power: Real) -> None:
    echoes, nx, ny, nz = real.shape
    for echo in range(echoes):
        for x in range(nx):
            for y in range(ny):
                for z in range(nz):
                    re, im = real[echo, x, y, z], imaginary[echo, x, y, z]
                    scale = np.sqrt(power[x, y, z])
                    real[echo, x, y, z] = np.hypot(re, im) / scale if scale > 0 else 0.0
                    imaginary[echo, x, y, z] = np.arctan2(im, re)
