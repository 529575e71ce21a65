"""Statistics of maps in regions."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsm_dask.kernels import series
from qsm_dask.kernels.doors import check_voxel_size
from qsm_dask.kernels.jit import compiled
from qsm_dask.kernels.series import Mask, Real

Labels = NDArray[np.int32]
Table = NDArray[np.int32]
Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

STATISTICS = 10
_PERCENTILES = (50.0, 5.0, 25.0, 75.0, 95.0)
_TABLE_LABELS = 2**20


def statistics(
    mask: NDArray[Any],
    voxel_size: ArrayLike,
    dseg: NDArray[Any] | None = None,
    chi: NDArray[Any] | None = None,
    r2star: NDArray[Any] | None = None,
    r2prime: NDArray[Any] | None = None,
    chi_para: NDArray[Any] | None = None,
    chi_dia: NDArray[Any] | None = None,
    /,
) -> tuple[Integers, Floats]:
    """Summarise the maps in every region of a label image, and in the whole mask.

    Only voxels inside the mask count. Per map and region: the number of voxels, their volume
    [mm3], mean, standard deviation (n - 1), median, median absolute deviation from the median
    (not scaled), and the 5th, 25th, 75th and 95th percentile (linear, as NumPy's default).

    Parameters
    ----------
    mask : (x, y, z).
    voxel_size : spacing [mm].
    dseg : (x, y, z) integer labels, 0 outside all regions; labels need not be dense.
    chi, r2star, r2prime, chi_para, chi_dia : (x, y, z) maps, at least one.

    Returns
    -------
    region_labels : int64 (region,), 0 for the whole mask and then every label of `dseg`, ascending,
        those that the mask excludes altogether too.
    region_values : float64 (map, region, statistic), maps in the order of the parameters, statistics n, volume_mm3,
        mean, sd, median, mad, p05, p25, p75, p95. A map that was not given is NaN throughout;
        a region without a voxel has n and volume 0 and else NaN; a single voxel has no sd (NaN).

    Raises
    ------
    ValueError : no map is given, shapes disagree, the mask is empty, a map is NaN or infinite inside
        it, or `dseg` is not of integers from 0 to 2^31 - 1.
    """
    maps = {"chi": chi, "r2star": r2star, "r2prime": r2prime, "chi_para": chi_para, "chi_dia": chi_dia}
    if all(array is None for array in maps.values()):
        raise ValueError(f"statistics needs a map: none of {', '.join(maps)} was given")
    inside = series.inside(mask)
    volume = float(np.prod(check_voxel_size(voxel_size)))
    labels = None if dseg is None else _labels(dseg, inside)
    present = np.zeros(0, dtype=np.int32) if labels is None else _present(labels)
    region_labels = np.concatenate([[0], present]).astype(np.int64)
    values = np.full((len(maps), region_labels.size, STATISTICS), np.nan)
    for summary, (name, array) in zip(values, maps.items(), strict=True):
        if array is not None:
            given = series.volume(name, array, inside)
            summary[0] = _summary(given[inside], volume)
            if labels is not None:
                _regions(given, labels, inside, present, volume, summary[1:])
    return region_labels, values


def _labels(dseg: NDArray[Any], inside: Mask) -> Labels:
    labels = np.asarray(dseg)
    if labels.shape != inside.shape:
        raise ValueError(f"dseg has shape {labels.shape} and mask {inside.shape}: resample one to the other's grid")
    if labels.dtype.kind not in "iub":
        raise ValueError(f"dseg is of {labels.dtype}: labels must be integers")
    if labels.size and (labels.min() < 0 or labels.max() >= 2**31):
        raise ValueError(f"dseg has labels from {labels.min()} to {labels.max()}: they must lie in 0 to 2147483647")
    view = np.ascontiguousarray(labels, dtype=np.int32).view()
    view.flags.writeable = False
    return view


def _present(labels: Labels) -> Table:
    """The labels of an image but 0, ascending."""
    top = int(labels.max())
    if top < _TABLE_LABELS:
        seen = np.zeros(top + 1, dtype=np.bool_)
        _mark(labels, seen)
        return np.flatnonzero(seen[1:]).astype(np.int32) + np.int32(1)
    found = np.unique(labels)
    return found[found > 0]


def _regions(values: Real, labels: Labels, inside: Mask, present: Table, volume: float, summary: Floats) -> None:
    """Gather each region's values one after another, in the order of memory, and summarise each."""
    rows = _row_table(present)
    counts = np.zeros(present.size + 1, dtype=np.int64)
    _count(labels, inside, present, rows, counts)
    starts = np.concatenate([[0], np.cumsum(counts[:-1])])
    gathered = np.empty(int(counts[:-1].sum()), dtype=np.float32)
    _gather(values, labels, inside, present, rows, starts.copy(), gathered)
    for row in range(present.size):
        summary[row] = _summary(gathered[starts[row] : starts[row + 1]], volume)


def _row_table(present: Table) -> Table:
    """The row of each label, where labels are small enough for a table; else nothing."""
    if present.size == 0 or present[-1] >= _TABLE_LABELS:
        return np.zeros(0, dtype=np.int32)
    rows = np.zeros(int(present[-1]) + 1, dtype=np.int32)
    rows[present] = np.arange(present.size, dtype=np.int32)
    return rows


def _summary(values: Real, volume: float) -> Floats:
    """The statistics of some values, whose order is lost."""
    number = values.size
    if number == 0:
        return np.array([0.0, 0.0, *[np.nan] * (STATISTICS - 2)])
    mean = values.mean(dtype=np.float64)
    deviation = np.sqrt(_squares(values, mean) / (number - 1)) if number > 1 else np.nan
    median, p05, p25, p75, p95 = _percentiles(values, _PERCENTILES)
    distances = np.subtract(values, median, dtype=np.float64)
    np.abs(distances, out=distances)
    (mad,) = _percentiles(distances, (50.0,))
    return np.array([number, number * volume, mean, deviation, median, mad, p05, p25, p75, p95])


def _percentiles(values: NDArray[Any], percents: tuple[float, ...]) -> list[float]:
    """Percentiles between the two nearest ranks, in double precision; `values` are sorted in place."""
    positions = [percent / 100 * (values.size - 1) for percent in percents]
    values.sort()  # for ten ranks faster than a partition, up to twenty times with wide registers
    found = []
    for position in positions:
        low = int(position)
        below, above = float(values[low]), float(values[min(low + 1, values.size - 1)])
        part = position - low
        # The two forms keep the result exact at either end, as in numpy.percentile.
        found.append(below + (above - below) * part if part < 0.5 else above - (above - below) * (1 - part))
    return found


@compiled
def _squares(values: Real, mean: float) -> float:
    total = 0.0
    for value in values:
        total += (value - mean) ** 2
    return total


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
        if label[i] and mask[i]:
            counts[_row(label[i], present, rows)] += 1


@compiled
def _gather(
    values: Real, labels: Labels, inside: Mask, present: Table, rows: Table, at: Integers, gathered: Real
) -> None:
    value, label, mask = values.ravel(), labels.ravel(), inside.ravel()
    for i in range(label.size):
        if label[i] and mask[i]:
            row = _row(label[i], present, rows)
            gathered[at[row]] = value[i]
            at[row] += 1
