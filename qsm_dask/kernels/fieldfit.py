"""One field, its noise and what a fit leaves, from straight lines through the phase of several echoes."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsm_dask.kernels import noise, series
from qsm_dask.kernels.doors import check_positive
from qsm_dask.kernels.jit import compiled, prange, spread
from qsm_dask.kernels.lines import deviations, fit_lines, line, misfit, weigh
from qsm_dask.kernels.series import Mask, Real, Times
from qsm_dask.kernels.solved import Solved
from qsm_dask.kernels.unwrap.romeo import romeo
from qsm_dask.units import radians_per_ppm

_TURN = 2 * np.pi
_UNFINISHED = 1e-3
"""Share of voxels that may still move: in those that are nothing but noise, the fit creeps."""


def linear_fit(
    unwrapped_phase: NDArray[Any],
    mask: NDArray[Any],
    te: ArrayLike,
    b0: ArrayLike,
    magnitude: NDArray[Any] | None = None,
    /,
    *,
    intercept: bool = True,
) -> tuple[Real, Real, Real]:
    """The total field as the slope of a straight line through the phase, weighted by squared magnitude.

    The variance of phase is inverse to the squared magnitude, so these weights give the slope of
    least variance. A free intercept takes the phase offset with it, at the price of noise: with
    four equal echoes that start at one echo spacing its standard deviation is 2.4 times as large.
    Without one, phase must be free of offset (`offset.mcpc3ds`), and the field is that of
    `field.weighted_mean`.

    The noise level of the series is estimated from the misfit of all voxels (their median, so
    that voxels whose phase is no line do not count), and with two echoes and a free intercept,
    which always fit, from differences in space.

    Parameters
    ----------
    unwrapped_phase : (echo, x, y, z) [rad] of two echoes or more; without intercept one will do.
    mask : (x, y, z).
    te : (echo,) echo times [s], at any spacing.
    b0 : field strength [T].
    magnitude : (echo, x, y, z) or None: all echoes and voxels are taken as equally bright. The
        echoes of a voxel also are where fewer than two of them have signal.
    intercept : whether phase may have an offset at echo time zero, of its own in each voxel. By default it may: a
        constant offset then does no harm, whatever was or was not removed before.

    Returns
    -------
    total_field : float32 (x, y, z) relative field [ppm], zero outside the mask.
    field_noise : float32 (x, y, z) its standard deviation [ppm]. Phase never counts as noisier
        than uniform phase, so it is finite where the magnitude is zero. Zero outside the mask.
    phase_residual : float32 (x, y, z) root mean square misfit [rad], weighted by squared
        magnitude, zero outside the mask.

    Raises
    ------
    ValueError : shapes or echo counts disagree, one echo with an intercept, the mask is empty,
        values inside it are NaN or infinite, or b0 is unusable.

    References
    ----------
    S. Robinson et al., NMR Biomed. 2017, doi:10.1002/nbm.3601
    """
    inside = series.inside(mask)
    times = series.echo_times(te, at_least=2 if intercept else 1)
    unwrapped = series.echoes("unwrapped_phase", unwrapped_phase, times, inside)
    strength = None if magnitude is None else series.echoes("magnitude", magnitude, times, inside)
    scale = 1 / radians_per_ppm(series.field_strength(b0), 1.0)
    level = noise.phase_noise(unwrapped, strength, inside, times, intercept)
    field, deviation, residual = _maps(inside)
    like, weighted = unwrapped if strength is None else strength, strength is not None
    fit_lines(unwrapped, like, weighted, inside, times, intercept, scale, field, residual)
    deviations(like, weighted, inside, times, intercept, level, scale, deviation)
    return field, deviation, residual


def nonlinear_fit(
    phase: NDArray[Any],
    mask: NDArray[Any],
    te: ArrayLike,
    b0: ArrayLike,
    magnitude: NDArray[Any] | None = None,
    /,
    *,
    tolerance_rad: float = 1e-4,
    iterations: int = 30,
) -> tuple[Real, Real, Real, Solved]:
    """The total field that best fits the complex signal of all echoes, from wrapped phase.

    Minimises, in each voxel, sum_e m_e^2 |exp(i phase_e) - exp(i (offset + rate TE_e))|^2 over the
    offset and the rate, by Gauss-Newton steps. Noise enters where it is Gaussian, in the complex
    signal: unlike a line through unwrapped phase, an echo whose phase is a turn off does no harm.

    The start comes from the phase that accrues between the first two echoes, unwrapped in space
    by ROMEO, so that the field has no wraps. Each later echo is then taken at the turn nearest to
    the line through those before. The offset is free: `offset.mcpc3ds` is not needed before,
    but echoes of alternating polarity need `offset.bipolar`. A disjoint part of the mask has its
    median closest to zero, within half a turn between the first two echoes.

    The noise level is estimated as in `field.linear_fit`.

    Parameters
    ----------
    phase : (echo, x, y, z) wrapped phase [rad] of two echoes or more.
    mask : (x, y, z).
    te : (echo,) echo times [s], at any spacing.
    b0 : field strength [T].
    magnitude : (echo, x, y, z) or None: all echoes and voxels are taken as equally bright. The
        echoes of a voxel also are where fewer than two of them have signal.
    tolerance_rad : a voxel is done once a step changes no phase by more [rad]; the default is a
        hundredth of the phase noise at an SNR of 100.
    iterations : most steps of a voxel; at SNR 100 the slowest voxel of a head takes 6, at 40 some may use them up.

    Returns
    -------
    total_field : float32 (x, y, z) relative field [ppm], zero outside the mask.
    field_noise : float32 (x, y, z) its standard deviation [ppm], see `field.linear_fit`.
    phase_residual : float32 (x, y, z) root mean square misfit [rad], weighted by squared
        magnitude, zero outside the mask.
    solved : the most steps of a voxel, the share of voxels that ran out of them, and whether
        that is below a thousandth.

    Raises
    ------
    ValueError : fewer than two echoes, shapes or echo counts disagree, the mask is empty, values
        inside it are NaN or infinite, or b0 or a parameter is unusable.

    References
    ----------
    T. Liu et al., Magn. Reson. Med. 2013, doi:10.1002/mrm.24272
    """
    check_positive(tolerance_rad=tolerance_rad, iterations=iterations)
    inside = series.inside(mask)
    times = series.echo_times(te, at_least=2)
    wrapped = series.echoes("phase", phase, times, inside)
    strength = None if magnitude is None else series.echoes("magnitude", magnitude, times, inside)
    scale = 1 / radians_per_ppm(series.field_strength(b0), 1.0)
    start = _accrued(wrapped, strength, inside, float(times[1] - times[0]))
    field, deviation, residual = _maps(inside)
    like, weighted = wrapped if strength is None else strength, strength is not None
    steps, unfinished = _fit(
        wrapped, like, weighted, inside, times, start, tolerance_rad, int(iterations), scale, field, residual
    )
    if times.size > 2:
        level = noise.residual_noise(residual, strength, inside, times.size - 2)
    else:
        level = noise.spatial_noise(wrapped, strength, inside)
    deviations(like, weighted, inside, times, True, level, scale, deviation)
    share = unfinished / int(np.count_nonzero(inside))
    return field, deviation, residual, Solved(int(steps), share, share <= _UNFINISHED)


def _maps(inside: Mask) -> tuple[Real, Real, Real]:
    field, deviation, residual = (np.zeros(inside.shape, dtype=np.float32) for _ in range(3))
    return field, deviation, residual


def _accrued(wrapped: Real, strength: Real | None, inside: Mask, spacing: float) -> Real:
    """Phase from the first echo to the second, unwrapped in space."""
    product = np.zeros((1, *inside.shape), dtype=np.float32)
    brightness = None if strength is None else np.zeros_like(product)
    if strength is None or brightness is None:
        _between(wrapped, wrapped, inside, product, product[:0])
    else:
        _between(wrapped, strength, inside, product, brightness)
    unwrapped: Real = romeo(product, inside, spacing, brightness)[0]
    return unwrapped


@compiled
def _between(phase: Real, magnitude: Real, inside: Mask, product: Real, brightness: Real) -> None:
    nx, ny, nz = inside.shape
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                if inside[x, y, z]:
                    step = phase[1, x, y, z] - phase[0, x, y, z]
                    product[0, x, y, z] = step - _TURN * np.rint(step / _TURN)
                    if brightness.shape[0]:
                        squared = float(magnitude[0, x, y, z]) * float(magnitude[1, x, y, z])
                        brightness[0, x, y, z] = np.sqrt(max(0.0, squared))


@spread
def _fit(
    phase: Real,
    magnitude: Real,
    weighted: bool,
    inside: Mask,
    te: Times,
    accrued: Real,
    tolerance: float,
    iterations: int,
    scale: float,
    field: Real,
    residual: Real,
) -> tuple[int, int]:
    """The most steps of a voxel, and how many voxels ran out of them."""
    most, unfinished = np.zeros(inside.shape[0], np.int64), np.zeros(inside.shape[0], np.int64)
    for x in prange(inside.shape[0]):
        most[x], unfinished[x] = _fit_plane(
            phase, magnitude, weighted, inside, te, accrued, tolerance, iterations, scale, field, residual, x
        )
    return most.max(), unfinished.sum()


@compiled
def _fit_plane(
    phase: Real,
    magnitude: Real,
    weighted: bool,
    inside: Mask,
    te: Times,
    accrued: Real,
    tolerance: float,
    iterations: int,
    scale: float,
    field: Real,
    residual: Real,
    x: int,
) -> tuple[int, int]:
    _, ny, nz = inside.shape
    weights, values = np.empty(te.size), np.empty(te.size)
    most, unfinished = 0, 0
    for y in range(ny):
        for z in range(nz):
            if not inside[x, y, z]:
                continue
            mean, spread = weigh(magnitude, weighted, te, x, y, z, True, weights)
            for echo in range(te.size):
                values[echo] = phase[echo, x, y, z]
            _follow(values, weights, te, float(accrued[x, y, z]))
            slope, value = line(values, weights, te, mean, spread, True)
            slope, value, steps, moved = _newton(values, weights, te, mean, spread, slope, value, tolerance, iterations)
            most = max(most, steps)
            unfinished += moved > tolerance
            for echo in range(te.size):
                rest = values[echo] - value - slope * (te[echo] - mean)
                values[echo] -= _TURN * np.rint(rest / _TURN)
            field[x, y, z] = scale * slope
            residual[x, y, z] = misfit(values, weights, te, mean, slope, value)
    return most, unfinished


@compiled
def _follow(values: Times, weights: Times, te: Times, accrued: float) -> None:
    """Unwrap each echo, in place, as nearest to the line through those before it."""
    step = values[1] - values[0]
    values[1] += _TURN * np.rint((accrued - step) / _TURN)
    for echo in range(2, te.size):
        total, times, phases, squares, products = 0.0, 0.0, 0.0, 0.0, 0.0
        for known in range(echo):
            # A dark echo must not leave the line undefined; it hardly counts beside a bright one.
            weight = weights[known] + 1e-6 * weights[:echo].max() + 1e-30
            total += weight
            times += weight * te[known]
            phases += weight * values[known]
            squares += weight * te[known] * te[known]
            products += weight * te[known] * values[known]
        slope = (total * products - times * phases) / (total * squares - times * times)
        expected = (phases - slope * times) / total + slope * te[echo]
        values[echo] += _TURN * np.rint((expected - values[echo]) / _TURN)


@compiled
def _newton(
    values: Times,
    weights: Times,
    te: Times,
    mean: float,
    spread: float,
    slope: float,
    value: float,
    tolerance: float,
    iterations: int,
) -> tuple[float, float, int, float]:
    """Gauss-Newton steps from a line: it, their number and the last change of a phase.

    The curvature that the steps divide by is never less than the true one, so none overshoots.
    """
    total = weights.sum()
    moved = np.inf
    steps = 0
    while steps < iterations and moved > tolerance:
        turn, tilt = 0.0, 0.0
        for echo in range(te.size):
            time = te[echo] - mean
            pull = weights[echo] * np.sin(values[echo] - value - slope * time)
            turn += pull
            tilt += pull * time
        turn, tilt = turn / total, tilt / spread
        value += turn
        slope += tilt
        steps += 1
        moved = abs(turn) + abs(tilt) * (te[-1] - te[0])
    return slope, value, steps, moved
