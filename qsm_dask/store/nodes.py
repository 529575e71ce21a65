"""A node of a scan: how its outputs are committed, and how they are read while others commit it anew.

A node is written into an attempt folder of its own, made durable, read back
and compared; only then is `COMMIT.json` put, which names that attempt. Readers follow
commits only, so a crash or a rival leaves garbage at worst, never a wrong result.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar
from uuid import uuid4

from numpy.typing import NDArray

from qsm_dask.digests import canonical
from qsm_dask.errors import DamageError, StoreError
from qsm_dask.scan import ScanKey
from qsm_dask.store import attempts
from qsm_dask.store.commit import Commit, outputs_digest, plain
from qsm_dask.store.files import Files
from qsm_dask.store.layout import NOTES, marker, node_folder

Found = TypeVar("Found")

_SMALL = 2**20


def commit_of(files: Files, scan: ScanKey, node: str, key: str) -> Commit | None:
    """The commit of a node, found by one GET, or None if the node is not done.

    Raises
    ------
    DamageError : there is one, but it cannot be read.
    """
    place = marker(scan, node, key)
    data = files.get(place)
    if data is None:
        return None
    try:
        return Commit.from_json(data, (str(scan), node, key))
    except (TypeError, ValueError, KeyError) as error:
        raise DamageError(
            f"{scan} {node}: {files.url}/{place} cannot be read: {error}. "
            f"`qsm-dask verify {files.url} --repair` computes the node anew"
        ) from error


def is_intact(files: Files, commit: Commit) -> bool:
    """Whether every object of a commit is there with the right size, and decodes if it is small, as tables are."""
    size = sum(sum(entry["chunks"].values()) for entry in commit.arrays.values())
    if size <= _SMALL:
        return not attempts.damages_of(files, commit)
    return not attempts.absences(files, commit, commit.arrays)


def write(
    files: Files,
    of: tuple[ScanKey, str, str],
    arrays: Mapping[str, NDArray[Any]],
    *,
    attributes: Mapping[str, Any],
    provenance: Mapping[str, Any],
    seconds: float,
    peak_bytes: int,
) -> Commit:
    """Write, verify and commit the outputs of a node, given by scan, name and key; see `CohortStore.write`."""
    scan, node, key = of
    started, where = time.perf_counter(), f"{scan} {node}"
    folder = f"{node_folder(scan, node, key)}/{(attempt := uuid4().hex)}"
    entries: attempts.Entries = {}
    try:
        outputs = attempts.checked(arrays)
        attributes, provenance = plain(attributes), plain(provenance)
    except (StoreError, TypeError) as error:
        raise StoreError(f"{where}: {error}") from error
    try:
        about = {"scan": str(scan), "node": node, "key": key}
        files.put_all(attempts.encoded(folder, about, outputs, entries))
        digest = outputs_digest(entries)
        commit = Commit(
            scan, node, key, attempt, digest, entries, attributes, provenance, float(seconds), int(peak_bytes)
        )
        _check_written(files, commit)
    except BaseException:
        with suppress(StoreError):
            files.remove(folder)
        raise
    commit = replace(commit, provenance={**provenance, "store_seconds": time.perf_counter() - started})
    _publish(files, commit)
    return commit


def _check_written(files: Files, commit: Commit) -> None:
    damages = attempts.damages_of(files, commit)
    if damages:
        raise StoreError(
            f"{damages[0]}, just after it was written: check the disk and the memory of this machine, "
            "then run the same command again"
        )


def _publish(files: Files, commit: Commit) -> None:
    files.put(marker(commit.scan, commit.node, commit.key), commit.to_json())


def remember(files: Files, commit: Commit, notes: Mapping[str, Any]) -> None:
    """Keep notes beside a commit, in place of earlier ones; see `CohortStore.remember`.

    Raises
    ------
    StoreError : a note is no JSON, or writing failed.
    """
    try:
        content = canonical(plain(notes))
    except TypeError as error:
        raise StoreError(f"{commit.scan} {commit.node}: {error}") from error
    files.put(f"{commit.folder}{NOTES}", content)


def recall(files: Files, commit: Commit) -> Mapping[str, Any]:
    """The notes of `remember`; empty if there are none, or none that can be read."""
    try:
        notes = json.loads(files.get(f"{commit.folder}{NOTES}") or b"{}")
    except ValueError:
        return {}
    return notes if isinstance(notes, dict) else {}


def read(files: Files, commit: Commit, names: Iterable[str] | None = None) -> dict[str, NDArray[Any]]:
    """Arrays of a commit, all or those named; see `CohortStore.read`.

    Raises
    ------
    StoreError : the commit has no such array, or another result has taken its place.
    DamageError : an object is missing, torn or altered.
    """
    wanted = tuple(commit.arrays if names is None else names)
    unknown = [name for name in wanted if name not in commit.arrays]
    if unknown:
        raise StoreError(
            f"{commit.scan} {commit.node}: no array {', '.join(unknown)}; it has {', '.join(commit.arrays)}"
        )
    return _following(files, commit, lambda found: _read(files, found, wanted))


def _read(files: Files, commit: Commit, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    # A missing chunk reads as zeros in Zarr, so the list is compared before anything is decoded.
    absent = attempts.absences(files, commit, names)
    if absent:
        raise attempts.damage_error(files, absent)
    return {name: attempts.read_array(files, commit, name) for name in names}


def read_rows(files: Files, commit: Commit, name: str, rows: slice) -> NDArray[Any]:
    """A range of the first axis of one array, such as one echo.

    Raises
    ------
    DamageError : an object is missing, torn or altered.
    """
    return _following(files, commit, lambda found: attempts.read_array(files, found, name, rows))


def _following(files: Files, commit: Commit, use: Callable[[Commit], Found]) -> Found:
    """Use a commit; if its attempt is lost because the node was committed again, use that one, once."""
    try:
        return use(commit)
    except DamageError:
        fresh = commit_of(files, commit.scan, commit.node, commit.key)
        if fresh is None or fresh.attempt == commit.attempt:
            raise
        if fresh.digest != commit.digest:
            raise StoreError(
                f"{commit.scan} {commit.node}: another result took its place while it was read; "
                "run the same command again"
            ) from None
        return use(fresh)
