"""What a commit says, what its digests cover, and what it is given to hold."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from qsm_dask.errors import StoreError
from qsm_dask.scan import ScanKey
from qsm_dask.store import INGEST_KEY, CohortStore
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


def test_an_ingest_is_replaced_when_its_inputs_change(write: Write, store: CohortStore, scan: ScanKey) -> None:
    write({"chi": np.zeros((2, 2, 2), np.float32)}, node="ingest", key=INGEST_KEY)
    write({"chi": np.ones((2, 2, 2), np.float32)}, node="ingest", key=INGEST_KEY)
    commit = store.commit(scan, "ingest", INGEST_KEY)
    assert commit is not None
    np.testing.assert_array_equal(store.read(commit)["chi"], np.ones((2, 2, 2)))
