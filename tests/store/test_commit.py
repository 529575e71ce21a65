"""What a commit says, what its digests cover, and who may open what."""

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from qsm_dask.errors import DamageError, StoreError
from qsm_dask.place import Place
from qsm_dask.scan import ScanKey
from qsm_dask.store import INGEST_KEY, CohortStore
from qsm_dask.store import attempts as attempts_module
from tests.store.conftest import KEY, Write


def test_what_write_returns_is_what_commit_finds(write: Write, store: CohortStore, scan: ScanKey) -> None:
    attributes = {"te": np.array([0.01, 0.02]), "n": np.int64(3), "shape": (1, 2), "nested": {1: None}}
    provenance = {"residual": float("nan")}
    commit = write(attributes=attributes, provenance=provenance)
    assert commit == store.commit(scan, "field", KEY)
    assert commit.attributes == {"te": [0.01, 0.02], "n": 3, "shape": [1, 2], "nested": {"1": None}}
    assert commit.provenance["store_seconds"] > 0.0
    assert commit.provenance == {"residual": None, "store_seconds": commit.provenance["store_seconds"]}
    assert (commit.scan, commit.node, commit.key) == (scan, "field", KEY)
    assert (commit.seconds, commit.peak_bytes) == (1.5, 1000)
    assert commit.arrays["phase"]["dims"] == ["echo", "x", "y", "z"]
    assert commit.arrays["phase"]["units"] == "rad"
    assert pickle.loads(pickle.dumps(commit)) == commit  # noqa: S301


def test_a_node_that_was_not_written_has_no_commit(store: CohortStore, scan: ScanKey, write: Write) -> None:
    write()
    assert store.commit(scan, "field", "ffff") is None
    assert store.commit(scan, "maps", KEY) is None
    assert store.intact(scan, "maps", KEY) is None


def test_the_digest_covers_the_outputs_only(write: Write, arrays: dict[str, NDArray[Any]]) -> None:
    first = write()
    second = write(attributes={"other": 1}, provenance={"host": "b"}, seconds=9.0, key="ffff", node="maps")
    third = write(dict(reversed(arrays.items())))
    assert first.attempt != second.attempt
    assert first.digest == second.digest == third.digest


@pytest.mark.parametrize("change", ["value", "sign of zero", "shape", "name"])
def test_other_outputs_have_another_digest(write: Write, arrays: dict[str, NDArray[Any]], change: str) -> None:
    phase = arrays["phase"].copy()
    phase[0, 0, 0, 0] = 0.0
    before = write({"phase": phase})
    after = {
        "value": {"phase": phase + np.float32(1e-7)},
        "sign of zero": {"phase": np.copysign(phase, np.where(phase == 0, np.float32(-1), phase))},
        "shape": {"phase": phase.transpose(0, 2, 1, 3).reshape(3, 5, 6, 4)},
        "name": {"magnitude": phase},
    }
    assert write(after[change]).digest != before.digest


def test_arrays_digest_does_not_hide_a_reshape(write: Write) -> None:
    values = np.arange(24, dtype=np.float32)
    flat = write({"chi": values.reshape(2, 3, 4)})
    assert write({"chi": values.reshape(4, 3, 2)}).digest != flat.digest


def test_an_attribute_that_is_no_json_is_refused_before_anything_is_written(write: Write, store: CohortStore) -> None:
    with pytest.raises(StoreError, match=r"sub-01_ses-1 field: PosixPath.* cannot be kept as JSON"):
        write(attributes={"file": Path("a")})
    assert not (store.place.folder / "scans").exists()


@pytest.mark.parametrize(
    ("node", "key"), [("../field", KEY), ("field", "../up"), ("field", "ABC"), ("", KEY), ("field", ""), ("a/b", KEY)]
)
def test_no_node_or_key_leaves_the_scan(store: CohortStore, scan: ScanKey, write: Write, node: str, key: str) -> None:
    with pytest.raises(StoreError, match="sub-01_ses-1"):
        store.commit(scan, node, key)
    with pytest.raises(StoreError, match="sub-01_ses-1"):
        write(node=node, key=key)


