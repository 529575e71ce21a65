"""Smooth random fields that do not depend on the resolution they are drawn at."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qsm_dask.phantom.shapes import Volume


def _cubic_basis(position: NDArray[np.float64], origin: float, spacing: float, knots: int) -> Volume:
    distance = np.abs((position[:, None] - origin) / spacing - np.arange(knots)[None, :])
    near = 2.0 / 3.0 - distance**2 + 0.5 * distance**3
    far = (2.0 - distance).clip(min=0.0) ** 3 / 6.0
    return np.where(distance < 1.0, near, far).astype(np.float32)


def smooth_field(
    rng: np.random.Generator,
    positions: Sequence[NDArray[np.float64]],
    extent: NDArray[np.float64],
    spacing_mm: float,
) -> Volume:
    """A smooth random field of mean about 0 and standard deviation about 1.

    Cubic B-splines with random coefficients on a lattice fixed in space: the same generator
    state gives the same field at any resolution.

    Parameters
    ----------
    rng : generator; a fixed number of values is drawn for a given `extent` and `spacing_mm`.
    positions : coordinates [mm] of the grid along x, y and z.
    extent : (2, 3) corners of the region the lattice covers [mm].
    spacing_mm : distance of the knots; the field varies over about twice that.

    Returns
    -------
    Volume : float32, shape of the grid.
    """
    knots = [int(np.ceil((high - low) / spacing_mm)) + 3 for low, high in extent.T]
    values = rng.standard_normal(knots).astype(np.float32)
    bases = [
        _cubic_basis(position, low - spacing_mm, spacing_mm, count)
        for position, low, count in zip(positions, extent[0], knots, strict=True)
    ]
    for basis in bases:
        values = np.tensordot(values, basis, axes=(0, 1))
    # The mean square of a cubic B-spline sum is 151/315 per axis; dividing by its root keeps unit variance.
    return np.ascontiguousarray(values) / np.float32((151.0 / 315.0) ** 1.5)
