"""Reading an acquisition: from its files to arrays in the project's units, axes and sign."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsm_dask.errors import InputError
from qsm_dask.io.acquisition import Acquisition
from qsm_dask.io.echoes import Series, Source, choose_parts, open_series
from qsm_dask.io.maps import read_map
from qsm_dask.io.nifti import read_header, read_into
from qsm_dask.io.phase import PhaseSign, find_scale, to_radians
from qsm_dask.io.sidecars import field_strength, text
from qsm_dask.quantities import HEADER
from qsm_dask.scan import Geometry

_MAPS_WITHOUT_PHASE = ("chi", "local_field")


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
    """

    arrays: Mapping[str, NDArray[Any]]
    header: Mapping[str, Any]
    geometry: Geometry
    sources: Mapping[str, Mapping[str, Any]]
    labels: Mapping[int, str]
    warnings: tuple[str, ...]


def read(acquisition: Acquisition, metadata: Mapping[str, Mapping[str, Any]], sign: PhaseSign) -> Reading:
    """Read an acquisition and the maps that belong to it.

    Beside the arrays it returns it holds one volume as stored and, while units are
    converted, a mask of it.

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
    series = open_series(acquisition, metadata, phase_needed=needs_phase(acquisition))
    b0, b0_source = field_strength(series.metadata)
    header: dict[str, Any] = {
        "te": list(series.te),
        "b0": b0,
        "b0_dir": [float(v) for v in series.first.b0_dir],
        "voxel_size": [float(v) for v in series.first.voxel_size],
        "affine": [[float(v) for v in row] for row in series.first.affine],
    }
    sources = _header_sources(series, b0_source)
    warnings = [*acquisition.notes, *series.warnings]
    arrays = _read_images(acquisition, series, sign, sources, warnings)
    labels: dict[int, str] = {}
    for item in acquisition.maps:
        found = read_map(item, metadata[item.file.label], series.first, b0)
        arrays[item.quantity] = found.array
        sources[item.quantity] = found.source
        labels.update(found.labels)
        warnings += found.warnings
    x, y, z = (float(v) for v in series.first.voxel_size)
    geometry = Geometry(series.first.shape, (x, y, z), series.te)
    return Reading(arrays, header, geometry, sources, labels, tuple(warnings))


def projected_bytes(acquisition: Acquisition) -> tuple[int, int]:
    """Memory of the arrays that an acquisition delivers, and of one volume of it, from one header.

    `read` takes little more than the arrays and one volume. An acquisition whose header
    cannot be read projects nothing, for it fails before it takes any.
    """
    try:
        parts = choose_parts(acquisition, phase_needed=needs_phase(acquisition))
        of_part = [image for image in acquisition.images if image.part == parts[0]]
        header = read_header(of_part[0].file.path, of_part[0].file.label)
    except InputError:
        return 0, 0
    volumes = len(parts) * max(header.volumes, len(of_part)) + len(acquisition.maps)
    return 4 * header.voxels * volumes, header.voxels * max(4, header.dtype.itemsize)


def needs_phase(acquisition: Acquisition) -> bool:
    """Whether the scan is of no use without phase: no map stands in for it."""
    return not any(item.quantity in _MAPS_WITHOUT_PHASE for item in acquisition.maps)


def _header_sources(series: Series, b0_source: str) -> dict[str, Mapping[str, Any]]:
    files = list(series.metadata)
    of_affine = {"from": "raw", "files": [series.first.label], "key": "affine"}
    of_sidecars = {"te": "EchoTime", "b0": b0_source}
    return {
        name: {"from": "raw", "files": files, "key": of_sidecars[name]} if name in of_sidecars else dict(of_affine)
        for name in HEADER
    }


def _read_images(
    acquisition: Acquisition,
    series: Series,
    sign: PhaseSign,
    sources: dict[str, Mapping[str, Any]],
    warnings: list[str],
) -> dict[str, NDArray[Any]]:
    parts = list(series.parts)
    stacks = {part: _read_part(series, part) for part in parts}
    used = {part: [source.image.file.label for source in series.parts[part]] for part in parts}
    value, reason, warning = sign.of(acquisition.key, text(series.metadata, "Manufacturer"))
    signed = {"sign": value, "sign_reason": reason}
    if parts == ["real", "imag"]:
        real, imag = stacks["real"], stacks["imag"]
        _check_signed(series.parts["real"], real)
        _check_signed(series.parts["imag"], imag)
        _to_polar(real, imag, value)
        both = [*used["real"], *used["imag"]]
        sources["magnitude"] = {"from": "raw", "files": both}
        sources["phase"] = {"from": "raw", "files": both, "units": "from real and imaginary", **signed}
        warnings += [warning] if warning else []
        return {"magnitude": real, "phase": imag}
    sources["magnitude"] = {"from": "raw", "files": used["mag"]}
    if parts == ["mag"]:
        return {"magnitude": stacks["mag"]}
    phase = stacks["phase"]
    _check_not_blank(series.parts["mag"], stacks["mag"])
    _check_not_blank(series.parts["phase"], phase)
    low, high = float(phase.min()), float(phase.max())
    phases = [source.header for source in series.parts["phase"]]
    units = {source.image.file.label: source.metadata.get("Units") for source in series.parts["phase"]}
    scale = find_scale(units, low, high, [(h.slope, h.inter, h.dtype.kind in "iu") for h in phases])
    to_radians(phase, scale, value)
    sources["phase"] = {"from": "raw", "files": used["phase"], "units": scale.reason, "range": [low, high], **signed}
    warnings += [message for message in (scale.warning, warning) if message]
    return {"magnitude": stacks["mag"], "phase": phase}


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


def _check_signed(sources: tuple[Source, ...], stack: NDArray[np.float32]) -> None:
    if stack.min() >= 0:
        raise InputError(
            f"{sources[0].header.label}: part-{sources[0].image.part} has no negative values; it was stored with an "
            "offset: set scl_slope and scl_inter, or convert it again"
        )


def _to_polar(real: NDArray[np.float32], imag: NDArray[np.float32], sign: int) -> None:
    """Turn real into magnitude and imaginary into phase [rad], in place, slab by slab."""
    for r, i in zip(real.reshape(-1, *real.shape[2:]), imag.reshape(-1, *imag.shape[2:]), strict=True):
        magnitude = np.hypot(r, i)
        np.arctan2(i if sign > 0 else -i, r, out=i)
        r[...] = magnitude
