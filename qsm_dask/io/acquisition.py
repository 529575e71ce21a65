"""What is known of an acquisition before any of its files is opened."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from qsm_dask.scan import ScanKey


class Stat(NamedTuple):
    """What tells that an object is another one: its size, its time [ns] and its store's tag."""

    size: int
    mtime_ns: int
    tag: str


@dataclass(frozen=True)
class FileRef:
    """A file, and the name under which records speak of it.

    Attributes
    ----------
    label : path from the dataset's root, or from the name of a derivatives folder outside
        it; never absolute, so that a dataset may move.
    path : where it lies now: on a disk, or at a URL.
    stat : of an object at a URL, when the dataset was listed.
    """

    label: str
    path: str
    stat: Stat | None = None


@dataclass(frozen=True)
class Image:
    """One NIfTI file of an acquisition.

    Attributes
    ----------
    file : the file.
    part : `mag`, `phase`, `real` or `imag`.
    echo : its `echo-` entity; the order of echoes comes from EchoTime.
    sidecars : the JSON files that apply, the most general first.
    coil : its `coil-` entity; None where coils are combined, or the axis of one file.
    """

    file: FileRef
    part: str
    echo: int | None
    sidecars: tuple[FileRef, ...]
    coil: str | None = None


@dataclass(frozen=True)
class Map:
    """A map, mask or label image of an acquisition, made by another tool.

    Attributes
    ----------
    quantity : name in `quantities.QUANTITIES`.
    file : the file.
    sidecars : the JSON files that apply, the most general first.
    table : the `dseg.tsv` that applies.
    units : what the user says its units are, or None.
    others : the files of the other labels of a `probseg` that has one a label.
    transform : what resamples it onto the scan; None where headers tell.
    any_session : whether it names no session though its subject has several.
    """

    quantity: str
    file: FileRef
    sidecars: tuple[FileRef, ...]
    table: FileRef | None = None
    units: str | None = None
    others: tuple[FileRef, ...] = ()
    transform: FileRef | None = None
    any_session: bool = False

    @property
    def content(self) -> tuple[FileRef, ...]:
        """The files whose content counts, not a few keys of it."""
        return (self.file, *self.others, *(one for one in (self.table, self.transform) if one is not None))


@dataclass(frozen=True)
class Acquisition:
    """All files of one scan; small, so that it can travel to a worker.

    Attributes
    ----------
    key : the scan's name.
    images : its images, by part and file name.
    maps : maps, masks and label images found for it.
    problem : why it cannot be read, if its file names tell already.
    notes : what the reader should know, such as a map that was asked for and is absent.
    """

    key: ScanKey
    images: tuple[Image, ...]
    maps: tuple[Map, ...] = ()
    problem: str | None = None
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return str(self.key)

    def has(self, *parts: str) -> bool:
        """Whether there is an image of each of these parts."""
        return {image.part for image in self.images} >= set(parts)

    @cached_property
    def coils(self) -> tuple[str | None, ...]:
        """The receive coils that have files of their own, by number; one None where there are none."""
        return tuple(sorted({image.coil for image in self.images}, key=lambda coil: (len(coil or ""), coil or "")))

    @cached_property
    def files(self) -> tuple[FileRef, ...]:
        """Every file that matters, each once, by label."""
        found: dict[str, FileRef] = {}
        for image in self.images:
            _collect(found, (image.file, *image.sidecars))
        for item in self.maps:
            _collect(found, (*item.content, *item.sidecars))
        return tuple(found[label] for label in sorted(found))


def _collect(found: dict[str, FileRef], files: Iterable[FileRef]) -> None:
    for file in files:
        found.setdefault(file.label, file)
