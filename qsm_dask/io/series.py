"""Reading an acquisition: from its files to arrays in the project's units, axes and sign."""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsm_dask.errors import InputError
from qsm_dask.io import structural
from qsm_dask.io.acquisition import Acquisition, FileRef, Map
from qsm_dask.io.coils import Coils, check_coils, check_signed, open_coils, scale_of
from qsm_dask.io.echoes import Series, Source, choose_parts
from qsm_dask.io.grid import Grid
from qsm_dask.io.maps import read_map
from qsm_dask.io.nifti import Header, read_header, read_into
from qsm_dask.io.phase import PhaseSign, Scale, to_polar, to_radians
from qsm_dask.io.remote import header_at_hand
from qsm_dask.io.segmentations import numbered_apart
from qsm_dask.io.sidecars import field_strength, text
from qsm_dask.quantities import HEADER
from qsm_dask.scan import Geometry

_MAPS_WITHOUT_PHASE = ("chi", "local_field")
_PLACED = ("dseg", "probseg", "mask")
_LABEL_BYTES, _PROBABILITY_BYTES = 13, 5
"""Of a voxel: 64-bit numbers and labels, and what tells which there are; a probability, and whether it is one."""
_FIELD_TIMES = 4
"""What a file of displacements grows to: unpacked, turned to the order of arrays, and as the library holds it."""
_CONFORMED = 256**3
"""Voxels of the grid that FreeSurfer brings heads to."""
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
    labels : names of the numbers of regions.
    image_warnings : what the user should know of its images.
    warnings : that, and what he should know of its maps.
    coils : the receive coils, if they are not combined: `phase` and `magnitude` are then no arrays yet.
    """

    arrays: Mapping[str, NDArray[Any]]
    header: Mapping[str, Any]
    geometry: Geometry
    sources: Mapping[str, Mapping[str, Any]]
    labels: Mapping[int, str] = field(default_factory=dict)
    image_warnings: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    coils: Coils | None = None


@dataclass(frozen=True, eq=False)
class Outline:
    """What one header and the names of its files tell of an acquisition.

    Attributes
    ----------
    header : of one image.
    echoes, parts, coils, maps : how many there are; of maps volumes on the scan's grid.
    beside : bytes that reading the largest file of maps takes.
    t1w : bytes of the T1-weighted image on its own grid; 0 if there is none that can be used.
    """

    header: Header
    echoes: int
    parts: int
    coils: int
    maps: int
    beside: int = 0
    t1w: int = 0


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
    warnings = list(series.warnings)
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
    x, y, z = (float(v) for v in series.first.voxel_size)
    geometry = Geometry(series.first.shape, (x, y, z), series.te)
    images = Reading(arrays, header, geometry, sources, image_warnings=tuple(warnings), coils=coils)
    return with_maps(images, acquisition, metadata)


def with_maps(images: Reading, acquisition: Acquisition, metadata: Mapping[str, Mapping[str, Any]]) -> Reading:
    """Add the maps of an acquisition to what its images delivered, now or when they were ingested.

    Parameters
    ----------
    images : arrays, header and sources of the images.
    acquisition : the scan.
    metadata : resolved sidecar values by the label of the file.

    Raises
    ------
    InputError : see `read_map`.
    """
    affine = np.asarray(images.header["affine"], dtype=np.float64)
    about = images.sources["affine"]
    grid = Grid(str(about["files"][0]), images.geometry.shape, affine, str(about.get("doubt", "")))
    magnitude = images.arrays["magnitude"][0] if "magnitude" in images.arrays else None
    arrays, sources = dict(images.arrays), dict(images.sources)
    labels, warnings = dict[int, str](), [*acquisition.notes, *images.image_warnings]
    for item in sorted(acquisition.maps, key=lambda one: one.quantity == "probseg"):
        if item.quantity == structural.QUANTITY:
            own = structural.read(item)
            arrays |= own.arrays
            sources |= own.sources
            warnings += own.warnings
            continue
        found = read_map(item, metadata[item.file.label], grid, float(images.header["b0"]), magnitude)
        arrays |= found.arrays
        sources |= dict.fromkeys(found.arrays, found.source)
        names = found.labels
        if item.quantity == "probseg":
            numbers = numbered_apart(names, labels)
            arrays["probseg_labels"] = np.array([numbers[number] for number in names], dtype=np.int64)
            names = {numbers[number]: name for number, name in names.items()}
        labels.update(names)
        warnings += found.warnings
    volumes = len(arrays["probseg"]) if "probseg" in arrays else 0
    return replace(
        images,
        arrays=arrays,
        geometry=replace(images.geometry, probabilities=volumes),
        sources=sources,
        labels=labels,
        warnings=tuple(warnings),
    )


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
    own = [item for item in acquisition.maps if item.quantity == structural.QUANTITY]
    shapes = [_map_outline(item, header) for item in acquisition.maps if item not in own]
    volumes, beside = sum(shape[0] for shape in shapes), max((shape[1] for shape in shapes), default=0)
    t1w = sum(structural.planned_bytes(item) for item in own)
    return Outline(header, echoes, len(parts), files * header.coils, volumes, beside, t1w)


def _map_outline(item: Map, scan: Header) -> tuple[int, int]:
    """Volumes of a map on the scan's grid, and bytes that reading one of its files takes.

    One at a URL is not opened for it, unless it may have any number of volumes.
    """
    if item.quantity not in _PLACED:
        return 1, 0
    volumes, taken = _image_outline(item, scan)
    return volumes, taken + _field_bytes(item.transform)


def _field_bytes(transform: FileRef | None) -> int:
    """Bytes that displacements take, by the size of their file; matrices take none."""
    if transform is None or not transform.path.endswith((".nii", ".nii.gz", ".h5")):
        return 0
    try:
        size = Path(transform.path).stat().st_size if transform.stat is None else transform.stat.size
    except OSError:
        return 0
    return _FIELD_TIMES * size


def _image_outline(item: Map, scan: Header) -> tuple[int, int]:
    if "://" in item.file.path and item.quantity != "probseg":
        return 1, _LABEL_BYTES * max(scan.voxels, _CONFORMED)
    try:
        with header_at_hand(item.file) as path:
            header = read_header(path, item.file.label)
    except InputError:
        return 1, 0
    if item.quantity == "probseg":
        return max(header.volumes, 1 + len(item.others)), _PROBABILITY_BYTES * header.voxels * header.volumes
    return 1, _LABEL_BYTES * header.voxels


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
            except Exception as error:  # noqa: BLE001 -- of one scan, whatever it is: the others go on
                found = InputError(f"{acquisition}: its headers cannot be read: {type(error).__name__}: {error}")
            yield acquisition, found
    finally:
        readers.shutdown(wait=False, cancel_futures=True)


def needs_phase(acquisition: Acquisition) -> bool:
    """Whether the scan is of no use without phase: no map stands in for it."""
    return not any(item.quantity in _MAPS_WITHOUT_PHASE for item in acquisition.maps)


def _header_sources(series: Series, files: list[str], b0_source: str) -> dict[str, Mapping[str, Any]]:
    of_affine: dict[str, Any] = {"from": "raw", "files": [series.first.label], "key": "affine"}
    if series.first.doubt:
        of_affine["doubt"] = series.first.doubt
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
