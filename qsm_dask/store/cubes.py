"""The cohort cube: a map in standard space over all scans, appended to by segments and read by brick.

Which scans count, and with which values, the index says; which segments hold them, a listing of the map's segments and
their records. A scan that was computed anew is no longer what its older segment holds of it: there it is passed over,
until the scan is appended again.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from qsm_dask.errors import DamageError, StoreError
from qsm_dask.quantities import QUANTITIES, SPACE, STANDARD
from qsm_dask.scan import ScanKey
from qsm_dask.store import segments
from qsm_dask.store.datasets import counting, described, texts, token
from qsm_dask.store.files import Files
from qsm_dask.store.layout import BRICK, CUBES, SEGMENT, SEGMENT_SCANS, is_segment, segment_folder, segment_marker
from qsm_dask.store.segments import BrickIndex, Member, Segment, SegmentDamage, SegmentPlace
from qsm_dask.store.sweep import Leftover

if TYPE_CHECKING:
    from qsm_dask.store.cohort import CohortStore

_SUFFIX = "_standard"
_FLOAT = 4


class Batch(NamedTuple):
    """Scans that are appended together.

    Attributes
    ----------
    name : quantity of the maps.
    members : whose maps.
    shape : of each map (x, y, z).
    """

    name: str
    members: tuple[Member, ...]
    shape: tuple[int, ...]

    @property
    def memory(self) -> int:
        """Peak of appending it [bytes]: all maps, one as it is read, and what is packed and not written yet."""
        volume = _FLOAT * int(np.prod(self.shape))
        return (len(self.members) + 2) * volume + 2 * len(self.members) * _FLOAT * BRICK**3 + 2**26

    def __str__(self) -> str:
        return f"{self.name} of {self.members[0].scan} and {len(self.members) - 1} more"


class _BrickBlock:
    """A task: some scans of a segment in one brick."""

    def __init__(
        self, store: "CohortStore", place: SegmentPlace, index: BrickIndex, rows: tuple[int, ...] | None
    ) -> None:
        self._store = store
        self._place = place
        self._index = index
        self._rows = rows

    def __call__(self) -> NDArray[np.float32]:
        values = self._store.cubes.brick(self._place, self._index)
        return values if self._rows is None else values[list(self._rows)]


class Cubes:
    """The cubes of a cohort, one a map.

    Parameters
    ----------
    store : the cohort.
    files : its backend.
    """

    def __init__(self, store: "CohortStore", files: Files) -> None:
        self._store = store
        self._files = files

    def names(self) -> list[str]:
        """The quantities that scans have in standard space."""
        return sorted({name for row in self._rows() for name in row["facts"]["standard"]})

    def _rows(self) -> list[dict[str, Any]]:
        rows = [row for row in counting(self._store) if row["facts"].get("standard")]
        return sorted(rows, key=lambda row: ScanKey.parse(row["scan"]))

    def members(self, name: str) -> dict[Member, tuple[int, ...]]:
        """The scans that count, each with the shape of its map."""
        found = {}
        for row in self._rows():
            if name in row["facts"]["standard"]:
                digest, shape = row["facts"]["standard"][name]
                found[Member(row["scan"], row["key"], digest)] = tuple(shape)
        return found

    def keys(self, name: str) -> list[str]:
        """Keys of all segments of a cube, published or not, by listing them: one for many scans."""
        return [key for key in self._files.names(f"{CUBES}/{name}") if is_segment(name, key)]

    def stored(self) -> list[tuple[str, str]]:
        """Quantity and key of every segment of the cohort."""
        return [(name, key) for name in self._files.names(CUBES) for key in self.keys(name)]

    def segment(self, name: str, key: str) -> Segment | None:
        """A published segment, or None.

        Raises
        ------
        DamageError : there is one, but it cannot be read.
        """
        return segments.load(self._files, name, key)

    def published(self, name: str) -> list[Segment]:
        """Every published segment of a cube, the largest first.

        Raises
        ------
        DamageError : one cannot be read.
        """
        found = [segment for key in self.keys(name) if (segment := self.segment(name, key)) is not None]
        return sorted(found, key=lambda one: (-len(one.members), one.place.key))

    def brick(self, place: SegmentPlace, index: BrickIndex) -> NDArray[np.float32]:
        """All scans of a segment in one brick; see `segments.read_brick`."""
        return segments.read_brick(self._files, place, index)

    def pending(self, name: str, *, compact: bool = False, scans: int = SEGMENT_SCANS) -> list[Batch]:
        """What there is to append, in batches of so many scans.

        Parameters
        ----------
        name : quantity of the maps.
        compact : whether scans of segments that are not full are written together once more.
        scans : most scans of a segment.
        """
        members = self.members(name)
        held = _held(members, self.published(name))
        sizes = {key: sum(1 for one, _ in held.values() if one.place.key == key) for key in _keys_of(held)}
        small = sum(1 for size in sizes.values() if size < scans)
        if compact and small + (len(held) < len(members)) > 1:
            held = {member: found for member, found in held.items() if sizes[found[0].place.key] >= scans}
        grids: dict[tuple[int, ...], list[Member]] = {}
        for member, shape in members.items():
            if member not in held:
                grids.setdefault(shape, []).append(member)
        return [
            Batch(name, tuple(waiting[start : start + scans]), shape)
            for shape, waiting in grids.items()
            for start in range(0, len(waiting), scans)
        ]

    def append(self, batch: Batch, brick: int = BRICK) -> Segment:
        """Write the maps of some scans as a new segment.

        Raises
        ------
        StoreError : they are not on one grid, one of them was computed anew meanwhile, or writing failed.
        DamageError : a map cannot be read.
        """
        values = np.empty((len(batch.members), *batch.shape), dtype=np.float32)
        grid: NDArray[np.float64] | None = None
        for row, member in enumerate(batch.members):
            commit = self._store.commit(ScanKey.parse(member.scan), "standard", member.key)
            if commit is None or commit.arrays[batch.name]["digest"] != member.digest:
                raise StoreError(
                    f"{member.scan}: its {batch.name} was computed anew meanwhile: run the same command again"
                )
            found = self._store.read(commit, (batch.name, "template_affine"))
            if grid is not None and not np.array_equal(grid, found["template_affine"]):
                raise StoreError(
                    f"{member.scan}: its {batch.name} lies on another grid than that of {batch.members[0].scan}: "
                    "process all scans with one template"
                )
            grid, values[row] = found["template_affine"], found[batch.name]
        return segments.write(self._files, batch.name, batch.members, np.asarray(grid), values, brick)

    def damages(self, segment: Segment) -> list[SegmentDamage]:
        """What is wrong with a segment, object by object; all of them are read."""
        return segments.damages_of(self._files, segment)

    def withdraw(self, name: str, key: str) -> None:
        """Remove the record of a segment, so that its scans are to be appended again; `gc` sweeps its bricks."""
        self._files.remove(segment_marker(name, key))

    def leftovers(self, older_than_s: float, *, superseded: bool = False) -> list[Leftover]:
        """Attempts that no record names and, if asked for, segments whose scans are all in others, which are whole."""
        found: list[Leftover] = []
        for name in self._files.names(CUBES):
            ages = self._files.ages(f"{CUBES}/{name}")  # before any record is read, as of scans
            sizes = self._files.sizes(f"{CUBES}/{name}")
            replaced = self._replaced(name) if superseded else frozenset()
            entries: dict[tuple[str, str], list[str]] = {}
            for item in ages:
                key, entry, *_ = [*item.removeprefix(f"{CUBES}/{name}/").split("/"), ""]
                if not entry or not is_segment(name, key):
                    continue
                entries.setdefault((key, "" if key in replaced else entry), []).append(item)
            for (key, entry), items in sorted(entries.items()):
                if not entry or entry not in self._kept(name, key):
                    folder = segment_folder(name, key)
                    place = f"{folder}/{entry}" if entry else folder
                    size = sum(sizes.get(item, 0) for item in items)
                    age = min(ages[item] for item in items)
                    found.append(Leftover(None, name, key, "orphan" if entry else "superseded", place, size, age))
        return [one for one in found if one.age_s >= older_than_s]

    def _kept(self, name: str, key: str) -> tuple[str, ...]:
        try:
            segment = self.segment(name, key)
        except DamageError:
            return tuple(self._files.names(segment_folder(name, key)))  # `verify` tells
        return () if segment is None else (SEGMENT, segment.place.attempt)

    def _replaced(self, name: str) -> frozenset[str]:
        """Keys of segments that nobody reads any more, all of whose scans whole segments hold as they are now."""
        whole = [one for one in self.published(name) if not segments.absences(self._files, one)]
        held = _held(self.members(name), whole)
        used, covered = _keys_of(held), {member.scan for member in held}
        return frozenset(
            one.place.key
            for one in self.published(name)
            if one.place.key not in used and {member.scan for member in one.members} <= covered
        )

    def array(self, name: str) -> xr.DataArray:
        """The cube of a map; see `CohortStore.cube`."""
        quantity = name if name.endswith(_SUFFIX) else f"{name}{_SUFFIX}"
        if quantity not in QUANTITIES or QUANTITIES[quantity].dims != STANDARD:
            known = [one.removesuffix(_SUFFIX) for one, about in QUANTITIES.items() if about.dims == STANDARD]
            raise StoreError(f"{name!r} is no map in standard space; there are {', '.join(known)}")
        members = self.members(quantity)
        held = _held(members, self.published(quantity))
        if not held:
            raise StoreError(
                f"{self._store.place} has no cube of {name}: process it with a pipeline that has the step "
                f"anatomy.standard, such as `standard`, then run `qsm-dask cube {self._store.place}`"
            )
        used = {segment.place.key: segment for segment, _ in held.values()}
        rows = {key: sorted(row for one, row in held.values() if one.place.key == key) for key in used}
        ordered = sorted(used.values(), key=lambda one: one.members[rows[one.place.key][0]])
        grids = {(one.place.shape[1:], one.affine) for one in ordered}
        if len(grids) > 1:
            raise StoreError(
                f"{self._store.place}: scans have {quantity} on several grids: process all with one template"
            )
        scans = [ScanKey.parse(one.members[row].scan) for one in ordered for row in rows[one.place.key]]
        values = da.concatenate([self._lazy(one, rows[one.place.key]) for one in ordered], axis=0)
        about = {
            **described(quantity),
            "affine": [list(row) for row in ordered[0].affine],
            "pending": len(members) - len(held),
            "cohort": self._store.place.url,
        }
        labels = {
            "scan": texts(map(str, scans)),
            "subject": ("scan", texts(scan.subject for scan in scans)),
            "session": ("scan", texts(scan.session or "" for scan in scans)),
            **_positions(ordered[0]),
        }
        return xr.DataArray(values, labels, segments.DIMS, name, about)

    def _lazy(self, segment: Segment, rows: Sequence[int]) -> da.Array:
        """The chosen scans of a segment, a block a brick."""
        place = segment.place
        chosen = None if len(rows) == place.shape[0] else tuple(rows)
        name = f"{place.name}-{token(self._store, place.folder, chosen)}"
        chunks = ((len(rows),), *segments.brick_sizes(place))
        tasks = {
            (name, 0, *index): (_BrickBlock(self._store, place, index, chosen),) for index in segments.bricks(place)
        }
        return da.Array(tasks, name, chunks, dtype=np.float32)


def _held(members: Iterable[Member], found: Sequence[Segment]) -> dict[Member, tuple[Segment, int]]:
    """Where each scan's present map is held: in the first of the segments that has it."""
    wanted = {(member.scan, member.digest): member for member in members}
    held: dict[Member, tuple[Segment, int]] = {}
    for segment in found:
        for row, (scan, _, digest) in enumerate(segment.members):
            member = wanted.get((scan, digest))
            if member is not None:
                held.setdefault(member, (segment, row))
    return held


def _keys_of(held: Mapping[Member, tuple[Segment, int]]) -> set[str]:
    return {segment.place.key for segment, _ in held.values()}


def _positions(segment: Segment) -> dict[str, Any]:
    """Positions along the axes [mm], where the grid's axes are those of space."""
    affine = np.array(segment.affine)
    scale = np.diag(affine)[:3]
    if not np.array_equal(affine[:3, :3], np.diag(scale)):
        return {}
    mm = {"units": "mm"}
    return {
        axis: (axis, start + step * np.arange(n), mm)
        for axis, start, step, n in zip(SPACE, affine[:3, 3], scale, segment.place.shape[1:], strict=True)
    }
