"""Bits flip, files are cut short and vanish: everything is found, named, and never read as values."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from qsm_dask.errors import DamageError
from qsm_dask.scan import ScanKey
from qsm_dask.store import CohortStore, Commit
from qsm_dask.store import nodes as nodes_module
from tests.store.conftest import KEY, Write, chunks_of, flip, objects_of


def told(store: CohortStore, commit: Commit) -> list[str]:
    return [str(damage) for damage in store.verify(commit)]


@pytest.fixture
def noise(scan: ScanKey) -> dict[str, NDArray[Any]]:
    """Values that Blosc cannot pack: where it would give wrong values rather than complain."""
    return {"phase": np.random.default_rng(3).normal(size=(2, 8, 8, 8)).astype(np.float32)}


def test_a_flipped_bit_in_any_object_is_found_and_named(write: Write, store: CohortStore) -> None:
    commit = write()
    arrays_only = [path for path in objects_of(store, commit) if path.parent.name != commit.attempt]
    assert len(arrays_only) == 8
    for path in arrays_only:
        size = path.stat().st_size
        for byte in {0, size // 2, size - 5, size - 1}:
            flip(path, byte)
            assert told(store, commit) == [f"sub-01_ses-1 field: {path} has been altered: its checksum does not fit"], (
                byte
            )
            with pytest.raises(DamageError, match=rf"sub-01_ses-1 field: {path}.*qsm-dask verify .* with `--repair`"):
                store.read(commit)
            flip(path, byte)
    assert store.verify(commit) == []


def test_every_flipped_bit_of_a_chunk_is_found(
    write: Write, store: CohortStore, noise: dict[str, NDArray[Any]]
) -> None:
    commit = write(noise)
    path = chunks_of(store, commit)[1]
    missed = []
    for byte in range(0, path.stat().st_size, 7):
        flip(path, byte, byte % 8)
        if store.verify(commit) == []:
            missed.append(byte)
        flip(path, byte, byte % 8)
    assert missed == []


def test_truncated_and_missing_objects_are_found_by_their_size_alone(write: Write, store: CohortStore) -> None:
    commit = write()
    for path in objects_of(store, commit):
        if path.parent.name == commit.attempt:
            continue
        content = path.read_bytes()
        for cut in (content[:-1], b""):
            path.write_bytes(cut)
            words = f"sub-01_ses-1 field: {path} has {len(cut)} bytes instead of {len(content)}"
            assert told(store, commit) == [words]
            assert not store.is_intact(commit)
            assert store.intact(commit.scan, "field", KEY) is None
            with pytest.raises(DamageError, match=f"has {len(cut)} bytes instead of {len(content)}"):
                store.read(commit)
        path.unlink()
        assert told(store, commit) == [f"sub-01_ses-1 field: {path} is missing"]
        assert not store.is_intact(commit)
        with pytest.raises(DamageError, match=f"{path} is missing"):
            store.read(commit)
        path.write_bytes(content)
    assert store.is_intact(commit)


def test_a_missing_chunk_never_reads_as_zeros(write: Write, store: CohortStore, arrays: dict[str, Any]) -> None:
    commit = write()
    (store.place.folder / commit.folder / "phase" / "c.1.0.0.0").unlink()
    phase = zarr.open_group(store.place.folder / commit.folder, mode="r")["phase"]
    assert isinstance(phase, zarr.Array)
    assert not np.any(phase[1])  # what zarr makes of it, and why the store looks first
    with pytest.raises(DamageError, match=r"c.1.0.0.0 is missing"):
        store.read(commit)
    with pytest.raises(DamageError, match=r"c.1.0.0.0 is missing"):
        store.read_rows(commit, "phase", slice(1, 2))


def test_a_whole_attempt_that_is_gone_is_named_object_by_object(write: Write, store: CohortStore) -> None:
    commit = write()
    names = [path for path in objects_of(store, commit) if path.parent.name != commit.attempt]
    shutil.rmtree(store.place.folder / commit.folder)
    assert sorted(told(store, commit)) == [f"sub-01_ses-1 field: {path} is missing" for path in names]


def test_values_exchanged_between_sound_files_are_found(
    write: Write, store: CohortStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file is sound by itself: only the digest of the whole array tells."""
    commit = write({"phase": np.random.default_rng(0).normal(size=(2, 4, 4, 4)).astype(np.float32)})
    one, two = chunks_of(store, commit)
    if one.stat().st_size != two.stat().st_size:
        pytest.fail("the chunks must have one size for this test to mean something")
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    assert not store.is_intact(commit)  # what is small is decoded
    monkeypatch.setattr(nodes_module, "_SMALL", 0)
    assert store.is_intact(commit)  # what is not small is measured only
    place = store.place.folder / commit.folder / "phase"
    assert told(store, commit) == [f"sub-01_ses-1 field: {place} decodes to other values than were committed"]


