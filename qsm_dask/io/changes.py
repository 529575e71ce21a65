"""Whether files changed since they were read: by size and time first, by content where those differ."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from qsm_dask.errors import InputError
from qsm_dask.io.acquisition import FileRef, Stat

Fingerprint = dict[str, Any]


def stats(files: Iterable[FileRef]) -> dict[str, Fingerprint]:
    """Size and modification time of each file, by label.

    Raises
    ------
    InputError : a file is gone.
    """
    found = {}
    for file in files:
        if file.stat is not None:
            found[file.label] = file.stat._asdict()
            continue
        try:
            stat = Path(file.path).stat()
        except OSError as error:
            link = " (a link whose target is absent: fetch the data)" if Path(file.path).is_symlink() else ""
            raise InputError(f"{file.label}: cannot be read: {error.strerror or error}{link}") from error
        found[file.label] = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    return found


def unchanged(now: Mapping[str, Fingerprint], known: Mapping[str, Fingerprint]) -> bool:
    """Whether the files are the same and none has another size or time than when it was read."""
    return now.keys() == known.keys() and all(_same_stat(stat, known[label]) for label, stat in now.items())


def with_content(
    files: Iterable[FileRef], now: Mapping[str, Fingerprint], known: Mapping[str, Fingerprint]
) -> dict[str, Fingerprint]:
    """Add each file's SHA-256, reading only those whose size or time is not the known one.

    Raises
    ------
    InputError : a file cannot be read.
    """
    found = {}
    for file in files:
        stat, before = now[file.label], known.get(file.label, {})
        content = before["sha256"] if before and _same_stat(stat, before) else _sha256(file)
        found[file.label] = {**stat, "sha256": content}
    return found


def same_content(files: Iterable[str], now: Mapping[str, Fingerprint], known: Mapping[str, Fingerprint]) -> bool:
    """Whether the files of these labels hold what they held."""
    return all(label in known and now[label]["sha256"] == known[label]["sha256"] for label in files)


def _same_stat(one: Fingerprint, other: Fingerprint) -> bool:
    return all(one.get(name) == other.get(name) for name in Stat._fields)


def _sha256(file: FileRef) -> str:
    try:
        with Path(file.path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{file.label}: cannot be read: {error.strerror or error}") from error
