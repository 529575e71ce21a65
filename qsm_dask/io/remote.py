"""A BIDS dataset in an object store: its tree is laid out here without content, and workers fetch one scan each.

Names decide what belongs to a scan, so the driver lists the objects once and reads three small files, and the
head of one image of each scan. The files of a scan lie on a worker's disk only while that scan is ingested.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qsm_dask.errors import InputError, StoreError
from qsm_dask.io.acquisition import Acquisition, FileRef, Stat
from qsm_dask.objectstore import again, connect, explained
from qsm_dask.scratch import own_folder

_KEPT = (".nii", ".nii.gz", ".json", ".tsv", ".mgh", ".mgz", ".lta", ".txt", ".tfm", ".mat", ".h5")
_READ = ("dataset_description.json", "participants.tsv", "participants.json")
"""What the driver looks into; of all else it needs the name."""
_HEAD_BYTES = 1 << 16
_PREFIX = "qsm-dask-bids-"


@dataclass(frozen=True)
class Mirror:
    """The tree of a dataset, with empty files.

    Attributes
    ----------
    url : the dataset.
    root : its tree on this machine.
    stats : size, time and tag of each object, by path from the root.
    """

    url: str
    root: Path
    stats: dict[str, Stat]

    def located(self, acquisitions: Sequence[Acquisition]) -> tuple[Acquisition, ...]:
        """The same acquisitions, with files that tell where they lie in the store and what they were when listed."""
        return tuple(_with_files(one, self._located) for one in acquisitions)

    def _located(self, file: FileRef) -> FileRef:
        path = Path(file.path)
        if not path.is_relative_to(self.root):
            return file  # of a derivatives folder that all machines see
        relative = path.relative_to(self.root).as_posix()
        return replace(file, path=f"{self.url}/{relative}", stat=self.stats[relative])


@contextmanager
def mirrored(url: str) -> Iterator[Mirror]:
    """List a dataset, and lay its tree out in a folder that is removed at exit.

    Parameters
    ----------
    url : of the dataset's root, without a slash at its end.

    Raises
    ------
    InputError : the store cannot be read, or holds nothing there.
    """
    with own_folder(None, _PREFIX) as folder:
        root = Path(folder, url.rpartition("/")[2])
        root.mkdir()
        stats = _list(url)
        if not stats:
            raise InputError(f"{url}: no such dataset: nothing lies below that URL")
        for relative in stats:
            path = root / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            if relative in _READ:
                _download(f"{url}/{relative}", path)
            else:
                path.touch()
        yield Mirror(url, root, stats)


def _list(url: str) -> dict[str, Stat]:
    import obstore

    with _as_input(), explained("list", url):
        store = connect(url)
        found = again(lambda: [entry for some in obstore.list(store) for entry in some])
    return {
        entry["path"]: Stat(entry["size"], int(entry["last_modified"].timestamp() * 1e9), entry["e_tag"] or "")
        for entry in found
        if entry["path"].endswith(_KEPT) and ".." not in entry["path"].split("/")
    }


@contextmanager
def at_hand(acquisition: Acquisition) -> Iterator[Acquisition]:
    """The acquisition with all its files on this machine's disk; what was fetched is removed at exit.

    Raises
    ------
    InputError : an object cannot be read, or the disk has no room for the scan.
    """
    away = [file for file in acquisition.files if _is_away(file)]
    if not away:
        yield acquisition
        return
    with own_folder(None, _PREFIX) as folder:
        _check_room(acquisition, away, folder)
        places = {file.label: Path(folder, str(number), Path(file.label).name) for number, file in enumerate(away)}
        for file in away:
            places[file.label].parent.mkdir()
            _download(file.path, places[file.label], file.label)
        yield _with_files(
            acquisition,
            lambda file: replace(file, path=str(places[file.label]), stat=None) if file.label in places else file,
        )


@contextmanager
def header_at_hand(file: FileRef) -> Iterator[Path]:
    """A file that begins as this one does, for whoever reads its header only.

    Raises
    ------
    InputError : the object cannot be read.
    """
    if not _is_away(file):
        yield Path(file.path)
        return
    with own_folder(None, _PREFIX) as folder:
        path = Path(folder, Path(file.label).name)
        _download(file.path, path, file.label, most=_HEAD_BYTES)
        yield path


def _is_away(file: FileRef) -> bool:
    return "://" in file.path


def _check_room(acquisition: Acquisition, files: Iterable[FileRef], folder: str) -> None:
    need = sum(file.stat.size for file in files if file.stat)
    room = shutil.disk_usage(folder).free
    if need > room:
        raise InputError(
            f"{acquisition.key}: its files take {need / 2**30:.2f} GiB and the scratch disk has {room / 2**30:.2f} GiB "
            "left: set TMPDIR to a larger one"
        )


def _download(url: str, path: Path, label: str | None = None, most: int | None = None) -> None:
    import obstore

    parent, _, name = url.rpartition("/")
    with _as_input(label), explained("read", url):
        store = connect(parent)
        options: Any = {} if most is None else {"range": (0, most)}
        try:
            content = again(lambda: obstore.get(store, name, options=options).bytes())
        except FileNotFoundError as error:
            raise InputError(f"{label or url}: is no longer there; run the same command again") from error
        path.write_bytes(content)


@contextmanager
def _as_input(label: str | None = None) -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        raise InputError(f"{label}: {error}" if label else str(error)) from error


def _with_files(acquisition: Acquisition, change: Callable[[FileRef], FileRef]) -> Acquisition:
    images = [
        replace(image, file=change(image.file), sidecars=tuple(map(change, image.sidecars)))
        for image in acquisition.images
    ]
    maps = [
        replace(
            item,
            file=change(item.file),
            sidecars=tuple(map(change, item.sidecars)),
            table=None if item.table is None else change(item.table),
            others=tuple(map(change, item.others)),
            transform=None if item.transform is None else change(item.transform),
        )
        for item in acquisition.maps
    ]
    return replace(acquisition, images=tuple(images), maps=tuple(maps))
