"""One segment of the cohort cube: a map of some scans on one grid, cut into bricks that each hold all of them.

A segment is written once, under a key that its content fixes, and counts when its `SEGMENT.json` is put. Scans that
come later make segments of their own, so nothing that is there is ever written again.
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from qsm_dask.digests import checksum, digest_of
from qsm_dask.errors import DamageError, StoreError
from qsm_dask.quantities import SPACE, quantity
from qsm_dask.store.coding import METADATA, ArrayCoder, array_metadata
from qsm_dask.store.commit import sealed, unsealed
from qsm_dask.store.files import Files
from qsm_dask.store.layout import segment_folder, segment_marker

Real = NDArray[np.float32]
BrickIndex = tuple[int, int, int]

DIMS = ("scan", *SPACE)


class Member(NamedTuple):
    """A scan's map in the cube.

    Attributes
    ----------
    scan : its name.
    key : of the commit that holds the map.
    digest : of the map's values.
    """

    scan: str
    key: str
    digest: str


class SegmentPlace(NamedTuple):
    """What it takes to read a brick of a segment; small, since every task carries one."""

    name: str
    key: str
    attempt: str
    shape: tuple[int, ...]
    brick: BrickIndex

    @property
    def folder(self) -> str:
        """The store key of the attempt."""
        return f"{segment_folder(self.name, self.key)}/{self.attempt}"


@dataclass(frozen=True)
class Segment:
    """A finished segment.

    Attributes
    ----------
    place : where it lies, and its shape (scan, x, y, z) and that of a brick (x, y, z).
    members : whose maps it holds, in order.
    affine : (4, 4) voxel index to position [mm], row by row.
    objects : every file of the attempt with its size and checksum.
    """

    place: SegmentPlace
    members: tuple[Member, ...]
    affine: tuple[tuple[float, ...], ...]
    objects: dict[str, tuple[int, str]]

    def to_json(self) -> bytes:
        """The record as the store keeps it, sealed with a checksum of its own."""
        return sealed({**asdict(self), "place": self.place._asdict(), "members": [list(one) for one in self.members]})

    @classmethod
    def from_json(cls, data: bytes, place: tuple[str, str]) -> "Segment":
        """Read back `to_json`.

        Parameters
        ----------
        data : what `to_json` gave.
        place : map and key under which it was found.

        Raises
        ------
        TypeError, KeyError : it is JSON, and no segment.
        ValueError : it is torn, altered, of a newer format, or was moved from another place.
        """
        content = unsealed(data)
        where = content["place"]
        if place != (own := (where["name"], where["key"])):
            raise ValueError(f"it belongs to {' '.join(own)}")
        x, y, z = where["brick"]
        return cls(
            SegmentPlace(*own, where["attempt"], tuple(where["shape"]), (x, y, z)),
            tuple(Member(*one) for one in content["members"]),
            tuple(tuple(row) for row in content["affine"]),
            {file: (size, digest) for file, (size, digest) in content["objects"].items()},
        )


@dataclass(frozen=True)
class SegmentDamage:
    """What is wrong with one object of a segment."""

    place: str
    problem: str

    def __str__(self) -> str:
        return f"{self.place} {self.problem}"


def write(
    files: Files, name: str, members: Sequence[Member], affine: NDArray[np.float64], values: Real, brick: int
) -> Segment:
    """Write, verify and publish a segment; whoever writes the same one at the same time does no harm.

    Parameters
    ----------
    files : the backend of the cohort.
    name : quantity of the maps.
    members : whose they are.
    affine : (4, 4) voxel index to position [mm].
    values : (scan, x, y, z) in the order of the members.
    brick : voxels of a brick along each axis, as far as the grid reaches.

    Raises
    ------
    StoreError : writing failed, or what was written cannot be read back; then nothing was published.
    """
    x, y, z = (min(brick, n) for n in values.shape[1:])
    grid = [[float(number) for number in row] for row in affine]
    key = digest_of([name, brick, grid, [[one.scan, one.digest] for one in members]])
    place = SegmentPlace(name, key, uuid4().hex, values.shape, (x, y, z))
    about = {
        "units": quantity(name).units,
        "long_name": quantity(name).meaning,
        "scans": [one.scan for one in members],
        "affine": grid,
    }
    metadata = array_metadata(values.shape, values.dtype, DIMS, about, (len(members), x, y, z))
    segment = Segment(place, tuple(members), tuple(map(tuple, grid)), {})
    try:
        files.put_all(_encoded(segment, metadata, values))
        _check_written(files, segment)
    except BaseException:
        with suppress(StoreError):
            files.remove(place.folder)
        raise
    files.put(segment_marker(name, key), segment.to_json())
    return segment


def _check_written(files: Files, segment: Segment) -> None:
    damages = damages_of(files, segment)
    if damages:
        raise StoreError(
            f"{damages[0]}, just after it was written: check the disk and the memory of this machine, "
            "then run the same command again"
        )


def _encoded(segment: Segment, metadata: bytes, values: Real) -> Iterator[tuple[str, bytes]]:
    """Yield every object of an attempt, and tell the segment's record of it."""
    place, coder = segment.place, ArrayCoder(metadata)
    block = np.zeros((place.shape[0], *place.brick), dtype=np.float32)
    for index in bricks(place):
        part = values[(slice(None), *_extent(place, index))]
        block[...] = 0.0  # beyond the edge of the grid, where bricks go on
        block[tuple(slice(n) for n in part.shape)] = part
        yield _told(segment, _file(index), coder.pack(block))
    yield _told(segment, METADATA, metadata)


