"""Reading an acquisition: from its files to arrays in the project's units, axes and sign."""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsm_dask.errors import InputError
from qsm_dask.io import structural
from qsm_dask.io.acquisition import Acquisition
from qsm_dask.io.coils import Coils, check_coils, check_signed, open_coils, scale_of
from qsm_dask.io.echoes import Series, Source, choose_parts
from qsm_dask.io.maps import read_map
from qsm_dask.io.nifti import Header, read_header, read_into
from qsm_dask.io.phase import PhaseSign, Scale, to_polar, to_radians
from qsm_dask.io.remote import header_at_hand
from qsm_dask.io.sidecars import field_strength, text
from qsm_dask.quantities import HEADER
from qsm_dask.scan import Geometry

_MAPS_WITHOUT_PHASE = ("chi", "local_field")
_READERS, _AHEAD = 8, 32
"""Headers that are read at once, and those that are read before they are asked for."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What one acquisition delivers.

    Attributes
    ----------
    arrays : `phase` [rad, wrapped] and `magnitude`, (echo, x, y, z) float32; and the maps,
        masks and label images that were found for it.
    header : te [s], b0 [T], b0_dir, voxel_size [mm] and affine [mm], as plain values.
    geometry : shape, spacing and echo times.
    sources : where each quantity comes from.
    labels : names of the label image's numbers.
    warnings : what the user should know.
    coils : the receive coils, if they are not combined: `phase` and `magnitude` are then no arrays yet.
    """

    arrays: Mapping[str, NDArray[Any]]
    header: Mapping[str, Any]
    geometry: Geometry
    sources: Mapping[str, Mapping[str, Any]]
    labels: Mapping[int, str]
    warnings: tuple[str, ...]
    coils: Coils | None = None


@dataclass(frozen=True, eq=False)
class Outline:
    """What one header and the names of its files tell of an acquisition.

    Attributes
    ----------
    header : of one image.
    echoes, parts, coils, maps : how many there are.
    """

    header: Header
    echoes: int
    parts: int
    coils: int
    maps: int


def read(acquisition: Acquisition, metadata: Mapping[str, Mapping[str, Any]], sign: PhaseSign) -> Reading:
    """Read an acquisition and the maps that belong to it.

    Beside the arrays it returns it holds one volume as stored and, while units are
    converted, a mask of it. Images of single coils it reads once, and holds none.

    Parameters
    ----------
    acquisition : the scan.
    metadata : resolved sidecar values by the label of the file.
    sign : which sign the phase gets.

    Raises
    ------
    NoPhase : a magnitude-only acquisition, without a map of chi or of the local field.
    InputError : anything that makes the data unusable, with file and remedy.
    """
    opened = open_coils(acquisition, metadata, phase_needed=needs_phase(acquisition))
    series, of_files = opened[0], {label: values for one in opened for label, values in one.metadata.items()}
    b0, b0_source = field_strength(of_files)
    header: dict[str, Any] = {
        "te": list(series.te),
        "b0": b0,
        "b0_dir": [float(v) for v in series.first.b0_dir],
        "voxel_size": [float(v) for v in series.first.voxel_size],
        "affine": [[float(v) for v in row] for row in series.first.affine],
    }
    sources = _header_sources(series, list(of_files), b0_source)
    warnings = [*acquisition.notes, *series.warnings]
    value, reason, warning = sign.of(acquisition.key, text(of_files, "Manufacturer"))
    signed = {"sign": value, "sign_reason": reason}
    coils, arrays = None, dict[str, NDArray[Any]]()
    if len(opened) * series.first.coils > 1:
        coils = check_coils(opened, value)
        phase_range = coils.low, coils.high
        scale = coils.scale
    else:
        arrays, scale, phase_range = _read_images(series, value)
    sources |= _image_sources(opened, scale, phase_range, signed)
    if "phase" in sources:
        warnings += [message for message in (scale.warning if scale else None, warning) if message]
    labels: dict[int, str] = {}
    for item in acquisition.maps:
        if item.quantity == structural.QUANTITY:
            own, sources[item.quantity] = structural.read(item)
            arrays |= own
            continue
        found = read_map(item, metadata[item.file.label], series.first, b0)
        arrays[item.quantity] = found.array
        sources[item.quantity] = found.source
        labels.update(found.labels)
        warnings += found.warnings
    x, y, z = (float(v) for v in series.first.voxel_size)
    geometry = Geometry(series.first.shape, (x, y, z), series.te)
    return Reading(arrays, header, geometry, sources, labels, tuple(warnings), coils)


