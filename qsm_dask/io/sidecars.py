"""JSON sidecars by the BIDS inheritance principle, and the numbers of a series in them."""

import json
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from qsm_dask.errors import InputError
from qsm_dask.io.acquisition import FileRef
from qsm_dask.units import GAMMA_MHZ_PER_T

USED = ("EchoTime", "ImagingFrequency", "LabelMap", "MagneticFieldStrength", "Manufacturer", "Units")
"""The keys that results depend on: whatever else a sidecar says may change freely."""

_DISAGREEMENT = 0.05
_PLAUSIBLE_T = (0.01, 30.0)


def resolve(sidecars: Sequence[FileRef]) -> dict[str, Any]:
    """The values of the keys in `USED`, the more special sidecar overriding the more general.

    A `null` counts as absent.

    Raises
    ------
    InputError : a sidecar cannot be read or is not a JSON object.
    """
    merged: dict[str, Any] = {}
    for file in sidecars:
        merged.update(_load(file))
    return {key: merged[key] for key in USED if merged.get(key) is not None}


def _load(file: FileRef) -> Mapping[str, Any]:
    try:
        stat = Path(file.path).stat()
        return _parse(file.path, stat.st_mtime_ns, stat.st_size)
    except OSError as error:
        raise InputError(f"{file.label}: cannot be read: {error.strerror or error}") from error
    except (TypeError, ValueError) as error:
        raise InputError(f"{file.label}: not a valid JSON object: {error}") from error


@lru_cache(maxsize=1024)
def _parse(path: str, _mtime_ns: int, _size: int) -> Mapping[str, Any]:
    """Parse once what many scans share; time and size are in the key so that a change is seen."""
    content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    if not isinstance(content, dict):
        raise TypeError(f"holds {type(content).__name__}")
    return {key: content[key] for key in USED if key in content}


def echo_times(metadata: Mapping[str, Any], volumes: int, label: str) -> tuple[float, ...]:
    """The echo time [s] of each volume of a file.

    Raises
    ------
    InputError : absent, not a positive number of seconds, or not one a volume.
    """
    value = metadata.get("EchoTime")
    if value is None:
        raise InputError(f"{label}: EchoTime is missing; add it, in seconds, to its JSON sidecar")
    times = list(value) if isinstance(value, list) else [value]
    if len(times) != volumes:
        raise InputError(
            f"{label}: {volumes} volumes but {len(times)} EchoTime; "
            "a 4-D file needs EchoTime as a list with one value a volume (receive coils stand on a fifth axis)"
        )
    for time in times:
        if not _is_number(time) or time <= 0:
            raise InputError(f"{label}: EchoTime is {time!r}; give a positive number of seconds")
        if time >= 1:
            raise InputError(f"{label}: EchoTime is {time!r}; BIDS wants seconds, and this looks like milliseconds")
    return tuple(float(time) for time in times)


def field_strength(metadata: Mapping[str, Mapping[str, Any]]) -> tuple[float, str]:
    """The field strength [T] of a series and the sidecar key that it comes from.

    `ImagingFrequency` [MHz] over 42.577 where a file has it, else `MagneticFieldStrength`:
    a nominal 3 T magnet may be one of 2.895 T, which is 3.5 % of every susceptibility.

    Parameters
    ----------
    metadata : resolved sidecar values by the label of the file.

    Raises
    ------
    InputError : neither key is there, a value is no plausible number, the two disagree by
        more than 5 %, or the files of the series disagree.
    """
    frequency = _common(metadata, "ImagingFrequency")
    nominal = _common(metadata, "MagneticFieldStrength")
    if frequency is not None:
        b0, source = frequency / GAMMA_MHZ_PER_T, "ImagingFrequency"
        if nominal is not None and abs(b0 - nominal) > _DISAGREEMENT * nominal:
            raise InputError(
                f"{_first(metadata)}: ImagingFrequency {frequency:g} MHz means {b0:.3f} T, but MagneticFieldStrength "
                f"says {nominal:g} T; they differ by more than 5 %: correct the wrong one"
            )
    elif nominal is not None:
        b0, source = nominal, "MagneticFieldStrength"
    else:
        raise InputError(
            f"{_first(metadata)}: field strength is missing; add MagneticFieldStrength [T] "
            "or ImagingFrequency [MHz] to its JSON sidecar"
        )
    if not _PLAUSIBLE_T[0] <= b0 <= _PLAUSIBLE_T[1]:
        raise InputError(f"{_first(metadata)}: {source} means {b0:g} T; give tesla, or megahertz for a frequency")
    return b0, source


def text(metadata: Mapping[str, Mapping[str, Any]], key: str) -> str | None:
    """A text that all files of a series share, from the first that has it."""
    return next((str(values[key]).strip() for values in metadata.values() if key in values), None)


def _common(metadata: Mapping[str, Mapping[str, Any]], key: str) -> float | None:
    found = {label: values[key] for label, values in metadata.items() if key in values}
    for label, value in found.items():
        if not _is_number(value) or value <= 0:
            raise InputError(f"{label}: {key} is {value!r}; give a positive number")
    if found and max(found.values()) - min(found.values()) > 1e-3 * max(found.values()):
        low, high = min(found, key=lambda label: found[label]), max(found, key=lambda label: found[label])
        raise InputError(
            f"{key} differs within the series: {found[low]:g} in {low}, {found[high]:g} in {high}; correct one"
        )
    return float(next(iter(found.values()))) if found else None


def _first(metadata: Mapping[str, Any]) -> str:
    return next(iter(metadata))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