def _told(segment: Segment, file: str, data: bytes) -> tuple[str, bytes]:
    segment.objects[file] = (len(data), checksum(data))
    return f"{segment.place.folder}/{file}", data


def bricks(place: SegmentPlace) -> Iterator[BrickIndex]:
    """The index of every brick."""
    yield from itertools.product(*(range(len(sizes)) for sizes in brick_sizes(place)))


def brick_sizes(place: SegmentPlace) -> list[tuple[int, ...]]:
    """Voxels of the grid in each brick along each axis."""
    return [
        tuple(min(size, n - start) for start in range(0, n, size))
        for n, size in zip(place.shape[1:], place.brick, strict=True)
    ]


def _extent(place: SegmentPlace, index: BrickIndex) -> tuple[slice, ...]:
    return tuple(slice(at * size, (at + 1) * size) for at, size in zip(index, place.brick, strict=True))


def _file(index: BrickIndex) -> str:
    return ".".join(["c", "0", *map(str, index)])


def load(files: Files, name: str, key: str) -> Segment | None:
    """A published segment, or None.

    Raises
    ------
    DamageError : there is one, but it cannot be read.
    """
    place = segment_marker(name, key)
    data = files.get(place)
    if data is None:
        return None
    try:
        return Segment.from_json(data, (name, key))
    except (TypeError, ValueError, KeyError) as error:
        raise DamageError(
            f"{files.url}/{place} cannot be read: {error}. `qsm-dask verify {files.url} --repair` makes it anew"
        ) from error


def read_brick(files: Files, place: SegmentPlace, index: BrickIndex) -> Real:
    """All scans of a segment in one brick, (scan, x, y, z), from one object.

    Raises
    ------
    DamageError : it is missing or altered.
    """
    try:
        return _read(files, place, index)
    except DamageError:
        fresh = load(files, place.name, place.key)
        if fresh is None or fresh.place.attempt == place.attempt:
            raise
        return _read(files, fresh.place, index)  # written anew meanwhile, with the same values: the key fixes them


def _read(files: Files, place: SegmentPlace, index: BrickIndex) -> Real:
    data = files.get(f"{place.folder}/{_file(index)}")
    where = f"{files.url}/{place.folder}/{_file(index)}"
    advice = f"`qsm-dask verify {files.url} --repair` makes the segment of the cube anew"
    if data is None:
        raise DamageError(f"{where} is missing. {advice}")
    block = np.empty((place.shape[0], *place.brick), dtype=np.float32)
    try:
        _coder(place).decode(data, block)
    except (ValueError, RuntimeError) as error:
        raise DamageError(f"{where} has been altered: its checksum does not fit. {advice}") from error
    part = tuple(sizes[at] for sizes, at in zip(brick_sizes(place), index, strict=True))
    return block[(slice(None), *(slice(n) for n in part))]


def _coder(place: SegmentPlace) -> ArrayCoder:
    """The encoding of the bricks, which is known without reading an object."""
    return ArrayCoder(array_metadata(place.shape, np.dtype(np.float32), DIMS, {}))


def absences(files: Files, segment: Segment) -> list[SegmentDamage]:
    """Objects of a segment that are gone or have another size; nothing is read."""
    folder, sizes = segment.place.folder, files.sizes(segment.place.folder)
    damages = []
    for file, (size, _) in segment.objects.items():
        found = sizes.get(f"{folder}/{file}")
        if found is None:
            damages.append(SegmentDamage(f"{files.url}/{folder}/{file}", "is missing"))
        elif found != size:
            damages.append(SegmentDamage(f"{files.url}/{folder}/{file}", f"has {found} bytes instead of {size}"))
    return damages


def damages_of(files: Files, segment: Segment) -> list[SegmentDamage]:
    """Everything that is wrong with a segment: every object is read and its checksum compared."""
    damages = absences(files, segment)
    known = {one.place for one in damages}
    for file, (_, digest) in segment.objects.items():
        place = f"{segment.place.folder}/{file}"
        if f"{files.url}/{place}" in known:
            continue
        data: Any = files.get(place)
        if data is None or checksum(data) != digest:
            damages.append(SegmentDamage(f"{files.url}/{place}", "has been altered: its checksum does not fit"))
    return damages
