"""What susceptibility is relative to: any region, the whole brain or fluid, chosen after the map was made.

A map's zero is arbitrary; another reference subtracts one number from it. Statistics that are values of voxels move by
that number, a sum over voxels by it times the volume, and spreads and counts not at all: so region values that were
stored once can be stated under every reference, and nothing is computed again.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qsm_dask.quantities import COORDINATES

Floats = NDArray[np.float64]

WHOLE = "whole_brain"
"""Name of label 0, the whole mask."""

CSF = "csf"
"""Name of the fluid that `reference.csf` found."""

COUNTS = ("n", "volume_mm3", "coverage", "core_n", "weighted_volume_mm3")
"""Statistics of the region, the same in every map."""

SPREADS = ("sd", "mad")
"""Statistics that the zero of a map does not move."""

_STATISTICS = COORDINATES["statistic"]
_VOLUME, _MASS = _STATISTICS.index("volume_mm3"), _STATISTICS.index("mass")
_MOVED = np.array([name not in (*COUNTS, *SPREADS, "mass") for name in _STATISTICS])


class Moments(NamedTuple):
    """A reference: its susceptibility in the map as it is, the spread of its voxels, and how many there are."""

    offset: float
    sd: float
    n: float


def parts(reference: str, known: Sequence[str]) -> tuple[str, ...]:
    """The regions that a reference is made of: a name, or several joined by `+`.

    Raises
    ------
    ValueError : a name is not among those known; the message names near ones.
    """
    names = tuple(name.strip() for name in reference.split("+"))
    for name in names:
        if name != CSF and name not in known:
            near = difflib.get_close_matches(name, [*known, CSF], n=3) or [WHOLE, CSF, *known[:6]]
            raise ValueError(f"no region {name!r} to refer to; did you mean {' or '.join(dict.fromkeys(near))}?")
        if name == CSF and len(names) > 1:
            raise ValueError(f"{reference!r}: {CSF} is a reference by itself; join regions only")
    return names


def moments_of(names: Sequence[str], chi: Mapping[str, Floats], csf: Floats | None) -> Moments:
    """The moments of a reference in one scan.

    Parameters
    ----------
    names : from `parts`.
    chi : the statistics of chi by region.
    csf : offset, SD and n of the fluid; None where nobody looked for it.

    Returns
    -------
    Moments : of all voxels of these regions together; NaN where the scan has none.
    """
    if names == (CSF,):
        return Moments(*(np.full(3, np.nan) if csf is None else csf))
    found = [chi[name] for name in names if name in chi]
    counts = np.array([row[_STATISTICS.index("n")] for row in found])
    n = float(np.nansum(counts))
    if not n:
        return Moments(np.nan, np.nan, 0.0)
    means = np.array([row[_STATISTICS.index("mean")] for row in found])
    variances = np.square([row[_STATISTICS.index("sd")] for row in found])
    offset = float(np.nansum(counts * means) / n)
    within, between = np.nansum((counts - 1) * variances), np.nansum(counts * np.square(means - offset))
    return Moments(offset, float(np.sqrt((within + between) / (n - 1))) if n > 1 else np.nan, n)


def shifted(values: Floats, offset: float) -> Floats:
    """Region values of susceptibility after a number was subtracted from the map.

    Parameters
    ----------
    values : (..., statistic) as `roi.statistics` has them.
    offset : the number [ppm]; NaN, where a scan lacks the reference, leaves counts and spreads.
    """
    moved = values.copy()
    moved[..., _MOVED] -= offset
    moved[..., _MASS] -= offset * values[..., _VOLUME]
    return moved
