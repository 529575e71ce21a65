"""What is a cohort and what is none, how one travels, and the documents that it keeps."""

import json
import pickle
from pathlib import Path

import pytest

from qsm_dask.errors import StoreError
from qsm_dask.place import Place
from qsm_dask.scan import ScanKey
from qsm_dask.store import CohortStore
from tests.store.conftest import KEY, Write


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
    ("content", "words"),
    [
        ({"format": 99}, "has format 99 .* install a newer"),
        ({"format": 1}, "has format 1, of an older .* ingest the dataset into a new place"),
        ({}, "is damaged"),
        ([], "is damaged"),
    ],
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
