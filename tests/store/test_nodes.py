"""A node is committed whole or not at all, whoever dies or writes it too, and readers follow its commit."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from qsm_dask.errors import DamageError, StoreError
from qsm_dask.scan import ScanKey
from qsm_dask.store import CohortStore
from qsm_dask.store import attempts as attempts_module
from qsm_dask.store import nodes as nodes_module
from tests.store.conftest import KEY, Write


def test_notes_belong_to_one_attempt_and_change_no_commit(write: Write, store: CohortStore, scan: ScanKey) -> None:
    commit = write()
    assert store.recall(commit) == {}
    store.remember(commit, {"files": {"a.nii": {"size": np.int64(5)}}})
    assert store.recall(commit) == {"files": {"a.nii": {"size": 5}}}
    assert store.commit(scan, "field", KEY) == commit
    assert store.committed(scan) == [("field", KEY)]
    assert store.upkeep.leftovers(scan, 0.0) == []
    rival = write()
    assert store.recall(rival) == {}
    assert {one.place.rpartition("/")[2] for one in store.upkeep.leftovers(scan, 0.0)} == {
        commit.attempt,
        f"{commit.attempt}.json",
    }
    with pytest.raises(StoreError, match="sub-01_ses-1 field: .* cannot be kept as JSON"):
        store.remember(rival, {"files": object()})


@pytest.mark.parametrize("torn", [b"", b"{", b"[]", b"\xff"])
def test_notes_that_are_torn_are_none(write: Write, store: CohortStore, torn: bytes) -> None:
    commit = write()
    (store.place.folder / f"{commit.folder}.json").write_bytes(torn)
    assert store.recall(commit) == {}


# A writer that dies: whatever the step, the node is not done and the next write succeeds.

STEPS = ["encoded", "ArrayCoder.encode", "put_all", "_check_written", "_publish"]


@pytest.mark.parametrize("step", STEPS)
def test_a_writer_that_dies_before_the_marker_leaves_the_node_undone(
    store: CohortStore, scan: ScanKey, write: Write, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    class Killed(BaseException):
        pass

    def die(*args: object, **options: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        owners: dict[str, Any] = {
            "encoded": (attempts_module, "encoded"),
            "ArrayCoder.encode": (attempts_module.ArrayCoder, "encode"),
            "put_all": (store._files, "put_all"),
            "_check_written": (nodes_module, "_check_written"),
            "_publish": (nodes_module, "_publish"),
        }
        patch.setattr(*owners[step], die)
        with pytest.raises(Killed):
            write()
    assert store.commit(scan, "field", KEY) is None
    commit = write()
    assert store.intact(scan, "field", KEY) == commit
    assert store.verify(commit) == []


def test_a_failed_attempt_frees_its_space(store: CohortStore, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(files: object, commit: object) -> None:
        raise StoreError("broken")

    monkeypatch.setattr(nodes_module, "_check_written", fail)
    with pytest.raises(StoreError, match="broken"):
        write()
    assert [path for path in (store.place.folder / "scans").rglob("*") if path.is_file()] == []


def test_a_disk_that_alters_what_it_writes_is_found_before_the_commit(
    store: CohortStore, scan: ScanKey, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = store._files.put_all

    def bad_disk(objects: Any) -> None:
        real((key, data[:-9] + bytes([data[-9] ^ 1]) + data[-8:] if "/c." in key else data) for key, data in objects)

    monkeypatch.setattr(store._files, "put_all", bad_disk)
    with pytest.raises(StoreError, match=r"sub-01_ses-1 field: .*has been altered.*just after it was written"):
        write()
    assert store.commit(scan, "field", KEY) is None


def test_leftovers_of_dead_attempts_are_ignored(store: CohortStore, scan: ScanKey, write: Write) -> None:
    folder = store.place.folder / "scans" / str(scan) / "field" / KEY
    (folder / "deadbeef" / "phase").mkdir(parents=True)
    (folder / "deadbeef" / "phase" / "c.0.0.0.0").write_bytes(b"half")
    (folder / ".COMMIT.json.1234").write_bytes(b"{")
    assert store.commit(scan, "field", KEY) is None
    assert store.committed(scan) == []
    commit = write()
    assert store.committed(scan) == [("field", KEY)]
    assert store.verify(commit) == []


def test_two_writers_of_one_node_leave_one_whole_commit(
    store: CohortStore, scan: ScanKey, write: Write, arrays: dict[str, NDArray[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    rival = CohortStore.open(store.place.folder)
    publish = nodes_module._publish

    def late(files: Any, commit: Any) -> None:
        if files is store._files:
            rival.write(scan, "field", KEY, arrays, attributes={"by": "rival"}, provenance={}, seconds=0, peak_bytes=0)
        publish(files, commit)

    monkeypatch.setattr(nodes_module, "_publish", late)
    mine = write(attributes={"by": "me"})
    assert rival.commit(scan, "field", KEY) == mine
    assert rival.verify(mine) == []
    np.testing.assert_array_equal(rival.read(mine)["phase"], arrays["phase"])


_RACER = """
import sys
import numpy as np
from qsm_dask.place import Place
from qsm_dask.scan import ScanKey
from qsm_dask.store import CohortStore
store, scan, key, seed = CohortStore.open(sys.argv[1]), ScanKey.parse(sys.argv[2]), sys.argv[3], int(sys.argv[4])
for _ in range(20):
    chi = np.full((20, 20, 20), seed, np.float32)
    store.write(scan, "field", key, {"chi": chi}, attributes={"seed": seed}, provenance={}, seconds=0, peak_bytes=0)
    commit = store.commit(scan, "field", key)
    assert (store.read(commit)["chi"] == commit.attributes["seed"]).all()
"""


@pytest.mark.slow
def test_processes_racing_on_one_node_leave_one_whole_commit(store: CohortStore, scan: ScanKey) -> None:
    command = [sys.executable, "-c", _RACER, str(store.place.folder), str(scan), KEY]
    racers = [subprocess.Popen([*command, str(seed)]) for seed in range(4)]
    assert [racer.wait() for racer in racers] == [0, 0, 0, 0]
    commit = store.commit(scan, "field", KEY)
    assert commit is not None
    assert store.verify(commit) == []
    assert commit.attributes["seed"] in range(4)


# A reader whose attempt is swept away while it reads.


def _sweep(store: CohortStore, folder: str) -> None:
    store._files.remove(folder)


def test_a_reader_that_loses_its_attempt_follows_the_new_commit(
    write: Write, store: CohortStore, arrays: dict[str, NDArray[Any]]
) -> None:
    old = write()
    write()
    _sweep(store, old.folder)
    np.testing.assert_array_equal(store.read(old)["phase"], arrays["phase"])
    np.testing.assert_array_equal(store.read_rows(old, "phase", slice(2, 3)), arrays["phase"][2:])


def test_a_reader_is_not_given_another_result_instead(write: Write, store: CohortStore) -> None:
    old = write({"chi": np.zeros((2, 2, 2), np.float32)})
    write({"chi": np.ones((2, 2, 2), np.float32)})
    _sweep(store, old.folder)
    with pytest.raises(StoreError, match="another result took its place"):
        store.read(old)


def test_a_reader_gives_up_when_no_new_commit_came(write: Write, store: CohortStore) -> None:
    commit = write()
    _sweep(store, commit.folder)
    with pytest.raises(DamageError, match=r"sub-01_ses-1 field: .*zarr.json is missing and .* more"):
        store.read(commit)
