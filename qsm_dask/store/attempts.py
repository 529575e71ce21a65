"""One attempt at a node: its arrays as objects, and whether they are what the commit says."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsm_dask.digests import DIGEST_SIZE, checksum
from qsm_dask.errors import DamageError, StoreError
from qsm_dask.quantities import COORDINATES, Quantity, quantity
from qsm_dask.store.coding import METADATA, ArrayCoder, array_metadata, group_metadata
from qsm_dask.store.commit import ArrayEntry, Commit
from qsm_dask.store.files import Files
from qsm_dask.store.layout import check_array_name

_SHORT = 4096

Entries = dict[str, ArrayEntry]


@dataclass(frozen=True)
class Damage:
    """What is wrong with one object of a commit."""

    commit: Commit
    place: str
    problem: str

    def __str__(self) -> str:
        return f"{self.commit.scan} {self.commit.node}: {self.place} {self.problem}"


def checked(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The arrays in C order, if each is what its name promises.

    Raises
    ------
    StoreError : an unknown name, or another dtype, number of axes or length of a fixed axis than its quantity's.
    """
    return {name: _checked(name, np.asarray(array, order="C")) for name, array in arrays.items()}


def _checked(name: str, array: NDArray[Any]) -> NDArray[Any]:
    check_array_name(name)
    try:
        meaning = quantity(name)
    except KeyError:
        raise StoreError(f"{name!r} is no quantity; see qsm_dask.quantities for the names there are") from None
    if array.dtype != np.dtype(meaning.dtype):
        raise StoreError(f"{name} has dtype {array.dtype}; it must be {meaning.dtype}: convert it before writing")
    lengths = dict(zip(meaning.dims, array.shape, strict=False))
    fixed = {dim: len(COORDINATES[dim]) for dim in meaning.dims if dim in COORDINATES}
    if array.ndim != len(meaning.dims) or any(lengths[dim] != length for dim, length in fixed.items()):
        needed = ", ".join(f"{dim}={fixed[dim]}" if dim in fixed else dim for dim in meaning.dims)
        raise StoreError(f"{name} has shape {array.shape}; its axes must be ({needed})")
    return array


def encoded(
    folder: str, about: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], entries: Entries
) -> Iterator[tuple[str, bytes]]:
    """Yield every object of an attempt, and fill `entries` on the way.

    Parameters
    ----------
    folder : key of the attempt.
    about : attributes of its group.
    arrays : checked arrays.
    entries : filled with one entry an array; complete when the iterator is exhausted.
    """
    yield f"{folder}/{METADATA}", group_metadata(about)
    for name, array in arrays.items():
        meaning = quantity(name)
        described = {"units": meaning.units, "long_name": meaning.meaning}
        metadata = array_metadata(array.shape, array.dtype, meaning.dims, described)
        entries[name] = _entry(array, meaning, metadata)
        yield f"{folder}/{name}/{METADATA}", metadata
        for file, data in ArrayCoder(metadata).encode(array):
            entries[name]["chunks"][f"{name}/{file}"] = len(data)
            yield f"{folder}/{name}/{file}", data


def raw_bytes(array: NDArray[Any]) -> memoryview:
    """The bytes of an array in C order, without a copy."""
    return array.reshape(-1).view(np.uint8).data


def _entry(array: NDArray[Any], meaning: Quantity, metadata: bytes) -> ArrayEntry:
    entry = ArrayEntry(
        shape=list(array.shape),
        dtype=array.dtype.name,
        dims=list(meaning.dims),
        units=meaning.units,
        digest=checksum(raw_bytes(array)),
        metadata={"size": len(metadata), "digest": checksum(metadata)},
        chunks={},
    )
    if array.ndim == 1 and array.dtype.kind == "i" and array.size <= _SHORT:
        entry["values"] = array.tolist()
    return entry


