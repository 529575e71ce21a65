"""Maps that exist already: susceptibility, fields, masks and label images of other tools."""

import csv
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsm_dask.errors import InputError
from qsm_dask.io.acquisition import FileRef, Map
from qsm_dask.io.nifti import Header, read_header, read_into, same_grid
from qsm_dask.units import hz_to_ppm, tesla_to_ppm
from qsm_dask.wording import some

UNITS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "dseg": (),
        "mask": (),
        "chi": ("ppm", "ppb"),
        "local_field": ("ppm", "Hz", "rad/s", "T"),
        "r2": ("1/s", "s", "ms"),
    }
)
"""Quantities that may be ingested, with the units in which they may come (none: a number is a number)."""

_TIMES = ("s", "ms")
_PLAIN = MappingProxyType({"1/s": 1.0, "s": 1.0, "ms": 1e3, "ppm": 1.0, "ppb": 1e-3})
_LIKE = MappingProxyType(
    {"total_field": "local_field", "chi_para": "chi", "chi_dia": "chi", "r2star": "r2", "r2prime": "r2"}
)
"""Quantities that are not ingested, and one that has the same units."""
_EXACT_IN_FLOAT32 = 2**24


@dataclass(frozen=True, eq=False)
class MapReading:
    """A map read: its array, where it comes from, names of labels, and warnings."""

    array: NDArray[Any]
    source: Mapping[str, Any]
    labels: Mapping[int, str]
    warnings: tuple[str, ...]


def read_map(item: Map, metadata: Mapping[str, Any], grid: Header, b0: float) -> MapReading:
    """Read a map in the project's units and dtype.

    Parameters
    ----------
    item : the map.
    metadata : resolved sidecar values of its file.
    grid : header of the scan whose grid it must share.
    b0 : field strength [T], for fields in Hz, rad/s or T.

    Raises
    ------
    InputError : unreadable, on another grid, without units, or with impossible values.
    """
    label = item.file.label
    header = read_header(item.file.path, label)
    if header.volumes != 1:
        raise InputError(f"{label}: has {header.volumes} volumes; a {item.quantity} has one")
    difference = same_grid(grid, header)
    if difference:
        raise InputError(
            f"{label}: {difference}; resample it onto the scan's grid, or leave {item.quantity} out of --derivatives"
        )
    values = np.empty(header.shape, dtype=np.float32)
    read_into(header, [values])
    source: dict[str, Any] = {"from": "derivatives", "files": [label]}
    if item.quantity == "dseg":
        return _read_labels(item, values, source)
    if item.quantity == "mask":
        return MapReading(_to_mask(label, values), source, {}, ())
    units = check_units(item, metadata.get("Units"))
    _convert(values, units, b0)
    return MapReading(values, {**source, "units": units}, {}, ())


def convert_stated(path: Path, name: str, values: NDArray[np.float32], b0: float | None) -> None:
    """Bring a map to the project's units, in place, where the sidecar beside its file states others.

    Parameters
    ----------
    path : image file; its sidecar is the `.json` of the same name.
    name : quantity.
    values : what was read.
    b0 : field strength [T], if it is known.

    Raises
    ------
    InputError : the units are none that the quantity can have, or need a field strength.
    """
    comparable = UNITS.get(_LIKE.get(name, name), ())
    sidecar = path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".json")
    if not comparable or not sidecar.is_file():
        return
    try:
        stated = json.loads(sidecar.read_text(encoding="utf-8-sig")).get("Units")
    except (ValueError, AttributeError) as error:
        raise InputError(f"{sidecar}: is no JSON object: {error}") from error
    if stated is None:
        return
    units = {known.lower(): known for known in comparable}.get(str(stated).strip().lower())
    if units is None:
        raise InputError(f"{sidecar}: Units is {stated!r}; a {name} comes in {' or '.join(comparable)}")
    if units not in _PLAIN and b0 is None:
        raise InputError(f"{path}: {name} is in {units} by its sidecar; give the field strength (--b0) to convert it")
    _convert(values, units, b0 or 0.0)


def _convert(values: NDArray[np.float32], units: str, b0: float) -> None:
    if units in _TIMES:
        np.divide(np.float32(1.0), values, out=values, where=values > 0)  # where there is no T2 there is no R2
    factor = _factor(units, b0)
    if factor != 1.0:
        np.multiply(values, np.float32(factor), out=values)


def check_units(item: Map, stated: object) -> str:
    """The units of a map: those of its sidecar, or those that the user gave.

    Raises
    ------
    InputError : neither, both and different, or none that the quantity can have.
    """
    allowed = {units.lower(): units for units in UNITS[item.quantity]}
    label, names = item.file.label, " or ".join(UNITS[item.quantity])
    if stated is None and item.units is None:
        raise InputError(
            f"{label}: its sidecar has no Units; add them ({names}), "
            f"or state them as in --derivatives DIR:{item.quantity}={UNITS[item.quantity][0]}"
        )
    found = None if stated is None else allowed.get(str(stated).strip().lower())
    if stated is not None and found is None:
        raise InputError(f"{label}: Units is {stated!r}; a {item.quantity} comes in {names}")
    if found and item.units and found != item.units:
        raise InputError(f"{label}: Units is {found}, but --derivatives says {item.units}; correct the wrong one")
    return found or str(item.units)


def _factor(units: str, b0: float) -> float:
    """What takes a map to ppm or 1/s; times are inverted first."""
    if units in _PLAIN:
        return _PLAIN[units]
    return {
        "Hz": hz_to_ppm(1.0, b0),
        "rad/s": hz_to_ppm(1.0 / (2 * math.pi), b0),
        "T": tesla_to_ppm(1.0, b0),
    }[units]


def _to_mask(label: str, values: NDArray[np.float32]) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = values != 0
    if not mask.any():
        raise InputError(f"{label}: the mask is empty")
    if not np.array_equal(values, np.rint(values)):
        raise InputError(f"{label}: the mask has fractions; threshold it first")
    return mask


def _read_labels(item: Map, values: NDArray[np.float32], source: dict[str, Any]) -> MapReading:
    label = item.file.label
    if not np.array_equal(values, np.rint(values)):
        raise InputError(f"{label}: a label image holds whole numbers, this one has fractions; was it interpolated?")
    if values.min() < 0 or values.max() >= _EXACT_IN_FLOAT32:
        raise InputError(f"{label}: labels must lie between 0 and {_EXACT_IN_FLOAT32 - 1}")
    array = values.astype(np.int32)
    present = [int(n) for n in np.unique(array) if n]
    if not present:
        raise InputError(f"{label}: the label image is empty")
    warnings = []
    names: dict[int, str] = {}
    if item.table is None:
        warnings.append(f"{label}: no dseg.tsv (index, name) found for it; regions are named label_<number>")
    else:
        names = read_label_table(item.table)
        source["files"] = [label, item.table.label]
        nameless = [str(n) for n in present if n not in names]
        if nameless:
            warnings.append(f"{item.table.label}: has no name for label {some(nameless)}; named label_<number>")
    labels = {**{n: f"label_{n}" for n in present}, **names}
    return MapReading(array, source, dict(sorted(labels.items())), tuple(warnings))


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
