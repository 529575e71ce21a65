"""Walking a BIDS dataset: its images, and the metadata files that may apply to each.

Why not bids2table (2.3): it finds nothing under a folder whose name holds a dot or a
bracket, turns `run-01` into 1, keeps folder listings and sidecars in caches that never
notice a change, skips sidecars that are not valid JSON without a word, and leaves the
sidecars to a second search. One pass over the folders gives images and sidecars at once,
and the cost is a listing of each folder.
"""

import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from qsm_dask.errors import InputError
from qsm_dask.io.names import IMAGES, Name, parse, suffix_of

_SUBJECT = re.compile(r"^sub-[0-9A-Za-z+]+$")
_SESSION = re.compile(r"^ses-[0-9A-Za-z+]+$")


@dataclass(frozen=True)
class Entry:
    """A file with a BIDS name.

    Attributes
    ----------
    name : the name, taken apart.
    relative : path from the dataset's root, with slashes.
    """

    name: Name
    relative: str

    @property
    def datatype(self) -> str:
        """The folder it stands in, such as `anat`."""
        return self.relative.rpartition("/")[0].rpartition("/")[2]


@dataclass
class Folder:
    """The files of one folder that matter.

    Attributes
    ----------
    images : NIfTI files of the suffixes looked for.
    sidecars : metadata files by (suffix, extension, label of `sub` or None); a root full of
        sidecars of single subjects is thereby searched in constant time.
    strange : files of a suffix looked for whose names are not BIDS.
    """

    images: list[Entry] = field(default_factory=list)
    sidecars: dict[tuple[str, str, str | None], list[Entry]] = field(default_factory=dict)
    strange: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Found:
    """An image and the folders from the root down to its own, where its metadata may stand."""

    entry: Entry
    chain: tuple[Folder, ...]

    def metadata_files(self, extension: str = ".json") -> tuple[Entry, ...]:
        """The metadata files that apply by the BIDS inheritance principle, the most general first.

        A file applies when it stands in the image's folder or above, has its suffix, and
        has no entity that the image lacks or labels differently. Within one folder the
        file with more entities is the more special.
        """
        name = self.entry.name
        found: list[Entry] = []
        for folder in self.chain:
            here = [
                entry
                for subject in (None, name.get("sub"))
                for entry in folder.sidecars.get((name.suffix, extension, subject), ())
                if all(name.get(entity) == label for entity, label in entry.name.entities)
            ]
            found += sorted(here, key=lambda entry: (len(entry.name.entities), entry.relative))
        return tuple(found)


def subjects(root: Path) -> tuple[str, ...]:
    """The subject folders of a dataset, sorted.

    Raises
    ------
    InputError : the folder cannot be listed.
    """
    try:
        with os.scandir(root) as entries:
            return tuple(sorted(e.name for e in entries if _SUBJECT.match(e.name) and e.is_dir()))
    except OSError as error:
        raise InputError(f"{root}: cannot be listed: {error.strerror or error}") from error


def walk(
    root: Path,
    suffixes: Collection[str],
    subject_names: Collection[str],
    *,
    sessions: Collection[str] = (),
    datatypes: Collection[str] = (),
) -> Iterator[tuple[Found | None, Folder]]:
    """Visit the folders of some subjects; yield every image found, and each folder once with None.

    Parameters
    ----------
    root : dataset.
    suffixes : suffixes of the images looked for.
    subject_names : folders `sub-…` to visit.
    sessions : folders `ses-…` to visit; empty: all, and files without a session.
    datatypes : folders such as `anat` to visit; empty: all, and files beside them.

    Raises
    ------
    InputError : a folder cannot be listed.
    """
    top, _ = _list(root, "", suffixes)
    for subject in subject_names:
        folder, below = _list(root, subject, suffixes)
        branches: list[tuple[tuple[Folder, ...], str, tuple[str, ...]]] = [((top, folder), subject, below)]
        for session in filter(_SESSION.match, below):
            if not sessions or session in sessions:
                inner, deeper = _list(root, f"{subject}/{session}", suffixes)
                branches.append(((top, folder, inner), f"{subject}/{session}", deeper))
        for chain, path, children in branches:
            outside = bool(sessions) and len(chain) == 2
            if not datatypes and not outside:
                yield from _visit(chain)
            for child in children:
                if outside or _SESSION.match(child) or (datatypes and child not in datatypes):
                    continue
                leaf, _ = _list(root, f"{path}/{child}", suffixes)
                yield from _visit((*chain, leaf))


def _visit(chain: tuple[Folder, ...]) -> Iterator[tuple[Found | None, Folder]]:
    for entry in chain[-1].images:
        yield Found(entry, chain), chain[-1]
    yield None, chain[-1]


def _list(root: Path, relative: str, suffixes: Collection[str]) -> tuple[Folder, tuple[str, ...]]:
    folder, below = Folder(), []
    try:
        with os.scandir(root / relative) as entries:
            found = sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        raise InputError(f"{root / relative}: cannot be listed: {error.strerror or error}") from error
    for filename, is_dir in found:
        if is_dir:
            below.append(filename)
            continue
        if suffix_of(filename) not in suffixes:
            continue
        path = f"{relative}/{filename}" if relative else filename
        name = parse(filename)
        if name is None:
            folder.strange.append(path)
        elif name.extension in IMAGES:
            folder.images.append(Entry(name, path))
        else:
            key = (name.suffix, name.extension, name.get("sub"))
            folder.sidecars.setdefault(key, []).append(Entry(name, path))
    return folder, tuple(below)
