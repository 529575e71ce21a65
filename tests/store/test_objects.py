"""A cohort in a real object store; what every backend must do stands in `test_files.py`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from obstore.store import from_url
from zarr.storage import ObjectStore

from qsm_dask.errors import DamageError, StoreError
from qsm_dask.place import Place
from qsm_dask.scan import ScanKey
from qsm_dask.store import CohortStore
from qsm_dask.store.files import files_at

KEY = "0123456789abcdef"


@pytest.fixture
def arrays() -> Mapping[str, NDArray[Any]]:
    rng = np.random.default_rng(7)
    return {"phase": rng.normal(size=(3, 6, 5, 4)).astype(np.float32), "mask": np.zeros((6, 5, 4), dtype=bool)}


def _write(store: CohortStore, scan: ScanKey, arrays: Mapping[str, NDArray[Any]]) -> Any:
    return store.write(scan, "field", KEY, arrays, attributes={}, provenance={}, seconds=1.0, peak_bytes=1)


def test_a_node_is_committed_read_verified_and_found_again(
    s3_url: str, scan: ScanKey, arrays: Mapping[str, NDArray[Any]]
) -> None:
    store = CohortStore.create(s3_url)
    commit = _write(store, scan, arrays)
    store.record([commit.row()])
    again = CohortStore.open(s3_url)
    assert again.intact(scan, "field", KEY) == commit
    assert again.verify(commit) == []
    assert list(again.index()["scan"]) == [str(scan)]
    for name, values in again.read(commit).items():
        np.testing.assert_array_equal(values, arrays[name])


def test_any_zarr_reader_opens_an_attempt_in_place(
    s3_url: str, scan: ScanKey, arrays: Mapping[str, NDArray[Any]]
) -> None:
    commit = _write(CohortStore.create(s3_url), scan, arrays)
    place = ObjectStore(from_url(f"{s3_url}/{commit.folder}", client_options={"allow_http": True}), read_only=True)
    phase = zarr.open_group(place, mode="r")["phase"]
    assert isinstance(phase, zarr.Array)
    np.testing.assert_array_equal(np.asarray(phase[...]), arrays["phase"])


def test_damage_names_the_object(s3_url: str, scan: ScanKey, arrays: Mapping[str, NDArray[Any]]) -> None:
    store = CohortStore.create(s3_url)
    commit = _write(store, scan, arrays)
    place = f"{commit.folder}/phase/c.1.0.0.0"
    files = files_at(Place.parse(s3_url))
    sound = files.get(place)
    assert sound is not None
    files.put(place, sound[:-9] + bytes([sound[-9] ^ 1]) + sound[-8:])
    with pytest.raises(DamageError, match=rf"sub-01_ses-1 field: {s3_url}/{place} has been altered"):
        store.read(commit)
    files.remove(place)
    assert store.intact(scan, "field", KEY) is None


def test_wrong_credentials_are_named_as_such(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    for use in (
        lambda: CohortStore.open(s3_url),
        lambda: CohortStore.create(s3_url),
        lambda: files_at(Place.parse(s3_url)).names(""),
    ):
        with pytest.raises(StoreError, match="access is denied; check the credentials") as caught:
            use()
        assert "wrong" not in str(caught.value)