def test_all_damages_of_a_commit_are_listed(write: Write, store: CohortStore) -> None:
    commit = write()
    folder = store.place.folder / commit.folder
    flip(folder / "phase" / "c.0.0.0.0", 20)
    (folder / "phase" / "c.1.0.0.0").unlink()
    flip(folder / "phase" / "c.2.0.0.0", 20)
    flip(folder / "dseg" / "zarr.json", 5)
    found = told(store, commit)
    assert sorted(line.split()[2].removeprefix(f"{folder}/") for line in found) == [
        "dseg/zarr.json",
        "phase/c.0.0.0.0",
        "phase/c.1.0.0.0",
        "phase/c.2.0.0.0",
    ]


def test_without_a_marker_a_node_is_not_done(write: Write, store: CohortStore, scan: ScanKey) -> None:
    write()
    (store.place.folder / "scans" / str(scan) / "field" / KEY / "COMMIT.json").unlink()
    assert store.commit(scan, "field", KEY) is None
    assert store.intact(scan, "field", KEY) is None


def _marker(store: CohortStore, scan: ScanKey) -> Path:
    return store.place.folder / "scans" / str(scan) / "field" / KEY / "COMMIT.json"


def test_a_flipped_bit_in_a_marker_is_found(write: Write, store: CohortStore, scan: ScanKey) -> None:
    write()
    path = _marker(store, scan)
    for byte in range(0, path.stat().st_size, 11):
        flip(path, byte, byte % 7)
        with pytest.raises(DamageError, match=rf"sub-01_ses-1 field: {path} cannot be read: .* --repair"):
            store.commit(scan, "field", KEY)
        assert store.intact(scan, "field", KEY) is None
        flip(path, byte, byte % 7)
    assert store.intact(scan, "field", KEY) is not None


def test_a_torn_marker_is_found(write: Write, store: CohortStore, scan: ScanKey) -> None:
    write()
    path = _marker(store, scan)
    content = path.read_bytes()
    for torn in (b"", b"{}", b"[]", b"null", content[: len(content) // 2]):
        path.write_bytes(torn)
        with pytest.raises(DamageError, match="cannot be read"):
            store.commit(scan, "field", KEY)


def test_a_scan_folder_that_was_copied_to_another_name_is_found(write: Write, store: CohortStore) -> None:
    commit = write()
    shutil.copytree(store.place.folder / "scans" / "sub-01_ses-1", store.place.folder / "scans" / "sub-02_ses-1")
    with pytest.raises(DamageError, match=f"it belongs to sub-01_ses-1 field {KEY}"):
        store.commit(ScanKey.parse("sub-02_ses-1"), "field", KEY)
    assert store.verify(commit) == []


def test_a_damaged_node_can_be_written_again(write: Write, store: CohortStore, scan: ScanKey) -> None:
    damaged = write()
    chunks_of(store, damaged)[0].unlink()
    assert store.intact(scan, "field", KEY) is None
    again = write()
    assert again.digest == damaged.digest
    assert store.intact(scan, "field", KEY) == again
    assert store.verify(again) == []
