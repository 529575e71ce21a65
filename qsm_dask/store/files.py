"""The seam between the store and where its bytes lie: GET and PUT by key.

Everything above asks for nothing that an object store lacks: no renaming of folders,
no locks, no appending. A backend for one needs these eight members and passes the
contract suite in `tests/store/test_files.py`.
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Protocol, TypeVar
from uuid import uuid4

from qsm_dask.errors import StoreError
from qsm_dask.place import Place
from qsm_dask.store.layout import inside


class Files(Protocol):
    """Bytes by key, below one root.

    Every method raises `StoreError`, naming the place, when the backend fails.
    """

    @property
    def url(self) -> str:
        """The root, as the user gave it."""

    def get(self, key: str) -> bytes | None:
        """The whole object, or None if there is none."""

    def put(self, key: str, data: bytes) -> None:
        """Write or replace one object: readers see the old or the new one whole, and on return it is durable."""

    def put_all(self, objects: Iterable[tuple[str, bytes]]) -> None:
        """Write objects that nobody reads yet; on return all are durable."""

    def sizes(self, prefix: str) -> dict[str, int]:
        """Every object below `prefix` with its size in bytes; empty if there is none."""

    def ages(self, prefix: str) -> dict[str, float]:
        """Every object below `prefix` with the seconds since it was written, by the clock of the backend."""

    def names(self, prefix: str) -> list[str]:
        """The next parts of the keys below `prefix` (all keys if it is empty), sorted; empty if there is none."""

    def remove(self, prefix: str) -> None:
        """Remove the object or everything below the prefix, if it exists."""


Item = TypeVar("Item")

_WRITERS = 4
_HASTE_S = 5.0
_BATCH_BYTES = 32 * 2**20

_ADVICE = {
    errno.ENOSPC: "no space left on the device; free some and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space or files and run the same command again",
    errno.EFBIG: "the file would be larger than the limit of this process or file system (see `ulimit -f`)",
    errno.EACCES: "permission denied; give this user the right to read and write there",
    errno.EPERM: "permission denied; give this user the right to read and write there",
    errno.EROFS: "the file system is mounted read-only",
    errno.ENAMETOOLONG: "the name is too long for this file system",
}


@contextmanager
def _explained(action: str, path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = _ADVICE.get(error.errno or 0, error.strerror or str(error))
        raise StoreError(f"cannot {action} {path}: {reason}") from error


class LocalFiles:
    """A folder."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._durable = {self._root}  # folders whose entry in their parent this process has synced

    @property
    def url(self) -> str:
        """The folder."""
        return self._root

    def _path(self, key: str) -> str:
        return f"{self._root}/{inside(key)}"

    @cached_property
    def _writers(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(_WRITERS, "store-writer")

    def get(self, key: str) -> bytes | None:
        """The content of a file, or None."""
        path = self._path(key)
        with _explained("read", path):
            try:
                with open(path, "rb") as file:
                    return file.read()
            except (FileNotFoundError, NotADirectoryError):
                return None

    def put(self, key: str, data: bytes) -> None:
        """Replace a file in one step, and leave no half of it behind."""
        path = self._path(key)
        folder, name = os.path.split(path)
        draft = f"{folder}/.{name}.{uuid4().hex}"
        with _explained("write", path):
            self._make(folder)
            try:
                _write(draft, data)
                os.replace(draft, path)
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(draft)
                raise
        self._sync([folder])

    def put_all(self, objects: Iterable[tuple[str, bytes]]) -> None:
        """Write files that nobody reads yet, then make their folders durable."""
        folders: dict[str, None] = {}
        for batch in batches(objects):
            files = [(self._path(key), data) for key, data in batch]
            for folder in dict.fromkeys(os.path.dirname(path) for path, _ in files):
                if folder not in folders:
                    with _explained("write", folder):
                        self._make(folder)
                    folders[folder] = None
            self._each(_write_explained, files)
        self._sync(folders)

    def _make(self, folder: str) -> None:
        """Make a folder and those above it, and forget that one of this name was durable."""
        try:
            os.mkdir(folder)
        except FileExistsError:
            return
        except FileNotFoundError:
            if folder == self._root:
                os.makedirs(folder, exist_ok=True)
                return
            self._make(os.path.dirname(folder))
            self._make(folder)
            return
        self._durable.discard(folder)

    def _sync(self, folders: Iterable[str]) -> None:
        """Make what lies in folders durable, and the folders themselves, which a rival may just have made."""
        stale = dict.fromkeys(folders)
        entered: set[str] = set()
        for folder in tuple(stale):
            above = folder
            while above not in self._durable and above not in entered:
                entered.add(above)
                above = os.path.dirname(above)
                stale[above] = None
        self._each(_sync_folder, stale)
        self._durable |= entered

    def _each(self, act: Callable[[Item], None], items: Iterable[Item]) -> None:
        """Act on items in a few threads.

        Syncs that wait together share one commit of the file system's journal: ten times
        faster on a busy disk.
        """
        found = list(items)
        shares = [found[n::_WRITERS] for n in range(min(_WRITERS, len(found)))]
        begun = [self._writers.submit(_act_on, act, share) for share in shares]
        wait(begun)  # whoever cleans up after a failure must find nobody writing
        for share in begun:
            share.result()

    def sizes(self, prefix: str) -> dict[str, int]:
        """Every file below the folder, with its size."""
        return {key: state.st_size for key, state in self._states(prefix)}

    def ages(self, prefix: str) -> dict[str, float]:
        """Every file below the folder, with its age by the clock of the file system, which may be another machine's."""
        with _explained("write", self._root), NamedTemporaryFile(dir=self._root, prefix=".clock.") as probe:
            now = os.stat(probe.name).st_mtime
        return {key: now - state.st_mtime for key, state in self._states(prefix)}

    def _states(self, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
        with _explained("list", self._path(prefix)):
            folders = [prefix]
            while folders:
                folder = folders.pop()
                try:
                    with os.scandir(self._path(folder)) as entries:
                        for entry in entries:
                            key = f"{folder}/{entry.name}"
                            if entry.is_dir():
                                folders.append(key)
                            else:
                                yield key, entry.stat()
                except (FileNotFoundError, NotADirectoryError):
                    continue

    def names(self, prefix: str) -> list[str]:
        """What lies in the folder, without drafts and other hidden files."""
        path = self._path(prefix) if prefix else self._root
        with _explained("list", path):
            try:
                return sorted(name for name in os.listdir(path) if not name.startswith("."))
            except (FileNotFoundError, NotADirectoryError):
                return []

    def remove(self, prefix: str) -> None:
        """Delete the file or the folder."""
        path = self._path(prefix)
        # what is gone already was removed by a rival
        with _explained("remove", path), suppress(FileNotFoundError):
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)


def batches(objects: Iterable[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    """Objects by 32 MiB: whoever packs them is not disturbed by those who write, and memory stays bounded."""
    batch: list[tuple[str, bytes]] = []
    for key, data in objects:
        batch.append((key, data))
        if sum(len(data) for _, data in batch) >= _BATCH_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch


def _act_on(act: Callable[[Item], None], items: Sequence[Item]) -> None:
    for item in items:
        act(item)


def _write_explained(item: tuple[str, bytes]) -> None:
    path, data = item
    with _explained("write", path):
        _write(path, data)


def _write(path: str, data: bytes) -> None:
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: str) -> None:
    with _explained("write", folder):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot, and need not
                raise
        finally:
            os.close(descriptor)


def files_at(place: Place, *, hasty: bool = False) -> Files:
    """The backend of a place; a hasty one soon tells that a server does not answer, as a mistyped address does not."""
    if place.folder is None:
        from qsm_dask.objectstore import PATIENCE_S
        from qsm_dask.store.objects import ObjectFiles  # what needs an extra is imported when asked for

        return ObjectFiles(place.url, _HASTE_S if hasty else PATIENCE_S)
    return LocalFiles(place.folder)