def test_a_crafted_scan_key_does_not_leave_the_cohort(store: CohortStore, write: Write) -> None:
    crafted = object.__new__(ScanKey)
    object.__setattr__(crafted, "entities", (("sub", "01/../../../x"),))
    object.__setattr__(crafted, "suffix", "MEGRE")
    with pytest.raises(StoreError, match="is no path inside a cohort"):
        write(scan=crafted)


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


def test_an_ingest_is_replaced_when_its_inputs_change(write: Write, store: CohortStore, scan: ScanKey) -> None:
    write({"chi": np.zeros((2, 2, 2), np.float32)}, node="ingest", key=INGEST_KEY)
    write({"chi": np.ones((2, 2, 2), np.float32)}, node="ingest", key=INGEST_KEY)
    commit = store.commit(scan, "ingest", INGEST_KEY)
    assert commit is not None
    np.testing.assert_array_equal(store.read(commit)["chi"], np.ones((2, 2, 2)))


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
            "_check_written": (store, "_check_written"),
            "_publish": (store, "_publish"),
        }
        patch.setattr(*owners[step], die)
        with pytest.raises(Killed):
            write()
    assert store.commit(scan, "field", KEY) is None
    commit = write()
    assert store.intact(scan, "field", KEY) == commit
    assert store.verify(commit) == []


def test_a_failed_attempt_frees_its_space(store: CohortStore, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(commit: object) -> None:
        raise StoreError("broken")

    monkeypatch.setattr(store, "_check_written", fail)
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
    publish = store._publish

    def late(commit: Any) -> None:
        rival.write(scan, "field", KEY, arrays, attributes={"by": "rival"}, provenance={}, seconds=0, peak_bytes=0)
        publish(commit)

    monkeypatch.setattr(store, "_publish", late)
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


# Cohorts.


def test_create_is_idempotent_and_open_finds_it(tmp_path: Path) -> None:
    store = CohortStore.create(tmp_path / "a" / "b")
    again = CohortStore.create(store.place.folder)
    assert again.place == CohortStore.open(store.place.url).place == Place(f"{tmp_path}/a/b")
    assert repr(store) == f"CohortStore('{tmp_path}/a/b')"


def test_a_relative_path_stays_the_same_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = CohortStore.create("cohort")
    assert store.place.folder == tmp_path / "cohort"


def test_open_says_what_to_do_where_there_is_no_cohort(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"is no cohort: it has no cohort.json; `qsm-dask ingest BIDS .*` makes one"):
        CohortStore.open(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_create_does_not_settle_in_a_folder_with_other_things(tmp_path: Path) -> None:
    (tmp_path / "sub-01").mkdir()
    with pytest.raises(StoreError, match="is no cohort and holds sub-01; name a new or empty place"):
        CohortStore.create(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"), [({"format": 99}, "has format 99 .* install a newer"), ({}, "is damaged"), ([], "is damaged")]
)
def test_a_cohort_that_cannot_be_understood_is_not_opened(store: CohortStore, content: object, words: str) -> None:
    (store.place.folder / "cohort.json").write_text(json.dumps(content))
    with pytest.raises(StoreError, match=words):
        CohortStore.open(store.place.folder)


def test_a_store_travels_to_workers(write: Write, store: CohortStore, scan: ScanKey) -> None:
    commit = write()
    there = pickle.loads(pickle.dumps(store))  # noqa: S301
    assert there.commit(scan, "field", KEY) == commit
    store.record([commit.row()])
    there.record([commit.row()])
    assert len(list((store.place.folder / "index").iterdir())) == 2


# Documents.


def test_documents_are_replaced_whole(store: CohortStore) -> None:
    assert store.read_document("tables/regions.parquet") is None
    store.write_document("tables/regions.parquet", b"1")
    store.write_document("tables/regions.parquet", b"22")
    assert store.read_document("tables/regions.parquet") == b"22"


@pytest.mark.parametrize("name", ["scans/x", "index/a.parquet", "cohort.json", "../x", "/etc/x", "a/../cohort.json"])
def test_a_document_cannot_touch_what_is_the_stores(store: CohortStore, name: str) -> None:
    with pytest.raises(StoreError, match=r"belongs to the store|is no path inside"):
        store.write_document(name, b"")
