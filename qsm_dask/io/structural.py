"""The T1-weighted image of a subject: found beside the gradient echoes, read on its own grid."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsm_dask.errors import InputError
from qsm_dask.io.acquisition import Acquisition, FileRef, Map
from qsm_dask.io.filters import Filters
from qsm_dask.io.names import Name, canonical
from qsm_dask.io.nifti import Header, read_header, read_into
from qsm_dask.io.remote import header_at_hand
from qsm_dask.io.tree import Found, walk
from qsm_dask.quantities import MOST_T1W_VOXELS

QUANTITY = "t1w"
QUANTITIES = (QUANTITY, f"{QUANTITY}_affine")
"""What is read of it; neither is among the images of a scan."""

_SUFFIX = "T1w"
_LEFT_OUT = "the T1w is left out: {}"


def attach(acquisitions: Iterable[Acquisition], root: Path, filters: Filters | None = None) -> tuple[Acquisition, ...]:
    """Give each acquisition the T1-weighted image of its subject and session, if there is one.

    Of several the one that shares most entities with the scan is taken (`run-1` with `run-1`), then the first by name,
    which the scan's notes say, as they do where its file is a link to what is not there. Images of single echoes or
    parts are passed over. Sidecars are not looked into: nothing of them is needed.

    Parameters
    ----------
    acquisitions : of the dataset.
    root : the dataset.
    filters : a filter file; its entry `t1w` chooses.
    """
    found = tuple(acquisitions)
    subjects = sorted({acquisition.key.subject for acquisition in found})
    images: dict[tuple[str | None, str | None], list[Found]] = {}
    for image, _ in walk(root, (_SUFFIX,), subjects, datatypes=("anat",)):
        if image is None:
            continue
        name = image.entry.name
        single = name.get("echo") or name.get("part")
        if not single and (filters or Filters()).keep(QUANTITY, name, image.entry.datatype):
            images.setdefault((name.get("sub"), name.get("ses")), []).append(image)
    return tuple(
        _given(one, root, images.get((one.key.get("sub"), one.key.get("ses")), [])) if one.problem is None else one
        for one in found
    )


def _given(acquisition: Acquisition, root: Path, images: Sequence[Found]) -> Acquisition:
    if not images:
        return acquisition
    ranked = sorted(images, key=lambda image: (-_shared(acquisition, image.entry.name), image.entry.relative))
    chosen = ranked[0]
    notes = acquisition.notes
    if len(ranked) > 1 and _shared(acquisition, ranked[1].entry.name) == _shared(acquisition, chosen.entry.name):
        notes = (*notes, f"several T1w of one session: the first is taken; choose by {QUANTITY} in a filter file")
    file = FileRef(chosen.entry.relative, str(root / chosen.entry.relative))
    if not Path(file.path).exists():
        return replace(acquisition, notes=(*notes, _LEFT_OUT.format("a link whose target is absent: fetch the data")))
    taken = Map(QUANTITY, file, ())
    return replace(acquisition, maps=(*acquisition.maps, taken), notes=notes)


def _shared(acquisition: Acquisition, name: Name) -> int:
    wanted = acquisition.key
    return sum(
        (label := wanted.get(entity)) is not None and canonical(entity, label) == canonical(entity, own)
        for entity, own in name.entities
    )


@dataclass(frozen=True, eq=False)
class Structural:
    """What was read of the image.

    Attributes
    ----------
    arrays : `t1w` float32 (x, y, z) and `t1w_affine` (4, 4); empty where it cannot be used.
    sources : where each of them comes from.
    warnings : why it cannot be used.
    """

    arrays: Mapping[str, NDArray[Any]]
    sources: Mapping[str, Mapping[str, Any]]
    warnings: tuple[str, ...] = ()


def read(item: Map) -> Structural:
    """Read the image as it is, or tell why it is left out: nobody asked for it, so that no scan fails for it.

    It is left out where it cannot be read, does not tell how it lay in the scanner (a mirrored head could be aligned
    unnoticed), has several volumes or more voxels than memory is planned for, or nothing in it.
    """
    label = item.file.label
    try:
        header = _checked_header(item.file.path, label)
        values = _values(header)
    except InputError as error:
        remedy = f'mend it, or say by a filter file that there is none: {{"{QUANTITY}": {{"acquisition": "none"}}}}'
        return Structural({}, {}, (_LEFT_OUT.format(f"{error}; {remedy}"),))
    arrays: dict[str, NDArray[Any]] = dict(zip(QUANTITIES, (values, header.affine), strict=True))
    return Structural(arrays, {name: {"from": "raw", "files": [label]} for name in QUANTITIES})


def planned_bytes(item: Map) -> int:
    """Bytes that the image takes in memory, by its header; none where that tells that it will be left out."""
    try:
        with header_at_hand(item.file) as path:
            header = _checked_header(path, item.file.label)
    except InputError:
        return 0
    return header.voxels * np.dtype(np.float32).itemsize


def _checked_header(path: str | Path, label: str) -> Header:
    """The header of an image that can be used, as far as headers tell; else an `InputError`."""
    header = read_header(path, label)
    if header.volumes != 1 or header.voxels > MOST_T1W_VOXELS:
        size = "x".join(map(str, (*header.shape, header.volumes)))
        raise InputError(f"{label}: has {size} voxels; a T1w has one volume of at most {MOST_T1W_VOXELS}")
    if header.doubt:
        raise InputError(f"{label}: does not say how the head lay in the scanner: {header.doubt}")
    return header


def _values(header: Header) -> NDArray[np.float32]:
    values = np.empty(header.shape, dtype=np.float32)
    read_into(header, [values])
    if values.max() <= values.min():
        raise InputError(f"{header.label}: is the same everywhere")
    return values
