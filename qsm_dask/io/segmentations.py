"""Label images, masks and probabilities of other tools, on the grid of a scan and with the names of their regions."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsm_dask.digests import digest_of_array
from qsm_dask.errors import InputError
from qsm_dask.io import freesurfer
from qsm_dask.io.acquisition import FileRef, Map
from qsm_dask.io.grid import Grid
from qsm_dask.io.nifti import Header, read_header, read_into, read_labels
from qsm_dask.io.placing import Placement, judge, place
from qsm_dask.io.transforms import Transform, read_transform
from qsm_dask.wording import some

_CERTAIN = 1.0 + 1e-3
"""Files round, and programs that resampled probabilities overshoot."""


@dataclass(frozen=True, eq=False)
class MapReading:
    """A map read: its arrays by quantity, where it comes from, names of labels, and warnings."""

    arrays: Mapping[str, NDArray[Any]]
    source: Mapping[str, Any]
    labels: Mapping[int, str]
    warnings: tuple[str, ...]


def read_segmentation(
    item: Map, metadata: Mapping[str, Any], scan: Grid, magnitude: NDArray[np.float32] | None
) -> MapReading:
    """Read a `dseg`, a `mask` or a `probseg`, and bring it onto a scan's grid where it is on another.

    Parameters
    ----------
    item : the map.
    metadata : resolved sidecar values of its file.
    scan : the grid that it shall have.
    magnitude : (x, y, z) of the scan's first echo, which tells where the head is; None where it is not known.

    Raises
    ------
    InputError : unreadable, with impossible values, or not where the scan is.
    """
    headers = [read_header(file.path, file.label) for file in (item.file, *item.others)]
    if item.quantity != "probseg" and headers[0].volumes != 1:
        raise InputError(f"{headers[0].label}: has {headers[0].volumes} volumes; a {item.quantity} has one")
    transform = _transform(item, headers[0], scan)
    placement = place(scan, headers[0].grid, transform)
    source: dict[str, Any] = {"from": "derivatives", "files": [file.label for file in item.content]}
    warnings = []
    if placement is not None:
        source["resampled_by"] = "headers" if transform is None else transform.how
        if transform is None and item.any_session:
            warnings.append(
                f"{item.file.label}: is of no session though its subject has several; taken to lie where the scanner "
                "saw the head in each: give the transforms with --transform"
            )
    read = {"dseg": _read_dseg, "mask": _read_mask, "probseg": _read_probseg}[item.quantity]
    found = read(item, metadata, headers, placement, magnitude)
    return MapReading(found.arrays, {**source, **found.source}, found.labels, (*warnings, *found.warnings))


def _transform(item: Map, header: Header, scan: Grid) -> Transform | None:
    if item.transform is None:
        return None
    return read_transform(Path(item.transform.path), item.transform.label, scan, header.grid)


def _read_dseg(
    item: Map,
    _: Mapping[str, Any],
    headers: Sequence[Header],
    placement: Placement | None,
    magnitude: NDArray[np.float32] | None,
) -> MapReading:
    label, values = item.file.label, read_labels(headers[0])
    present = _present(values)
    if not present:
        raise InputError(f"{label}: the label image is empty")
    array, source, warnings = _placed(label, headers[0], values, placement, magnitude)
    names, told, doubts = _names(item, present)
    carried = set(_present(array))
    lost = [names.get(number, f"label_{number}") for number in present if number not in carried]
    if lost:
        warnings.append(f"{label}: without a voxel in the scan: {some(lost)}")
    labels = {**{number: f"label_{number}" for number in present}, **names}
    return MapReading({"dseg": array}, {**source, **told}, dict(sorted(labels.items())), (*warnings, *doubts))


def _present(labels: NDArray[np.int32]) -> list[int]:
    found: list[int] = np.unique(labels[labels > 0]).tolist()
    return found


def _names(item: Map, present: Sequence[int]) -> tuple[dict[int, str], dict[str, str], list[str]]:
    """Names by label, where they come from, and what is wrong with them."""
    label = item.file.label
    if item.table is not None:
        names = read_label_table(item.table)
        nameless = [str(number) for number in present if number not in names]
        return names, {}, (
            [f"{item.table.label}: has no name for label {some(nameless)}; named label_<number>"] if nameless else []
        )  # fmt: skip
    if freesurfer.follows(label):
        known = freesurfer.names()
        nameless = [str(number) for number in present if number not in known]
        return {number: known[number] for number in present if number in known}, {"names": freesurfer.CONVENTION}, (
            [f"{label}: no name known for label {some(nameless)}; named label_<number>"] if nameless else []
        )  # fmt: skip
    return {}, {}, [f"{label}: no dseg.tsv (index, name) found for it; regions are named label_<number>"]


def _placed(
    label: str,
    header: Header,
    values: NDArray[np.int32],
    placement: Placement | None,
    magnitude: NDArray[np.float32] | None,
) -> tuple[NDArray[np.int32], dict[str, Any], list[str]]:
    if placement is None:
        return values, {}, []
    array = placement.labels(values)
    own = float(np.count_nonzero(values)) * header.voxel_mm3
    figures, warnings = judge(label, placement, own, array > 0, None, magnitude)
    return array, {"digest": digest_of_array(values), **figures}, warnings


def _read_mask(
    item: Map,
    _: Mapping[str, Any],
    headers: Sequence[Header],
    placement: Placement | None,
    magnitude: NDArray[np.float32] | None,
) -> MapReading:
    label = item.file.label
    values = np.empty(headers[0].shape, dtype=np.float32)
    read_into(headers[0], [values])
    if not values.any():
        raise InputError(f"{label}: the mask is empty")
    if not np.array_equal(values, np.rint(values)):
        raise InputError(f"{label}: the mask has fractions; threshold it first")
    array, source, warnings = _placed(label, headers[0], (values != 0).astype(np.int32), placement, magnitude)
    return MapReading({"mask": array != 0}, source, {}, tuple(warnings))


def _read_probseg(
    item: Map,
    metadata: Mapping[str, Any],
    headers: Sequence[Header],
    placement: Placement | None,
    magnitude: NDArray[np.float32] | None,
) -> MapReading:
    label, shape = item.file.label, headers[0].shape if placement is None else placement.scan.shape
    count = sum(header.volumes for header in headers)
    labels, warnings = _volume_names(item, metadata, headers, count)
    array = np.empty((count, *shape), dtype=np.float32)
    digests, own = list[str](), 0.0
    at = 0
    for header in headers:
        if header.shape != headers[0].shape or not np.allclose(header.affine, headers[0].affine, atol=1e-3):
            raise InputError(f"{header.label}: is on another grid than {label}; all labels must share one")
        volumes = np.empty((header.volumes, *header.shape), dtype=np.float32)
        read_into(header, volumes)
        if not (volumes.min() >= 0.0 and volumes.max() <= _CERTAIN):
            raise InputError(
                f"{header.label}: probabilities lie between 0 and 1, these reach {volumes.min():g} to {volumes.max():g}"
            )
        np.minimum(volumes, np.float32(1.0), out=volumes)
        for volume in volumes:
            array[at] = volume if placement is None else placement.values(volume)
            at += 1
        if placement is not None:
            digests.append(digest_of_array(volumes))
            own += float(volumes.sum(dtype=np.float64)) * header.voxel_mm3
    if not array.any() and placement is None:
        raise InputError(f"{label}: all probabilities are 0")
    source: dict[str, Any] = {}
    if placement is not None:
        carried = float(array.sum(dtype=np.float64))
        figures, found = judge(label, placement, own, array.max(axis=0) > 0.5, carried, magnitude)
        source = {"digest": digests, **figures}
        warnings += found
    numbers = np.array(list(labels), dtype=np.int64)
    return MapReading({"probseg": array, "probseg_labels": numbers}, source, labels, tuple(warnings))


def _volume_names(
    item: Map, metadata: Mapping[str, Any], headers: Sequence[Header], count: int
) -> tuple[dict[int, str], list[str]]:
    """Number and name of each volume, in their order."""
    table = {} if item.table is None else read_label_table(item.table)
    stated = metadata.get("LabelMap")
    if len(headers) > 1:
        if count > len(headers):
            raise InputError(f"{item.file.label}: of several files each has one volume, its label's")
        named = [_label_entity(header.label) for header in headers]
    elif isinstance(stated, list) and len(stated) == count:
        named = [str(one) for one in stated]
    elif len(table) == count:
        return table, []
    else:
        named = (
            [_label_entity(item.file.label)] if count == 1 else [f"label_{number}" for number in range(1, count + 1)]
        )
        if count > 1 and (stated or table):
            raise InputError(
                f"{item.file.label}: has {count} volumes and {len(stated or table)} names: give a LabelMap in its "
                "sidecar, or a table, with one a volume"
            )
    numbers = {name: number for number, name in table.items()}
    free = (number for number in range(1, 2**31) if number not in table)
    labels = {numbers[name] if name in numbers else next(free): name for name in named}
    if len(set(named)) < count:
        raise InputError(f"{item.file.label}: two of its volumes have one name, among {some(named)}")
    anonymous = count > 1 and named[0] == "label_1"
    told = f"{item.file.label}: no LabelMap in its sidecar and no table: regions are named label_<number>"
    return labels, [told] if anonymous else []


def _label_entity(path: str) -> str:
    """What a file name's `label-` says, else the whole of it."""
    name = path.rpartition("/")[2].partition(".")[0]
    return next((part.removeprefix("label-") for part in name.split("_") if part.startswith("label-")), name)