def absences(files: Files, commit: Commit, names: Iterable[str]) -> list[Damage]:
    """Objects of the named arrays that are gone or have another size; nothing is decoded."""
    sizes = files.sizes(commit.folder)
    damages = []
    for name in names:
        entry = commit.arrays[name]
        for file, size in {f"{name}/{METADATA}": entry["metadata"]["size"], **entry["chunks"]}.items():
            found = sizes.get(f"{commit.folder}/{file}")
            if found is None:
                damages.append(_damage(files, commit, file, "is missing"))
            elif found != size:
                damages.append(_damage(files, commit, file, f"has {found} bytes instead of {size}"))
    return damages


def _damage(files: Files, commit: Commit, file: str, problem: str) -> Damage:
    return Damage(commit, f"{files.url}/{commit.folder}/{file}", problem)


def damages_of(files: Files, commit: Commit) -> list[Damage]:
    """Everything that is wrong with the arrays of a commit: whatever is there is decoded and compared."""
    damages = absences(files, commit, commit.arrays)
    for name in commit.arrays:
        known = {damage.place for damage in damages}
        damages += [damage for damage in _alterations(files, commit, name) if damage.place not in known]
    return damages


def _alterations(files: Files, commit: Commit, name: str) -> list[Damage]:
    coder, damages = _opened(files, commit, name)
    if coder is None:
        return damages
    digest = blake2b(digest_size=DIGEST_SIZE)
    values = np.empty(coder.shape[-3:], coder.dtype)
    for file, _ in coder.chunks():
        damage = _decode(files, commit, f"{name}/{file}", coder, values)
        if damage is not None:
            damages.append(damage)
        digest.update(raw_bytes(values))
    if not damages and digest.hexdigest() != commit.arrays[name]["digest"]:
        damages.append(_damage(files, commit, name, "decodes to other values than were committed"))
    return damages


def _opened(files: Files, commit: Commit, name: str) -> tuple[ArrayCoder | None, list[Damage]]:
    file = f"{name}/{METADATA}"
    metadata = files.get(f"{commit.folder}/{file}")
    if metadata is None:
        return None, [_damage(files, commit, file, "is missing")]
    if checksum(metadata) != commit.arrays[name]["metadata"]["digest"]:
        return None, [_damage(files, commit, file, "has been altered: its checksum does not fit")]
    return ArrayCoder(metadata), []


def _decode(files: Files, commit: Commit, file: str, coder: ArrayCoder, out: NDArray[Any]) -> Damage | None:
    """Fill `out` from one chunk file, or say what is wrong with it."""
    data = files.get(f"{commit.folder}/{file}")
    if data is None:
        return _damage(files, commit, file, "is missing")
    try:
        coder.decode(data, out)
    except (ValueError, RuntimeError):  # a checksum that does not fit; Blosc's own complaint
        return _damage(files, commit, file, "has been altered: its checksum does not fit")
    return None


def read_array(files: Files, commit: Commit, name: str, rows: slice | None = None) -> NDArray[Any]:
    """One array of a commit, or a range of its first axis, whose objects are known to be there.

    Raises
    ------
    DamageError : an object is missing or altered.
    """
    coder, damages = _opened(files, commit, name)
    if coder is None:
        raise damage_error(files, damages)
    start, stop, _ = (rows or slice(None)).indices(coder.shape[0] if coder.shape else 1)
    values = np.empty((stop - start, *coder.shape[1:]) if coder.shape else (), coder.dtype)
    for file, index in coder.chunks(rows):
        volume = values[(index[0] - start, *index[1:])] if index else values
        damage = _decode(files, commit, f"{name}/{file}", coder, volume)
        if damage is not None:
            raise damage_error(files, [damage])
    return values


def damage_error(files: Files, damages: Sequence[Damage]) -> DamageError:
    """The exception for damages of one commit: what, where and what to do."""
    more = f" and {len(damages) - 1} more" if len(damages) > 1 else ""
    return DamageError(
        f"{damages[0]}{more}. `qsm-dask verify {files.url}` lists all damage, "
        "and with `--repair` computes the damaged nodes anew"
    )
