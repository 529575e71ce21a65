"""Run one stage on NIfTI files, without a cohort."""

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from qsm_dask.errors import ConfigError, InputError, StageError
from qsm_dask.io import atlas, nifti
from qsm_dask.io.grid import same_grid
from qsm_dask.io.maps import convert_stated
from qsm_dask.kernels.solved import Solved
from qsm_dask.pipeline.plan import call
from qsm_dask.pipeline.schema import read_step
from qsm_dask.pipeline.steps import Step
from qsm_dask.quantities import QUANTITIES, SPACE, quantity
from qsm_dask.told import Told

_LOG = logging.getLogger(__name__)

_MOST_TESLA = 30.0
"""No human magnet is as strong: a larger number is in MHz or millitesla."""

_SLACK = 1.01
"""Scanners' integers reach a little beyond a turn when they are scaled."""


def run(
    stage: str,
    inputs: Mapping[str, Path],
    out: Path,
    *,
    b0: float | None = None,
    b0_dir: Sequence[float] | None = None,
    te: Sequence[float] = (),
    parameters: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Run a stage of the table on images and write what it returns.

    Parameters
    ----------
    stage : its name, such as `inversion.rts`.
    inputs : NIfTI file of each quantity, in that quantity's units or those that `Units` in the sidecar
        beside it states; those that the stage
        does not read are ignored. Echoes are the fourth dimension, receive coils the fifth.
    out : folder that receives `<quantity>.nii.gz` for each image, and `<stage>.json` with
        whatever is no image and with how an iteration ended.
    b0, b0_dir, te : field strength [T], direction of B0 in array axes (from the first
        image's affine unless given), echo times [s].
    parameters : the stage's parameters, where they differ from the defaults.

    Returns
    -------
    The files written.

    Raises
    ------
    ConfigError : an unknown stage, quantity or parameter, or an input is missing.
    InputError : a file cannot be read, two do not share one grid, or the stage refused what it was given.
    """
    step = _step(stage, dict(parameters or {}))
    for name in inputs:
        _check_name(name)
    headers = {
        name: nifti.read_header(path, coils=quantity(name).streamed)
        for name, path in inputs.items()
        if name in step.inputs
    }
    if not headers:
        raise ConfigError(f"{stage} reads {', '.join(step.inputs)}: give at least one as --input NAME=FILE.nii.gz")
    first = next(iter(headers.values()))
    for header in headers.values():
        reason = same_grid(first.grid, header.grid)
        if reason is not None:
            raise InputError(f"{header.label}: {reason}; resample the images onto one grid first")
    given: dict[str, Any] = {
        name: _stream(name, header, len(te)) if quantity(name).streamed else _read(name, header.path, b0)
        for name, header in headers.items()
    }
    if "b0_dir" in step.inputs and b0_dir is None and (told := first.doubt or first.note):
        _LOG.warning("%s (or say where B0 points: --b0-dir)", told)
    given["voxel_size"] = first.voxel_size
    given["b0_dir"] = first.b0_dir if b0_dir is None else _unit_vector(b0_dir)
    given["affine"] = first.affine
    if b0 is not None:
        given["b0"] = _field_strength(b0)
    if te:
        given["te"] = np.asarray(te, dtype=np.float64)
    missing = [name for name in step.required if name not in given]
    if missing:
        raise ConfigError(f"{stage} lacks {', '.join(_how_to_give(name) for name in missing)}")
    outputs, said = _called(step, given, {name: header.path for name, header in headers.items()})
    return _write(stage, out, outputs, first.affine, said)


def _step(stage: str, parameters: dict[str, Any]) -> Step:
    """The stage with its parameters; messages speak of the command, not of a pipeline."""
    try:
        return read_step("apply", {stage: parameters})
    except ConfigError as error:
        raise ConfigError(str(error).removeprefix("pipeline apply: ")) from error


def _check_name(name: str) -> None:
    if name not in QUANTITIES:
        close = get_close_matches(name, QUANTITIES, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(QUANTITIES)}"
        raise ConfigError(f"--input {name}: no such quantity; {hint}")
    if QUANTITIES[name].dims[-3:] != SPACE:
        hint = f"give --{name.replace('_', '-')}" if name in ("te", "b0", "b0_dir") else "the images' affine gives it"
        raise ConfigError(f"--input {name}: it is no image; {hint}")


def _called(
    step: Step, given: Mapping[str, Any], files: Mapping[str, Path]
) -> tuple[dict[str, Any], Solved | Told | None]:
    """Run the stage; what it refuses is the fault of what it was given, so the message names the files."""
    try:
        return call(step, [given.get(name) for name in step.inputs], atlas.read)
    except StageError as error:
        if not isinstance(error.__cause__, ValueError):
            raise
        named = [f"{name} is {path}" for name, path in files.items() if re.search(rf"\b{name}\b", str(error))]
        files_named = f" ({', '.join(named)})" if named else ""
        raise InputError(f"{error}{files_named}") from error


def _read(name: str, path: Path, b0: float | None) -> Any:
    volume = nifti.read_volume(path)
    convert_stated(path, name, volume, b0)
    known = quantity(name)
    if "echo" in known.dims and volume.ndim == 3:
        volume = volume[np.newaxis]
    if volume.ndim != len(known.dims):
        raise InputError(f"{path}: {name} has dims {', '.join(known.dims)}, the file has shape {volume.shape}")
    if name == "phase":
        _check_turn(path, volume)
    return volume.astype(known.dtype, copy=False)


def _stream(name: str, header: nifti.Header, echoes: int) -> Callable[[int], Iterator[Any]]:
    """The coils of a file, one volume at a time."""
    if header.volumes != echoes:
        raise InputError(f"{header.label}: has {header.volumes} echoes and {echoes} echo times were given (--te)")

    def volumes(leading: int) -> Iterator[Any]:
        numbers = (coil * header.volumes + echo for coil in range(header.coils) for echo in range(leading))
        for volume in nifti.stream(header, numbers, np.empty(header.shape, np.float32)):
            if name == "coil_phase":
                _check_turn(header.path, volume)
            yield volume

    return volumes


def _check_turn(path: Path, phase: Any) -> None:
    low, high = float(phase.min()), float(phase.max())
    if max(-low, high) > 2 * np.pi * _SLACK or high - low > 2 * np.pi * _SLACK:
        raise InputError(
            f"{path}: wrapped phase in radians spans one turn, this spans {low:g} to {high:g}: scale it to radians "
            "first (`qsm-dask ingest` does so for BIDS datasets)"
        )


def _unit_vector(direction: Sequence[float]) -> Any:
    vector = np.asarray(direction, dtype=np.float64)
    length = float(np.linalg.norm(vector))
    if vector.shape != (3,) or not np.isfinite(length) or length == 0:
        raise ConfigError(f"--b0-dir needs three numbers that are not all zero, got {list(direction)}")
    return vector / length


def _field_strength(b0: float) -> float:
    if not 0.0 < b0 < _MOST_TESLA:
        raise ConfigError(f"--b0 {b0:g}: a field strength is given in tesla, such as 3")
    return float(b0)


def _how_to_give(name: str) -> str:
    options = {"b0": "b0 (--b0 TESLA)", "te": "te (--te SECONDS, once an echo)"}
    units = quantity(name).units
    return options.get(name, f"{name} (--input {name}=FILE.nii.gz{'' if units == '1' else f', in {units}'})")


def _write(stage: str, out: Path, outputs: Mapping[str, Any], affine: Any, said: Solved | Told | None) -> list[Path]:
    out.mkdir(parents=True, exist_ok=True)
    written = []
    rest: dict[str, Any] = {} if said is None else {"solved" if isinstance(said, Solved) else "told": asdict(said)}
    for name, array in outputs.items():
        if quantity(name).dims[-3:] == SPACE:
            written.append(out / f"{name}.nii.gz")
            nifti.write_volume(written[-1], array, affine)
        else:
            values = np.array(array, dtype=object)
            values[~np.isfinite(array)] = None  # JSON knows no NaN
            rest[name] = values.tolist()
    if rest:
        written.append(out / f"{stage}.json")
        written[-1].write_text(json.dumps(rest, indent=2) + "\n", encoding="utf-8")
    return written
