"""What removals of the background leave of its slowest part: harmonic polynomials of the second degree.

The field of sources next to the surface of the brain passes for background there. The cortex is a shell, whose
inner field goes with the square of the cosine between its normal and B0; its harmonic continuation into the brain is
a polynomial of the second degree, and the largest error of methods that read the surface. Deep inside it is
plain to see, because sources there make fields of shorter waves.
"""

import math

import numpy as np
from scipy import ndimage

from qsm_dask.kernels.doors import Mask, Vector
from qsm_dask.kernels.fourier import Floats, Volume

_FEWEST, _SAMPLE = 1000, 50_000
"""Voxels of a component below which nine polynomials are not fitted, and about how many of a larger one are read."""

_ROUNDS, _LEAST_RESIDUE = 10, 0.1
"""Of the fit: reweightings, and the residue relative to the median one below which weights do not grow."""


def remove_slow(local: Volume, kept: Mask, voxel_size: Vector) -> None:
    """Take harmonic polynomials of the second degree from a local field, in place.

    The fit is of least absolute deviations, which strong sources move less than least squares. Each component is fitted
    for itself; one of less than 1000 voxels is left as it is.

    Parameters
    ----------
    local : local field (x, y, z), zero outside `kept`.
    kept : where it is known.
    voxel_size : spacing [mm].
    """
    labels, _ = ndimage.label(kept, ndimage.generate_binary_structure(3, 2))
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        mine = labels[box] == label
        if np.count_nonzero(mine) >= _FEWEST:
            _remove(local[box], mine, np.asarray(voxel_size, dtype=np.float64))


def _remove(part: Volume, mine: Mask, size: Floats) -> None:
    # Counted in memory order with a step, voxels are spread over the component.
    step = math.ceil(np.count_nonzero(mine) / _SAMPLE)
    read = np.unravel_index(np.flatnonzero(mine)[::step], mine.shape)
    places: Floats = np.stack(read) * size[:, None]
    middle: Floats = places.mean(axis=1)
    spread = float(places.std())
    scaled: Floats = (places - middle[:, None]) / spread
    terms = _polynomials(scaled[0], scaled[1], scaled[2])
    factors = _least_deviations(terms, part[read].astype(np.float64)).astype(np.float32)
    x, y, z = ((np.arange(mine.shape[axis]) * size[axis] - middle[axis]) / spread for axis in range(3))
    across, along = np.meshgrid(y, z, indexing="ij")
    for i, at in enumerate(x):
        taken = np.tensordot(factors, _polynomials(np.full_like(across, at), across, along).astype(np.float32), 1)
        part[i] -= np.where(mine[i], taken, np.float32(0.0))


def _polynomials(x: Floats, y: Floats, z: Floats) -> Floats:
    """The nine harmonic polynomials up to the second degree, stacked."""
    return np.stack([np.ones_like(x), x, y, z, x * y, x * z, y * z, x**2 - y**2, 2 * z**2 - x**2 - y**2])


def _least_deviations(terms: Floats, values: Floats) -> Floats:
    """The factors of terms that leave the least sum of absolute deviations, by reweighted least squares."""
    weights = np.ones_like(values)
    for _ in range(_ROUNDS):
        weighted = terms * weights
        factors = np.asarray(np.linalg.lstsq(weighted @ terms.T, weighted @ values, rcond=None)[0], dtype=np.float64)
        deviation = np.abs(values - factors @ terms)
        least = max(_LEAST_RESIDUE * float(np.median(deviation)), 1e-30)
        weights = np.asarray(least / np.maximum(deviation, least), dtype=np.float64)
    return factors
