"""R2* by a nonlinear fit that knows the noise floor; T2* and R2'."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import i0e, i1e

from qsm_dask.kernels import series
from qsm_dask.kernels.doors import check_positive
from qsm_dask.kernels.jit import compiled, prange, spread
from qsm_dask.kernels.noise import SAMPLE, scale_of, stride_of
from qsm_dask.kernels.relaxometry import loglinear
from qsm_dask.kernels.series import Mask, Real, Times
from qsm_dask.kernels.solved import Solved

_FINEST = 1 / 64
_LARGEST = 20.0
"""Beyond this signal over noise the mean magnitude is a + 1 / (2 a) to five digits."""
_UNFINISHED = 1e-3


def nonlinear(
    magnitude: NDArray[Any],
    te: ArrayLike,
    mask: NDArray[Any],
    /,
    *,
    noise_level: float | None = None,
    max_per_s: float = 1000.0,
    tolerance: float = 1e-4,
    iterations: int = 30,
) -> tuple[Real, Solved]:
    """R2* by least squares on the magnitude itself, as the mean of Rician noise makes it.

    Fits, by Levenberg-Marquardt steps from `relaxometry.loglinear`, height and rate of the
    exponential decay whose magnitude has the measured mean: signal A with noise s in its real and
    imaginary part has the mean magnitude s sqrt(pi/2) L(-A^2 / (2 s^2)), L the Laguerre function
    of order one half. It never falls below 1.25 s, so late echoes that are only noise do not make
    rates too low, as they do in the other methods.

    Parameters
    ----------
    magnitude : (echo, x, y, z) of three or more echoes.
    te : (echo,) echo times [s], at any spacing.
    mask : (x, y, z).
    noise_level : standard deviation of the noise in the real or imaginary part, in units of the
        magnitude; 0 fits the plain exponential. None estimates it from what `loglinear` leaves:
        the median over voxels, too high where decays are no exponentials.
    max_per_s : largest rate returned [1/s]; 1000 is a T2* of 1 ms, gone before a usual first echo.
    tolerance : relative change of height, and of the decay over all echoes, at which a voxel is done; ten times as much
        changes R2* on head phantoms by less than 0.03 /s in every voxel.
    iterations : most steps of a voxel, of which the slowest of a head takes 16 to 25.

    Returns
    -------
    r2star : float32 (x, y, z) rate [1/s], from 0 to `max_per_s`; zero outside the mask and where
        the signal is zero in all echoes or does not decay.
    solved : the most steps of a voxel, the share of voxels that ran out of them, and whether that
        is below a thousandth.

    Raises
    ------
    ValueError : fewer than three echoes, shapes that disagree, an empty mask, NaN or infinite
        values inside it, or a parameter out of its range.

    References
    ----------
    H. Gudbjartsson and S. Patz, Magn. Reson. Med. 1995, doi:10.1002/mrm.1910340618
    """
    check_positive(max_per_s=max_per_s, tolerance=tolerance, iterations=iterations)
    if noise_level is not None and not (np.isfinite(noise_level) and noise_level >= 0):
        raise ValueError(f"noise_level is {noise_level}: it must be a number in units of the magnitude, or None")
    times = series.echo_times(te, at_least=3)
    inside = series.inside(mask)
    signal = series.echoes("magnitude", magnitude, times, inside)
    rate = loglinear(signal, times, inside, max_per_s=max_per_s)
    level = noise_level
    if level is None:
        sums = _misfits(signal, rate, times, inside)
        level = scale_of(sums, times.size - 2) if sums.size else 0.0
    steps, unfinished = _fit(signal, times, inside, float(level), _means(), max_per_s, tolerance, int(iterations), rate)
    share = unfinished / int(np.count_nonzero(inside))
    return rate, Solved(int(steps), share, share <= _UNFINISHED)


def r2prime(r2star: NDArray[Any], r2: NDArray[Any], mask: NDArray[Any], /) -> Real:
    """R2' as what R2* has over R2, the part of the relaxation that a spin echo refocuses.

    Noise, and R2 that is too high (multi-echo trains with stimulated echoes), make the difference
    negative where R2' is small. Negative differences become zero: no source can have such a rate.
    That makes the mean over regions of small R2' too high, by up to 0.4 of the noise of the difference.

    Parameters
    ----------
    r2star : (x, y, z) rate [1/s].
    r2 : (x, y, z) rate [1/s]; zero where it was not measured.
    mask : (x, y, z).

    Returns
    -------
    float32 (x, y, z) rate [1/s], not negative; zero outside the mask and where R2* or R2 is not
    positive, that is where nothing is known of it.

    Raises
    ------
    ValueError : shapes disagree, the mask is empty, or rates inside it are NaN or infinite.

    References
    ----------
    H.-G. Shin et al., NeuroImage 2021, doi:10.1016/j.neuroimage.2021.118371
    """
    inside = series.inside(mask)
    whole, irreversible = series.volume("r2star", r2star, inside), series.volume("r2", r2, inside)
    known = inside & (whole > 0)
    known &= irreversible > 0
    rate = np.zeros(inside.shape, dtype=np.float32)
    np.subtract(whole, irreversible, out=rate, where=known)
    return np.maximum(rate, np.float32(0.0), out=rate)


def t2star(r2star: NDArray[Any], mask: NDArray[Any], /, *, max_s: float = 0.5) -> Real:
    """T2* as the inverse of R2*.

    Parameters
    ----------
    r2star : (x, y, z) rate [1/s].
    mask : (x, y, z).
    max_s : longest time returned [s]; echoes over tens of milliseconds tell no longer one.

    Returns
    -------
    float32 (x, y, z) time [s], zero outside the mask and where the rate is zero or negative,
    that is where nothing is known of it.

    Raises
    ------
    ValueError : shapes disagree, the mask is empty, rates inside it are NaN or infinite, or
        `max_s` is not positive.
    """
    check_positive(max_s=max_s)
    inside = series.inside(mask)
    rate = series.volume("r2star", r2star, inside)
    time = np.zeros(inside.shape, dtype=np.float32)
    _invert(rate, inside, max_s, time)
    return time


def _means() -> Times:
    """Mean magnitude over noise, at signals over noise from 0 to `_LARGEST`."""
    ratio = np.arange(0, _LARGEST + 2 * _FINEST, _FINEST)
    y = ratio**2 / 4
    means: Times = np.sqrt(np.pi / 2) * ((1 + 2 * y) * i0e(y) + 2 * y * i1e(y))
    return means


@compiled
def _invert(rate: Real, inside: Mask, most: float, time: Real) -> None:
    nx, ny, nz = inside.shape
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                if inside[x, y, z] and rate[x, y, z] > 0:
                    time[x, y, z] = min(most, 1 / float(rate[x, y, z]))


@compiled
def _height(values: Times, te: Times, rate: float) -> float:
    """Height at the first echo of the decay of a rate that fits best."""
    products, squares = 0.0, 0.0
    for echo in range(te.size):
        decay = np.exp(-rate * (te[echo] - te[0]))
        products += decay * values[echo]
        squares += decay * decay
    return max(0.0, products / squares)


@compiled
def _misfits(signal: Real, rate: Real, te: Times, inside: Mask) -> Times:
    """Squared misfit of the log-linear decays of a sample of voxels that decay."""
    nx, ny, nz = inside.shape
    stride, seen, found = stride_of(inside), 0, 0
    sums, values = np.empty(2 * SAMPLE), np.empty(te.size)
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                if not inside[x, y, z]:
                    continue
                seen += 1
                if seen % stride or not rate[x, y, z] > 0:
                    continue
                for echo in range(te.size):
                    values[echo] = signal[echo, x, y, z]
                height, total = _height(values, te, float(rate[x, y, z])), 0.0
                for echo in range(te.size):
                    total += (values[echo] - height * np.exp(-rate[x, y, z] * (te[echo] - te[0]))) ** 2
                sums[found] = total
                found += 1
    return sums[:found]


@compiled
def _mean(height: float, level: float, means: Times) -> tuple[float, float]:
    """Mean magnitude of a signal in noise, and its derivative by the signal."""
    if not level > 0:
        return height, 1.0
    ratio = height / level
    if ratio >= _LARGEST:
        return height + level / (2 * ratio), 1 - 1 / (2 * ratio * ratio)
    place = int(ratio / _FINEST)
    slope = (means[place + 1] - means[place]) / _FINEST
    return level * (means[place] + slope * (ratio - place * _FINEST)), slope


@compiled
def _cost(values: Times, te: Times, height: float, rate: float, level: float, means: Times) -> float:
    total = 0.0
    for echo in range(te.size):
        mean, _ = _mean(height * np.exp(-rate * (te[echo] - te[0])), level, means)
        total += (values[echo] - mean) ** 2
    return total


@compiled
def _normal(
    values: Times, te: Times, height: float, rate: float, level: float, means: Times
) -> tuple[float, float, float, float, float]:
    """The normal equations of a step: curvatures by height, both and rate, and the two slopes."""
    hh, hr, rr, h, r = 0.0, 0.0, 0.0, 0.0, 0.0
    for echo in range(te.size):
        time = te[echo] - te[0]
        decay = np.exp(-rate * time)
        mean, slope = _mean(height * decay, level, means)
        by_height, by_rate, rest = slope * decay, -slope * height * decay * time, values[echo] - mean
        hh, hr, rr = hh + by_height**2, hr + by_height * by_rate, rr + by_rate**2
        h, r = h + by_height * rest, r + by_rate * rest
    return hh, hr, rr, h, r


@compiled
def _marquardt(
    values: Times,
    te: Times,
    rate: float,
    level: float,
    means: Times,
    most: float,
    tolerance: float,
    iterations: int,
) -> tuple[float, int, bool]:
    """The rate of least squares, the steps to it and whether they came to rest."""
    height = _height(values, te, rate)
    cost = _cost(values, te, height, rate, level, means)
    damping, span = 1e-3, te[-1] - te[0]
    for step in range(iterations):
        hh, hr, rr, h, r = _normal(values, te, height, rate, level, means)
        hh, rr = hh * (1 + damping), rr * (1 + damping)
        below = hh * rr - hr * hr
        if not below > 0:
            return rate, step, True
        tried_height = max(0.0, height + (rr * h - hr * r) / below)
        tried_rate = min(most, max(0.0, rate + (hh * r - hr * h) / below))
        tried = _cost(values, te, tried_height, tried_rate, level, means)
        change = max(abs(tried_height - height) / max(height, 1e-30), abs(tried_rate - rate) * span)
        if tried <= cost:
            height, rate, cost = tried_height, tried_rate, tried
            damping *= 0.1
        else:
            damping *= 10.0
        if change < tolerance:
            return rate, step + 1, True
    return rate, iterations, False


@spread
def _fit(
    signal: Real,
    te: Times,
    inside: Mask,
    level: float,
    means: Times,
    most: float,
    tolerance: float,
    iterations: int,
    rate: Real,
) -> tuple[int, int]:
    """Improve the rates in place; the most steps of a voxel, and how many voxels ran out of them."""
    longest, unfinished = np.zeros(inside.shape[0], np.int64), np.zeros(inside.shape[0], np.int64)
    for x in prange(inside.shape[0]):
        longest[x], unfinished[x] = _fit_plane(signal, te, inside, level, means, most, tolerance, iterations, rate, x)
    return longest.max(), unfinished.sum()


@compiled
def _fit_plane(
    signal: Real,
    te: Times,
    inside: Mask,
    level: float,
    means: Times,
    most: float,
    tolerance: float,
    iterations: int,
    rate: Real,
    x: int,
) -> tuple[int, int]:
    _, ny, nz = inside.shape
    values = np.empty(te.size)
    longest, unfinished = 0, 0
    for y in range(ny):
        for z in range(nz):
            if not inside[x, y, z]:
                continue
            brightest = 0.0
            for echo in range(te.size):
                values[echo] = signal[echo, x, y, z]
                brightest = max(brightest, values[echo])
            if not brightest > 0:
                continue
            found, steps, rested = _marquardt(
                values, te, float(rate[x, y, z]), level, means, most, tolerance, iterations
            )
            rate[x, y, z] = found
            longest = max(longest, steps)
            unfinished += 0 if rested else 1
    return longest, unfinished
