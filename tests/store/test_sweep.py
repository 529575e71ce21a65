"""What may go of a scan's folder: only what no commit names, and only when it is old."""

import os
import time
from pathlib import Path

import pytest

from qsm_dask.scan import ScanKey
from qsm_dask.store import CohortStore
from tests.store.conftest import KEY, Write

DAY_S = 86400.0


def age(path: Path, hours: float) -> None:
    """Make a file, or all in a folder, as old as that."""
    then = time.time() - 3600 * hours
    for each in [path, *path.rglob("*")]:
        os.utime(each, (then, then))


def orphan(store: CohortStore, scan: ScanKey, name: str, *, hours: float, key: str = KEY) -> Path:
    """An attempt of 1000 bytes that crashed before its commit."""
    folder = store.place.folder / "scans" / str(scan) / "field" / key / name
    (folder / "phase").mkdir(parents=True)
    (folder / "zarr.json").write_bytes(b"x" * 400)
    (folder / "phase" / "c.0").write_bytes(b"x" * 600)
    age(folder, hours)
    return folder


def places(store: CohortStore, scan: ScanKey, **options: object) -> list[tuple[str, str, int]]:
    found = store.upkeep.leftovers(scan, DAY_S, **options)
    return [(one.kind, one.place.rpartition("/")[2], one.size) for one in found]


def test_only_old_attempts_that_no_commit_names_are_found(write: Write, store: CohortStore, scan: ScanKey) -> None:
    commit = write()
    age(store.place.folder / "scans", 100)
    orphan(store, scan, "dead", hours=25)
    orphan(store, scan, "young", hours=23)
    orphan(store, scan, "alone", hours=48, key="ffff")
    busy = orphan(store, scan, "busy", hours=48)
    (busy / "phase" / "c.1").write_bytes(b"its writer goes on")
    draft = store.place.folder / "scans" / str(scan) / "field" / KEY / ".COMMIT.json.0123"
    draft.write_bytes(b"12345")
    age(draft, 30)
    assert places(store, scan) == [
        ("orphan", ".COMMIT.json.0123", 5),
        ("orphan", "dead", 1000),
        ("orphan", "alone", 1000),
    ]
    for one in store.upkeep.leftovers(scan, DAY_S):
        store.upkeep.discard(one)
    assert places(store, scan) == []
    assert store.verify(commit) == []
    assert store.intact(scan, "field", KEY) == commit
    assert {path.name for path in busy.parent.iterdir()} == {"COMMIT.json", commit.attempt, "young", "busy"}


def test_the_attempt_of_an_earlier_commit_of_the_same_node_may_go(
    write: Write, store: CohortStore, scan: ScanKey
) -> None:
    first, second = write(), write()
    age(store.place.folder / "scans", 25)
    ((kind, attempt, _),) = places(store, scan)
    assert (kind, attempt) == ("orphan", first.attempt)
    assert second.attempt != first.attempt


def test_nothing_beside_a_commit_that_cannot_be_read_may_go(write: Write, store: CohortStore, scan: ScanKey) -> None:
    """It may name any of the attempts: `verify` tells of it, and people decide."""
    write()
    orphan(store, scan, "dead", hours=48)
    marker = store.place.folder / "scans" / str(scan) / "field" / KEY / "COMMIT.json"
    marker.write_bytes(marker.read_bytes()[:-10])
    age(store.place.folder / "scans", 48)
    assert places(store, scan) == []


def test_a_replaced_commit_goes_whole_and_its_marker_first(
    write: Write, store: CohortStore, scan: ScanKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = write(key="aaaa"), write(key="bbbb")
    age(store.place.folder / "scans", 25)
    (one,) = store.upkeep.leftovers(scan, DAY_S, [("field", "aaaa")])
    assert (one.kind, one.node, one.key, one.scan) == ("superseded", "field", "aaaa", scan)
    assert one.size == sum(store._files.sizes(f"scans/{scan}/field/aaaa").values())
    removed: list[str] = []
    remove = store._files.remove
    monkeypatch.setattr(store._files, "remove", lambda place: (removed.append(place), remove(place)))
    store.upkeep.discard(one)
    assert removed[0] == f"{one.place}/COMMIT.json"
    assert store.commit(scan, "field", "aaaa") is None
    assert not (store.place.folder / old.folder).exists()
    assert store.verify(new) == []


def test_a_commit_that_is_young_stays_though_it_is_replaced(write: Write, store: CohortStore, scan: ScanKey) -> None:
    write(key="aaaa")
    assert store.upkeep.leftovers(scan, DAY_S, [("field", "aaaa")]) == []


def test_a_scan_without_a_folder_has_no_leftovers(store: CohortStore) -> None:
    assert store.upkeep.leftovers(ScanKey.parse("sub-09"), 0.0) == []