def numbered_apart(labels: Mapping[int, str], taken: Mapping[int, str]) -> dict[int, int]:
    """New numbers of regions of probabilities beside a label image: that of the same name, else one of their own."""
    by_name = {name: number for number, name in taken.items()}
    used, found = set(taken), dict[int, int]()
    for number, name in labels.items():
        if name in by_name:
            found[number] = by_name[name]
            continue
        new = number if number not in used else max(used | set(labels)) + 1
        found[number] = new
        used.add(new)
    return found


def read_label_table(table: FileRef) -> dict[int, str]:
    """Names by label from a BIDS `dseg.tsv`; a name that several labels share gets the number appended.

    Raises
    ------
    InputError : unreadable, without the columns `index` and `name`, or with a label twice.
    """
    try:
        text = Path(table.path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise InputError(f"{table.label}: cannot be read: {error}") from error
    rows = list(csv.DictReader(StringIO(text), delimiter="\t"))
    if not rows or not {"index", "name"} <= rows[0].keys():
        raise InputError(f"{table.label}: expected a tab-separated table with the columns index and name")
    names: dict[int, str] = {}
    for row in rows:
        index, name = (row["index"] or "").strip(), (row["name"] or "").strip()
        if not index.isdecimal():
            raise InputError(f"{table.label}: index {index!r} is not a whole number")
        if int(index) in names:
            raise InputError(f"{table.label}: index {index} stands there twice")
        names[int(index)] = name if name and name != "n/a" else f"label_{index}"
    names.pop(0, None)
    shared = {name for name, count in Counter(names.values()).items() if count > 1}
    return {number: f"{name}_{number}" if name in shared else name for number, name in names.items()}
