"""What some values of a map come to: moments, ranks, means that outliers do not move, and weighted means."""

import numpy as np
from numpy.typing import NDArray

from qsm_dask.kernels.jit import compiled
from qsm_dask.kernels.series import Mask, Real

Floats = NDArray[np.float64]

TRIM = 0.1
"""Share of the values left out at either end of the trimmed mean; a tenth costs a Gaussian 3 % of its efficiency."""

CLIP = 3.0 / 0.6744897501960817
"""Median absolute deviations within which a value counts in the clipped mean: three SD of a Gaussian."""

_PERCENTILES = (50.0, 5.0, 25.0, 75.0, 95.0)

_REACHED = 0.5
_FLAT = 1e-9
"""Variance of weights below which they are all one."""


def plain(values: Real, core: Mask, voxel_mm3: float) -> Floats:
    """Summarise values, which end up sorted.

    Parameters
    ----------
    values : at least one, finite; altered.
    core : those of them that count for the core.
    voxel_mm3 : volume of a voxel [mm3].

    Returns
    -------
    mean, sd (n - 1), median, mad (not scaled), p05, p25, p75, p95, trimmed_mean, clipped_mean, mass, and of the core
    n, mean and median. What is not defined (the sd of one value, the mean of no core) is NaN.
    """
    inner = values[core]
    inner.sort()
    middle = (inner.astype(np.float64).mean(), percentile(inner, 50.0)) if inner.size else (np.nan, np.nan)
    kernel = inner.size
    del inner
    wide = values.astype(np.float64)
    total = float(wide.sum())
    mean = total / values.size
    wide -= mean
    np.square(wide, out=wide)
    deviation = np.sqrt(wide.sum() / (values.size - 1)) if values.size > 1 else np.nan
    values.sort()
    wide[:] = values
    median, *tails = (percentile(values, percent) for percent in _PERCENTILES)
    mad = _median_distance(values, median)
    first, last = _within(values, median - CLIP * mad, median + CLIP * mad)
    cut = int(TRIM * values.size)
    return np.array(
        [
            *(mean, deviation, median, mad, *tails),
            *(wide[cut : wide.size - cut].mean(), wide[first:last].mean()),
            *(total * voxel_mm3, kernel, *middle),
        ]
    )


def weighted(values: Real, weights: Real, voxel_mm3: float) -> tuple[float, float, float]:
    """Summarise values of which each counts by a weight of 0 to 1.

    The value of the pure region is where the line through value over weight meets weight 1: a voxel
    half filled by something else holds half of it, and the line tells what that is.

    Parameters
    ----------
    values, weights : at least one; weights are positive.
    voxel_mm3 : volume of a voxel [mm3].

    Returns
    -------
    weighted_volume_mm3, weighted_mean and pv_mean; the last is NaN where no weight reaches a half,
    for then the line says nothing of the pure region.
    """
    total, product, level = _sums(values, weights)
    centre, level = total / values.size, level / values.size
    if float(weights.max()) < _REACHED:
        return total * voxel_mm3, product / total, np.nan
    spread, both = _spreads(values, weights, level, centre)
    slope = both / spread if spread > _FLAT * values.size else 0.0
    return total * voxel_mm3, product / total, level + slope * (1.0 - centre)


@compiled
def _sums(values: Real, weights: Real) -> tuple[float, float, float]:
    total, product, level = 0.0, 0.0, 0.0
    for i in range(values.size):
        weight, value = np.float64(weights[i]), np.float64(values[i])
        total += weight
        product += weight * value
        level += value
    return total, product, level


@compiled
def _spreads(values: Real, weights: Real, level: float, centre: float) -> tuple[float, float]:
    spread, both = 0.0, 0.0
    for i in range(values.size):
        away = np.float64(weights[i]) - centre
        spread += away * away
        both += away * (np.float64(values[i]) - level)
    return spread, both


def percentile(ordered: Real, percent: float) -> float:
    """A percentile of sorted values, linear between the two nearest ranks as NumPy's default."""
    position = percent / 100 * (ordered.size - 1)
    low = int(position)
    below, above = float(ordered[low]), float(ordered[min(low + 1, ordered.size - 1)])
    part = position - low
    # The two forms keep the result exact at either end, as in numpy.percentile.
    return below + (above - below) * part if part < 0.5 else above - (above - below) * (1 - part)


@compiled
def _median_distance(ordered: Real, centre: float) -> float:
    """The median of the distances of sorted values from a centre."""
    n = ordered.size
    split = int(np.searchsorted(ordered, centre))
    middle = _distance(ordered, centre, split, n // 2)
    if n % 2:
        return middle
    before = _distance(ordered, centre, split, n // 2 - 1)
    return before + (middle - before) * 0.5


@compiled
def _distance(ordered: Real, centre: float, split: int, rank: int) -> float:
    """The distance of a rank, counted from 0, of sorted values from a centre that lies before index `split`.

    The `below` nearest of those under the centre and the `rank - below` nearest of those over it are closer; bisection
    finds how many of each.
    """
    low, high = max(0, rank - (ordered.size - split)), min(rank, split)
    while low < high:
        below = (low + high) // 2
        if centre - np.float64(ordered[split - 1 - below]) < np.float64(ordered[split + rank - below - 1]) - centre:
            low = below + 1
        else:
            high = below
    above = rank - low
    under = centre - np.float64(ordered[split - 1 - low]) if low < split else np.inf
    over = np.float64(ordered[split + above]) - centre if split + above < ordered.size else np.inf
    return min(under, over)


@compiled
def _within(ordered: Real, low: float, high: float) -> tuple[int, int]:
    """Where the values from `low` to `high` begin and end among sorted ones."""
    first, last = 0, ordered.size
    while first < last and np.float64(ordered[first]) < low:
        first += 1
    while last > first and np.float64(ordered[last - 1]) > high:
        last -= 1
    return first, last