def outline(acquisition: Acquisition) -> Outline:
    """What can be told of an acquisition from one header.

    Raises
    ------
    InputError : the header cannot be read.
    """
    parts = choose_parts(acquisition, phase_needed=needs_phase(acquisition))
    of_part = [image for image in acquisition.images if image.part == parts[0]]
    with header_at_hand(of_part[0].file) as path:
        header = read_header(path, of_part[0].file.label, coils=True)
    files = len(acquisition.coils)
    echoes = max(header.volumes, len(of_part) // files)
    return Outline(header, echoes, len(parts), files * header.coils, len(acquisition.maps))


def outlines(acquisitions: Iterable[Acquisition]) -> Iterator[tuple[Acquisition, Outline | InputError]]:
    """What can be told of each acquisition, in order, or why nothing can.

    A header is small, but in an object store each takes its time: those of a few are read ahead at once.
    """
    readers = ThreadPoolExecutor(_READERS, "headers")
    try:
        left = iter(acquisitions)
        waiting = deque((one, readers.submit(outline, one)) for one in islice(left, _AHEAD))
        while waiting:
            acquisition, told = waiting.popleft()
            waiting.extend((one, readers.submit(outline, one)) for one in islice(left, 1))
            try:
                found: Outline | InputError = told.result()
            except InputError as error:
                found = error
            yield acquisition, found
    finally:
        readers.shutdown(wait=False, cancel_futures=True)


def needs_phase(acquisition: Acquisition) -> bool:
    """Whether the scan is of no use without phase: no map stands in for it."""
    return not any(item.quantity in _MAPS_WITHOUT_PHASE for item in acquisition.maps)


def _header_sources(series: Series, files: list[str], b0_source: str) -> dict[str, Mapping[str, Any]]:
    of_affine = {"from": "raw", "files": [series.first.label], "key": "affine"}
    of_sidecars = {"te": "EchoTime", "b0": b0_source}
    return {
        name: {"from": "raw", "files": files, "key": of_sidecars[name]} if name in of_sidecars else dict(of_affine)
        for name in HEADER
    }


def _image_sources(
    opened: tuple[Series, ...], scale: Scale | None, phase_range: tuple[float, float], signed: Mapping[str, Any]
) -> dict[str, Mapping[str, Any]]:
    """Where magnitude and phase come from, and how the phase was read."""
    parts = list(opened[0].parts)
    used = {part: [label for series in opened for label in series.files[part]] for part in parts}
    count = len(opened) * opened[0].first.coils
    coils = {"coils": count} if count > 1 else {}
    if parts == ["real", "imag"]:
        both = {"from": "raw", "files": [*used["real"], *used["imag"]], **coils}
        return {"magnitude": both, "phase": {**both, "units": "from real and imaginary", **signed}}
    found: dict[str, Mapping[str, Any]] = {"magnitude": {"from": "raw", "files": used["mag"], **coils}}
    if scale is not None:
        units = {"units": scale.reason, "range": list(phase_range)}
        found["phase"] = {"from": "raw", "files": used["phase"], **units, **signed, **coils}
    return found


def _read_images(series: Series, sign: int) -> tuple[dict[str, NDArray[Any]], Scale | None, tuple[float, float]]:
    """Magnitude and phase, what the phase was stored in, and its range as stored."""
    parts = list(series.parts)
    stacks = {part: _read_part(series, part) for part in parts}
    if parts == ["real", "imag"]:
        real, imag = stacks["real"], stacks["imag"]
        check_signed(series.parts["real"][0], float(real.min()))
        check_signed(series.parts["imag"][0], float(imag.min()))
        to_polar(real, imag, sign)
        return {"magnitude": real, "phase": imag}, None, (-math.pi, math.pi)
    if parts == ["mag"]:
        return {"magnitude": stacks["mag"]}, None, (0.0, 0.0)
    phase = stacks["phase"]
    _check_not_blank(series.parts["mag"], stacks["mag"])
    _check_not_blank(series.parts["phase"], phase)
    phase_range = float(phase.min()), float(phase.max())
    scale = scale_of(series.parts["phase"], *phase_range)
    to_radians(phase, scale, sign)
    return {"magnitude": stacks["mag"], "phase": phase}, scale, phase_range


def _read_part(series: Series, part: str) -> NDArray[np.float32]:
    stack = np.empty((len(series.te), *series.first.shape), dtype=np.float32)
    for source in series.parts[part]:
        read_into(source.header, [stack[position] for position in source.positions])
    return stack


def _check_not_blank(sources: tuple[Source, ...], stack: NDArray[np.float32]) -> None:
    for source in sources:
        for position in source.positions:
            if stack[position].min() == stack[position].max():
                value = stack[position].flat[0]
                raise InputError(f"{source.header.label}: is {value:g} everywhere; was the scan cut short?")
