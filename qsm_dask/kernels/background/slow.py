"""What removals of the background leave of its slowest part: harmonic polynomials of the second degree.

The field of sources next to the surface of the brain passes for background there. The cortex is a shell, whose
inner field goes with the square of the cosine between its normal and B0; its harmonic continuation into the brain is
a polynomial of the second degree, and the largest error of methods that read the surface. Deep inside it is
plain to see, because sources there make fields of shorter waves.
"""

import math

import numpy as np

from qsm_dask.kernels.components import components
from qsm_dask.kernels.doors import Mask, Vector
from qsm_dask.kernels.fourier import Floats, Volume, smallest_box
from qsm_dask.kernels.jit import compiled

_FEWEST, _SAMPLE = 1000, 50_000
"""Voxels of a component below which nine polynomials are not fitted, and about how many of a larger one are read."""

_ABSOLUTE, _LOGARITHMIC = (10, 0.1, 1), (20, 0.5, 2)
"""Of the fits: reweightings, the deviation relative to the median one below which weights do not grow, and the power of
its reciprocal that they are."""


def remove_slow(
    local: Volume, kept: Mask, voxel_size: Vector, *, read: Mask | None = None, logarithmic: bool = False
) -> None:
    """Take harmonic polynomials of the second degree from a local field, in place.

    The fit is of least absolute deviations, which strong sources move less than least squares. Each component is fitted
    for itself; one with less than 1000 voxels to fit is left as it is.

    Parameters
    ----------
    local : local field (x, y, z), zero outside `kept`.
    kept : where it is known.
    voxel_size : spacing [mm].
    read : the voxels of `kept` that are fitted, all of them by default.
    logarithmic : whether the fit is of least logarithms of deviations (weights fall with their square) instead, which
        strong sources move still less; it starts at least squares, and ends in the minimum next to it.
    """
    read = kept if read is None else read
    groups = components(kept, edges=True)
    for number in np.flatnonzero(groups.sizes >= _FEWEST):
        mine = groups.mask(np.arange(groups.sizes.size) == number)
        box = smallest_box(mine)
        fitted = mine[box] & read[box]
        if np.count_nonzero(fitted) >= _FEWEST:
            _remove(local[box], mine[box], fitted, np.asarray(voxel_size, dtype=np.float64), logarithmic)


def _remove(part: Volume, mine: Mask, fitted: Mask, size: Floats, logarithmic: bool) -> None:
    # Counted in memory order with a step, voxels are spread over the component.
    step = math.ceil(np.count_nonzero(fitted) / _SAMPLE)
    read = np.unravel_index(np.flatnonzero(fitted)[::step], mine.shape)
    places: Floats = np.stack(read) * size[:, None]
    middle: Floats = places.mean(axis=1)
    spread = float(places.std())
    scaled: Floats = (places - middle[:, None]) / spread
    terms = _polynomials(scaled[0], scaled[1], scaled[2])
    factors = _least_deviations(terms, part[read].astype(np.float64), logarithmic)
    x, y, z = ((np.arange(mine.shape[axis]) * size[axis] - middle[axis]) / spread for axis in range(3))
    _subtract(part, mine, factors, x, y, z)


@compiled
def _subtract(part: Volume, mine: Mask, factors: Floats, x: Floats, y: Floats, z: Floats) -> None:
    """Take the sum of `_polynomials` from a component, gathered by powers of z."""
    one, by_x, by_y, by_z, by_xy, by_xz, by_yz, by_difference, by_sum = factors
    for i in range(x.size):
        for j in range(y.size):
            at, square = x[i] * x[i], y[j] * y[j]
            constant = one + by_x * x[i] + by_y * y[j] + by_xy * x[i] * y[j]
            constant += by_difference * (at - square) - by_sum * (at + square)
            linear = by_z + by_xz * x[i] + by_yz * y[j]
            for m in range(z.size):
                taken = constant + z[m] * (linear + 2.0 * by_sum * z[m])
                part[i, j, m] -= np.float32(taken) if mine[i, j, m] else np.float32(0.0)


def _polynomials(x: Floats, y: Floats, z: Floats) -> Floats:
    """The nine harmonic polynomials up to the second degree, stacked."""
    return np.stack([np.ones_like(x), x, y, z, x * y, x * z, y * z, x**2 - y**2, 2 * z**2 - x**2 - y**2])


def _least_deviations(terms: Floats, values: Floats, logarithmic: bool) -> Floats:
    """The factors of terms that leave the least sum of deviations or their logarithms, by reweighted least squares."""
    rounds, least_of_median, power = _LOGARITHMIC if logarithmic else _ABSOLUTE
    weights = np.ones_like(values)
    for _ in range(rounds):
        weighted = terms * weights
        factors = np.asarray(np.linalg.lstsq(weighted @ terms.T, weighted @ values, rcond=None)[0], dtype=np.float64)
        deviation = np.abs(values - factors @ terms)
        least = max(least_of_median * float(np.median(deviation)), 1e-30)
        weights = np.asarray((least / np.maximum(deviation, least)) ** power, dtype=np.float64)
    return factors
