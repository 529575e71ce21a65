"""The effective transverse relaxation rate R2* from the decay of the magnitude, in closed form."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsm_dask.kernels import series
from qsm_dask.kernels.jit import compiled
from qsm_dask.kernels.series import Mask, Real, Times

SPACING_TOLERANCE = 0.01
"""Fraction of the mean spacing by which echo spacings may differ and still count as equal."""


def equispaced(te: ArrayLike) -> bool:
    """Whether echo times lie at equal distances, as far as their rounding in file headers tells."""
    steps = np.diff(np.asarray(te, dtype=np.float64))
    return bool(np.all(np.abs(steps - steps.mean()) <= SPACING_TOLERANCE * steps.mean())) if steps.size else True


def arlo(magnitude: NDArray[Any], te: ArrayLike, mask: NDArray[Any], /, *, max_per_s: float = 1000.0) -> Real:
    """R2* by auto-regression on linear operations (ARLO): closed form, robust to noise.

    Over each three successive echoes, Simpson's rule gives the integral S of the signal, which
    an exponential decay makes equal to the drop of the signal, D, over R2*. With b a third of the
    echo spacing, R2* = (sum S D + b sum D^2) / (sum S^2 + b sum S D).

    Without noise the result is R2* 3 sinh(x) / (x (cosh(x) + 2)) with x = R2* times the spacing:
    Simpson's rule makes it too low by x^4 / 180, that is 0.01 % at x = 0.37 and 0.5 % at x = 1.

    Parameters
    ----------
    magnitude : (echo, x, y, z) of three or more echoes.
    te : (echo,) echo times [s], equally spaced within 1 %.
    mask : (x, y, z).
    max_per_s : largest rate returned [1/s]; 1000 is a T2* of 1 ms, gone before a usual first echo.

    Returns
    -------
    float32 (x, y, z) rate [1/s], clipped to 0 and `max_per_s`; zero outside the mask and where
    the signal is zero in all echoes or does not decay.

    Raises
    ------
    ValueError : fewer than three echoes or unequal spacing (use `relaxometry.loglinear`), shapes
        that disagree, an empty mask, or NaN or infinite values inside it.

    References
    ----------
    M. Pei et al., Magn. Reson. Med. 2015, doi:10.1002/mrm.25137, with its erratum, doi:10.1002/mrm.27807
    """
    times = series.echo_times(te)
    if times.size < 3 or not equispaced(times):
        raise ValueError(
            f"te is {times.tolist()}: ARLO needs three or more equally spaced echoes; use relaxometry.loglinear"
        )
    return _map(_arlo, magnitude, times, mask, max_per_s)


def loglinear(magnitude: NDArray[Any], te: ArrayLike, mask: NDArray[Any], /, *, max_per_s: float = 1000.0) -> Real:
    """R2* by a straight line through the logarithm of the magnitude, weighted by its square.

    The logarithm's variance is inverse to the squared magnitude, so these weights give the
    estimate of least variance. An echo without signal has none and is left out; at low
    signal the noise floor makes rates too low.

    Parameters
    ----------
    magnitude : (echo, x, y, z) of two or more echoes.
    te : (echo,) echo times [s], at any spacing.
    mask : (x, y, z).
    max_per_s : largest rate returned [1/s]; 1000 is a T2* of 1 ms, gone before a usual first echo.

    Returns
    -------
    float32 (x, y, z) rate [1/s], clipped to 0 and `max_per_s`; zero outside the mask and where
    fewer than two echoes have signal or the signal does not decay.

    Raises
    ------
    ValueError : fewer than two echoes, shapes that disagree, an empty mask, or NaN or infinite
        values inside it.
    """
    return _map(_loglinear, magnitude, series.echo_times(te, at_least=2), mask, max_per_s)


def _map(fit: Any, magnitude: NDArray[Any], times: Times, mask: NDArray[Any], max_per_s: float) -> Real:
    inside = series.inside(mask)
    signal = series.echoes("magnitude", magnitude, times, inside)
    if not max_per_s > 0:
        raise ValueError(f"max_per_s is {max_per_s}: it must be a positive rate in 1/s")
    rate = np.zeros(inside.shape, dtype=np.float32)
    fit(signal, times, inside, max_per_s, rate)
    return rate


@compiled
def _arlo(signal: Real, te: Times, inside: Mask, most: float, rate: Real) -> None:
    """Row by row, in single precision and without a branch in a row: nearly as fast as the echoes come from memory.

    With the integral of three echoes by Simpson's rule, S = third (first + 4 second + last), and their drop
    d = first - last, the paper's ratio (sum S d + third sum d d) / (sum S S + third sum S d) is that of
    sum d u to third sum S' u, where u = 2 first + 4 second and S' = S / third: two sums are kept instead of three.
    """
    echoes, nx, ny, nz = signal.shape
    third, limit = np.float32((te[-1] - te[0]) / (te.size - 1) / 3), np.float32(most)
    two, four, zero = np.float32(2.0), np.float32(4.0), np.float32(0.0)
    above, below = np.empty(nz, np.float32), np.empty(nz, np.float32)
    for x in range(nx):
        for y in range(ny):
            within = inside[x, y]
            if not within.any():
                continue
            above[:], below[:] = zero, zero
            for echo in range(2, echoes):
                first, second, last = signal[echo - 2, x, y], signal[echo - 1, x, y], signal[echo, x, y]
                for z in range(nz):  # one sum a loop: of more arrays at once a compiler cannot see that they lie apart
                    above[z] += (first[z] - last[z]) * (two * first[z] + four * second[z])
                for z in range(nz):
                    below[z] += (first[z] + four * second[z] + last[z]) * (two * first[z] + four * second[z])
            row = rate[x, y]
            for z in range(nz):
                found = min(limit, max(zero, above[z] / (third * below[z])))
                row[z] = found if within[z] and below[z] > zero else zero


@compiled
def _loglinear(signal: Real, te: Times, inside: Mask, most: float, rate: Real) -> None:
    echoes, nx, ny, nz = signal.shape
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                if not inside[x, y, z]:
                    continue
                weights, times, logs, squares, products = 0.0, 0.0, 0.0, 0.0, 0.0
                used = 0
                for echo in range(echoes):
                    value = float(signal[echo, x, y, z])
                    if value > 0:
                        weight, logarithm, time = value * value, np.log(value), te[echo] - te[0]
                        weights += weight
                        times += weight * time
                        logs += weight * logarithm
                        squares += weight * time * time
                        products += weight * time * logarithm
                        used += 1
                spread = weights * squares - times * times
                if used >= 2 and spread > 0:
                    slope = (times * logs - weights * products) / spread
                    rate[x, y, z] = min(most, max(0.0, slope))
