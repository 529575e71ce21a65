"""Statistics of maps in regions."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsm_dask.kernels import series
from qsm_dask.kernels.doors import check_voxel_size
from qsm_dask.kernels.jit import compiled
from qsm_dask.kernels.series import Mask, Real
from qsm_dask.kernels.steepness import steepness
from qsm_dask.kernels.summary import Floats, plain, weighted

Labels = NDArray[np.int32]
Table = NDArray[np.int32]
Integers = NDArray[np.int64]
Places = NDArray[np.int32] | NDArray[np.int64]

STATISTICS = 20
_N, _VOLUME, _EARLY, _COVERAGE, _LATE, _WEIGHTED = 0, 1, slice(2, 10), 10, slice(11, 17), slice(17, 20)
_MOMENTS = 8
_EMPTY = [_N, _VOLUME, _COVERAGE, 14]
"""What is 0, not unknown, of a region without a voxel: n, volume, coverage, core_n."""

_TABLE_LABELS = 2**20
_CERTAIN = 1.001
"""Interpolation may carry a probability a little above 1."""


def statistics(
    mask: NDArray[Any],
    voxel_size: ArrayLike,
    dseg: NDArray[Any] | None = None,
    chi: NDArray[Any] | None = None,
    r2star: NDArray[Any] | None = None,
    r2prime: NDArray[Any] | None = None,
    chi_para: NDArray[Any] | None = None,
    chi_dia: NDArray[Any] | None = None,
    t2star: NDArray[Any] | None = None,
    swi: NDArray[Any] | None = None,
    total_field: NDArray[Any] | None = None,
    probseg: NDArray[Any] | None = None,
    probseg_labels: NDArray[Any] | None = None,
    /,
) -> tuple[Integers, Floats]:
    """Summarise the maps in every region of a label image, and in the whole mask.

    Only voxels inside the mask count. Labels and mask are read once; then each map is gathered region by region,
    in the order of memory. Statistics n, volume and coverage are the same for every map. The core of a region are its
    voxels whose six neighbours belong to it too. Where each region's probability in each voxel is known, three more
    statistics weigh by it. All but n, volume, coverage, sd, mad, mass and the core's n move with the zero of the map.

    Parameters
    ----------
    mask : (x, y, z).
    voxel_size : spacing [mm].
    dseg : (x, y, z) integer labels, 0 outside all regions; labels need not be dense.
    chi, r2star, r2prime, chi_para, chi_dia, t2star, swi : (x, y, z) maps, at least one.
    total_field : (x, y, z); the length of its gradient, which dephases the signal of a voxel, is one more map.
    probseg : (label, x, y, z) probability of regions, 0 to 1; regions may overlap.
    probseg_labels : (label,) the label of each of them.

    Returns
    -------
    region_labels : int64 (region,), 0 for the whole mask and then every label of `dseg` and `probseg_labels`,
        ascending, those that the mask excludes altogether too.
    region_values : float64 (map, region, statistic), maps chi to swi and the gradient of the field. Statistics are n,
        volume_mm3, mean, sd (n - 1), median, mad (from the median, not scaled), p05, p25, p75, p95 (linear), coverage
        (share of the label inside the mask), trimmed_mean (without the lowest and the highest tenth), clipped_mean
        (within 3 standard deviations, by the MAD, of the median: without veins, bleeds and calcifications), mass (sum
        times voxel volume), core_n, core_mean, core_median, weighted_volume_mm3, weighted_mean (by probability) and
        pv_mean (of the pure region: the regression of value on probability at 1). A map that was not given is NaN
        throughout; a region without a voxel has n and volume 0; what is not defined is NaN.

    Raises
    ------
    ValueError : no map is given, shapes disagree, the mask is empty, a map is NaN or infinite inside
        it, `dseg` is not of integers from 0 to 2^31 - 1, or probabilities are none or belong to no label.
    """
    maps = {
        "chi": chi, "r2star": r2star, "r2prime": r2prime, "chi_para": chi_para, "chi_dia": chi_dia, "t2star": t2star,
        "swi": swi,
    }  # fmt: skip
    if all(array is None for array in maps.values()):
        raise ValueError(f"statistics needs a map: none of {', '.join(maps)} was given")
    inside = series.inside(mask)
    size = check_voxel_size(voxel_size)
    channels = _channels(probseg, probseg_labels, inside)
    regions = _regions(dseg, inside)
    named = np.union1d(regions.labels, channels).astype(np.int64)
    given = [None if array is None else series.volume(name, array, inside) for name, array in maps.items()]
    field = None if total_field is None else series.volume("total_field", total_field, inside)
    given.append(None if field is None else steepness(field, inside, size))
    values = np.full((len(given), named.size + 1, STATISTICS), np.nan)
    voxel_mm3 = float(np.prod(size))
    _fill(given, inside, regions, 1 + np.searchsorted(named, regions.labels), voxel_mm3, values)
    if probseg is not None:
        for row, probability in zip(1 + np.searchsorted(named, channels), probseg, strict=True):
            _weigh(given, inside, probability, voxel_mm3, values[:, row])
    return np.concatenate([np.zeros(1, np.int64), named]), values


class _Regions(NamedTuple):
    """Where each label's voxels inside the mask lie.

    Attributes
    ----------
    labels : (region,) ascending.
    totals : (region,) voxels of the image, those outside the mask too.
    starts : (region + 1,) where each region begins in `places`.
    places : index of each voxel, region after region, in the order of memory.
    core : whether its six neighbours belong to the region too.
    """

    labels: Table
    totals: Integers
    starts: Integers
    places: Places
    core: Mask


def _channels(probseg: NDArray[Any] | None, labels: NDArray[Any] | None, inside: Mask) -> Integers:
    """The label of each probability image."""
    if probseg is None and labels is None:
        return np.zeros(0, np.int64)
    if probseg is None or labels is None:
        raise ValueError("probseg and probseg_labels go together: hand over both")
    found = np.asarray(labels)
    if found.ndim != 1 or found.dtype.kind not in "iu" or np.unique(found).size != found.size:
        raise ValueError(f"probseg_labels is {found.tolist()}: it must be a list of different whole numbers")
    if found.size and (found.min() < 1 or found.max() >= 2**31):
        raise ValueError(f"probseg_labels is {found.tolist()}: labels must lie in 1 to 2147483647")
    if np.shape(probseg) != (found.size, *inside.shape):
        raise ValueError(
            f"probseg has shape {np.shape(probseg)}: it must be {found.size} labels on the mask's grid {inside.shape}"
        )
    return found.astype(np.int64)


def _labels(dseg: NDArray[Any], inside: Mask) -> Labels:
    labels = np.asarray(dseg)
    if labels.shape != inside.shape:
        raise ValueError(f"dseg has shape {labels.shape} and mask {inside.shape}: resample one to the other's grid")
    if labels.dtype.kind not in "iub":
        raise ValueError(f"dseg is of {labels.dtype}: labels must be integers")
    if labels.size and (labels.min() < 0 or labels.max() >= 2**31):
        raise ValueError(f"dseg has labels from {labels.min()} to {labels.max()}: they must lie in 0 to 2147483647")
    return series.read_only(np.ascontiguousarray(labels, dtype=np.int32))


def _regions(dseg: NDArray[Any] | None, inside: Mask) -> _Regions:
    """Sort the voxels of a label image by label, in two passes."""
    if dseg is None:
        nothing = np.zeros(0, np.int32)
        return _Regions(nothing, np.zeros(0, np.int64), np.zeros(1, np.int64), nothing, np.zeros(0, np.bool_))
    labels = _labels(dseg, inside)
    present = _present(labels)
    rows = _row_table(present)
    counts = np.zeros((2, present.size), dtype=np.int64)
    _count(labels, inside, present, rows, counts)
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts[0])])
    places = _no_places(int(starts[-1]), labels.size)
    core = np.empty(places.size, np.bool_)
    _sort(labels, inside, present, rows, starts.copy(), places, core)
    return _Regions(present, counts[1], starts, places, core)


def _no_places(number: int, voxels: int) -> Places:
    """Room for indices of voxels, no wider than an image needs."""
    return np.empty(number, np.int32) if voxels < 2**31 else np.empty(number, np.int64)


def _present(labels: Labels) -> Table:
    """The labels of an image but 0, ascending."""
    top = int(labels.max())
    if top < _TABLE_LABELS:
        seen = np.zeros(top + 1, dtype=np.bool_)
        _mark(labels, seen)
        return np.flatnonzero(seen[1:]).astype(np.int32) + np.int32(1)
    found = np.unique(labels)
    return found[found > 0]


def _row_table(present: Table) -> Table:
    """The row of each label, where labels are small enough for a table; else nothing."""
    if present.size == 0 or present[-1] >= _TABLE_LABELS:
        return np.zeros(0, dtype=np.int32)
    rows = np.zeros(int(present[-1]) + 1, dtype=np.int32)
    rows[present] = np.arange(present.size, dtype=np.int32)
    return rows


def _fill(
    given: Sequence[Real | None],
    inside: Mask,
    regions: _Regions,
    rows: NDArray[np.intp],
    voxel_mm3: float,
    values: Floats,
) -> None:
    """Summarise each map in the whole mask and in each region of a label image."""
    core = np.empty(int(np.count_nonzero(inside)), np.bool_)
    _core_of_mask(inside, core)
    for image, table in zip(given, values, strict=True):
        if image is None:
            continue
        table[1:, _EMPTY] = 0
        gathered = np.empty(core.size, np.float32)
        _squeeze(image, inside, gathered)
        _note(gathered, core, core.size, voxel_mm3, table[0])
        for number, row in enumerate(rows):
            found = slice(regions.starts[number], regions.starts[number + 1])
            if found.stop > found.start:
                voxels = _gathered(image, regions.places[found])
                _note(voxels, regions.core[found], int(regions.totals[number]), voxel_mm3, table[row])


def _note(values: Real, core: Mask, total: int, voxel_mm3: float, row: Floats) -> None:
    row[_N], row[_VOLUME], row[_COVERAGE] = values.size, values.size * voxel_mm3, values.size / total
    found = plain(values, core, voxel_mm3)
    row[_EARLY], row[_LATE] = found[:_MOMENTS], found[_MOMENTS:]


def _weigh(
    given: Sequence[Real | None], inside: Mask, probability: NDArray[Any], voxel_mm3: float, rows: Floats
) -> None:
    """Summarise each map in one region of which probabilities are known."""
    share = series.volume("probseg", probability, inside)
    number, least, most = _possible(share, inside)
    if least < 0 or most > _CERTAIN:
        raise ValueError(f"probseg has values from {least:g} to {most:g}: probabilities lie in 0 to 1")
    places = _no_places(number, share.size)
    _find(share, inside, places)
    weights = _gathered(share, places)
    for image, row in zip(given, rows, strict=True):
        if image is not None:
            row[_WEIGHTED] = (0.0, np.nan, np.nan)
            if number:
                row[_WEIGHTED] = weighted(_gathered(image, places), weights, voxel_mm3)


def _gathered(image: Real, places: Places) -> Real:
    # NumPy's own take makes 64-bit copies of the places first.
    values = np.empty(places.size, np.float32)
    _gather(image, series.read_only(places), values)
    return values


@compiled
def _mark(labels: Labels, seen: Mask) -> None:
    for label in labels.flat:
        seen[label] = True


@compiled
def _row(label: int, present: Table, rows: Table) -> int:
    return int(rows[label]) if rows.size else int(np.searchsorted(present, label))


@compiled
def _count(labels: Labels, inside: Mask, present: Table, rows: Table, counts: Integers) -> None:
    label, mask = labels.ravel(), inside.ravel()
    for i in range(label.size):
        if label[i]:
            row = _row(label[i], present, rows)
            counts[1, row] += 1
            if mask[i]:
                counts[0, row] += 1


@compiled
def _sort(labels: Labels, inside: Mask, present: Table, rows: Table, at: Integers, places: Places, core: Mask) -> None:
    nx, ny, nz = labels.shape
    for i in range(nx):
        for j in range(ny):
            for m in range(nz):
                label = labels[i, j, m]
                if not label or not inside[i, j, m]:
                    continue
                row = _row(label, present, rows)
                places[at[row]] = (i * ny + j) * nz + m
                core[at[row]] = (
                    (0 < i < nx - 1 and 0 < j < ny - 1 and 0 < m < nz - 1)
                    and (labels[i - 1, j, m] == label and inside[i - 1, j, m])
                    and (labels[i + 1, j, m] == label and inside[i + 1, j, m])
                    and (labels[i, j - 1, m] == label and inside[i, j - 1, m])
                    and (labels[i, j + 1, m] == label and inside[i, j + 1, m])
                    and (labels[i, j, m - 1] == label and inside[i, j, m - 1])
                    and (labels[i, j, m + 1] == label and inside[i, j, m + 1])
                )
                at[row] += 1


@compiled
def _core_of_mask(inside: Mask, core: Mask) -> None:
    nx, ny, nz = inside.shape
    at = 0
    for i in range(nx):
        for j in range(ny):
            for m in range(nz):
                if inside[i, j, m]:
                    core[at] = (
                        (0 < i < nx - 1 and 0 < j < ny - 1 and 0 < m < nz - 1)
                        and (inside[i - 1, j, m] and inside[i + 1, j, m])
                        and (inside[i, j - 1, m] and inside[i, j + 1, m])
                        and (inside[i, j, m - 1] and inside[i, j, m + 1])
                    )
                    at += 1


@compiled
def _squeeze(values: Real, inside: Mask, gathered: NDArray[np.float32]) -> None:
    value, mask = values.ravel(), inside.ravel()
    at = 0
    for i in range(value.size):
        if mask[i]:
            gathered[at] = value[i]
            at += 1


@compiled
def _gather(values: Real, places: Places, gathered: NDArray[np.float32]) -> None:
    value = values.ravel()
    for i in range(places.size):
        gathered[i] = value[places[i]]


@compiled
def _possible(share: Real, inside: Mask) -> tuple[int, float, float]:
    """How many voxels inside the mask are not impossible, and the range of probabilities."""
    value, mask = share.ravel(), inside.ravel()
    number, least, most = 0, np.inf, -np.inf
    for i in range(value.size):
        if mask[i]:
            number += value[i] > 0
            least, most = min(least, value[i]), max(most, value[i])
    return number, least, most


@compiled
def _find(share: Real, inside: Mask, places: Places) -> None:
    value, mask = share.ravel(), inside.ravel()
    at = 0
    for i in range(value.size):
        if mask[i] and value[i] > 0:
            places[at] = i
            at += 1
