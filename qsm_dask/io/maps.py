"""Maps that exist already: susceptibility, fields, masks and label images of other tools."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsm_dask.errors import InputError
from qsm_dask.io.acquisition import Map
from qsm_dask.io.grid import Grid, same_grid
from qsm_dask.io.nifti import read_header, read_into
from qsm_dask.io.segmentations import MapReading, read_segmentation
from qsm_dask.units import hz_to_ppm, tesla_to_ppm

UNITS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "dseg": (),
        "probseg": (),
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


def read_map(
    item: Map, metadata: Mapping[str, Any], grid: Grid, b0: float, magnitude: NDArray[np.float32] | None = None
) -> MapReading:
    """Read a map in the project's units and dtype, on the scan's grid.

    Parameters
    ----------
    item : the map.
    metadata : resolved sidecar values of its file.
    grid : of the scan; label images, masks and probabilities are brought onto it, other maps must share it.
    b0 : field strength [T], for fields in Hz, rad/s or T.
    magnitude : (x, y, z) of the scan's first echo, against which the place of a label image is checked.

    Raises
    ------
    InputError : unreadable, on another grid, without units, or with impossible values.
    """
    if not UNITS[item.quantity]:
        return read_segmentation(item, metadata, grid, magnitude)
    label = item.file.label
    header = read_header(item.file.path, label)
    if header.volumes != 1:
        raise InputError(f"{label}: has {header.volumes} volumes; a {item.quantity} has one")
    difference = same_grid(grid, header.grid)
    if difference:
        raise InputError(
            f"{label}: {difference}; resample it onto the scan's grid, or leave {item.quantity} out of --derivatives"
        )
    values = np.empty(header.shape, dtype=np.float32)
    read_into(header, [values])
    source: dict[str, Any] = {"from": "derivatives", "files": [label]}
    units = check_units(item, metadata.get("Units"))
    _convert(values, units, b0)
    return MapReading({item.quantity: values}, {**source, "units": units}, {}, ())


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
