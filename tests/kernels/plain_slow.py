"""The removal of harmonic polynomials of the second degree in float64, of one component, written out."""

import numpy as np

ABSOLUTE = {"rounds": 10, "floor": 0.1, "power": 1}
LOGARITHMIC = {"rounds": 20, "floor": 0.5, "power": 2}


def without_slow(local, kept, voxel_size, read, *, rounds, floor, power):
    """Take from a field where it is kept the polynomials that leave the least deviations where it is read.

    Weights are powers of the reciprocal deviation, which `floor` times their median bounds from above.
    """
    x, y, z = (index * size for index, size in zip(np.indices(kept.shape), voxel_size, strict=True))
    x, y, z = (part - part[read].mean() for part in (x, y, z))
    terms = np.stack([x**0, x, y, z, x * y, x * z, y * z, x**2 - y**2, 2 * z**2 - x**2 - y**2], axis=-1)
    weights = np.ones(np.count_nonzero(read))
    for _ in range(rounds):
        root = np.sqrt(weights)
        factors = np.linalg.lstsq(terms[read] * root[:, None], local[read] * root, rcond=None)[0]
        deviation = np.abs(local[read] - terms[read] @ factors)
        least = floor * np.median(deviation)
        weights = (least / np.maximum(deviation, least)) ** power
    return np.where(kept, local - terms @ factors, 0.0)
