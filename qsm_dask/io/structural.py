"""The T1-weighted image of a subject: found beside the gradient echoes, read on its own grid."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsm_dask.errors import InputError
from qsm_dask.io.acquisition import Acquisition, FileRef, Map
from qsm_dask.io.filters import Filters
from qsm_dask.io.names import Name, canonical
from qsm_dask.io.nifti import read_header, read_into
from qsm_dask.io.tree import Found, walk
from qsm_dask.quantities import MOST_T1W_VOXELS

QUANTITY = "t1w"
_SUFFIX = "T1w"


def attach(acquisitions: Iterable[Acquisition], root: Path, filters: Filters | None = None) -> tuple[Acquisition, ...]:
    """Give each acquisition the T1-weighted image of its subject and session, if there is one.

    Of several the one that shares most entities with the scan is taken (`run-1` with `run-1`), then the first by name,
    which the scan's notes say. Images of single echoes or parts are passed over.

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
    sidecars = tuple(FileRef(e.relative, str(root / e.relative)) for e in chosen.metadata_files())
    taken = Map(QUANTITY, FileRef(chosen.entry.relative, str(root / chosen.entry.relative)), sidecars)
    return replace(acquisition, maps=(*acquisition.maps, taken), notes=notes)


def _shared(acquisition: Acquisition, name: Name) -> int:
    wanted = acquisition.key
    return sum(
        (label := wanted.get(entity)) is not None and canonical(entity, label) == canonical(entity, own)
        for entity, own in name.entities
    )


def read(item: Map) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read the image as it is: `t1w` float32 (x, y, z) and `t1w_affine` (4, 4), and where they come from.

    Raises
    ------
    InputError : it cannot be read, has several volumes or more voxels than memory is planned for, or nothing in it.
    """
    label = item.file.label
    remedy = f'mend it, or leave it out by a filter file with {{"{QUANTITY}": {{"acquisition": "none"}}}}'
    header = read_header(item.file.path, label)
    if header.volumes != 1 or header.voxels > MOST_T1W_VOXELS:
        size = "x".join(map(str, (*header.shape, header.volumes)))
        raise InputError(f"{label}: has {size} voxels; a T1w has one volume of at most {MOST_T1W_VOXELS}: {remedy}")
    values = np.empty(header.shape, dtype=np.float32)
    read_into(header, [values])
    if not (np.isfinite(values).all() and values.max() > values.min()):
        raise InputError(f"{label}: is NaN or infinite in places, or the same everywhere: {remedy}")
    arrays: dict[str, NDArray[Any]] = {QUANTITY: values, f"{QUANTITY}_affine": np.array(header.affine, np.float64)}
    return arrays, {"from": "raw", "files": [label]}
