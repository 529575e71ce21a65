"""One tissue among strangers: a Gaussian and a uniform rest, fitted to values that are mostly of the one."""

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_STEPS = 500
_SETTLED = 1e-7
_FIRST_SHARE = 0.8
_LEAST_SD = 1e-6
"""Of the range of the values: a narrower Gaussian sits on a single value."""


def gaussian_among_uniform(values: Floats) -> tuple[float, float, float]:
    """Mean, standard deviation and expected number of the values that belong to a Gaussian.

    The other values may lie anywhere between the least and the greatest. Expectation maximisation, from the median
    and the MAD; the fit moves with the zero of the values.

    Parameters
    ----------
    values : (n,), at least one, finite.

    Returns
    -------
    mean, sd and number.

    References
    ----------
    Dempster, Laird and Rubin 1977, doi:10.2307/2984875
    """
    mean = float(np.median(values))
    deviation = float(np.median(np.abs(values - mean))) / 0.6744897501960817
    width = float(np.ptp(values))
    floor = _LEAST_SD * width
    if deviation <= floor:  # more than half are one value
        return mean, 0.0, float(np.count_nonzero(values == mean))
    share = _FIRST_SHARE
    weights = np.ones_like(values)
    for _ in range(_STEPS):
        before = mean
        inside = share * np.exp(-0.5 * np.square((values - mean) / deviation)) / (deviation * math.sqrt(2 * math.pi))
        weights = inside / (inside + (1 - share) / width)
        number = float(weights.sum())
        mean = float((weights * values).sum()) / number
        deviation = max(math.sqrt(float((weights * np.square(values - mean)).sum()) / number), floor)
        share = min(number / values.size, 1 - 1e-9)
        if abs(mean - before) < _SETTLED * deviation:
            break
    return mean, deviation, float(weights.sum())
