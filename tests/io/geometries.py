"""Affines whose spacing and direction of B0 are known by hand."""

import numpy as np

SIN, COS = 0.5372996083468239, 0.8433914458128857  # of 32.5 degrees


def affine_of(columns):
    affine = np.eye(4)
    affine[:3, :3] = np.array(columns).T
    return affine


# Each case by hand: the columns of the affine, the spacing, and B0 (scanner z) in array axes.
GEOMETRIES = {
    "axial": ([(1, 0, 0), (0, 1, 0), (0, 0, 2)], (1, 1, 2), (0, 0, 1)),
    "left-handed": ([(-0.9, 0, 0), (0, 1.1, 0), (0, 0, 2)], (0.9, 1.1, 2), (0, 0, 1)),
    "feet first": ([(1, 0, 0), (0, -1, 0), (0, 0, -2)], (1, 1, 2), (0, 0, -1)),
    "sagittal": ([(0, 1, 0), (0, 0, 1), (3, 0, 0)], (1, 1, 3), (0, 1, 0)),
    "tilted about x": (
        [(0.8, 0, 0), (0, 0.8 * COS, 0.8 * SIN), (0, -3 * SIN, 3 * COS)],
        (0.8, 0.8, 3),
        (0, SIN, COS),
    ),
    "tilted about y": (
        [(0.8 * COS, 0, -0.8 * SIN), (0, 0.8, 0), (3 * SIN, 0, 3 * COS)],
        (0.8, 0.8, 3),
        (-SIN, 0, COS),
    ),
}
