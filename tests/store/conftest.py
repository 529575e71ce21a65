"""A small cohort, and arrays that look like those of its nodes."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from qsm_dask.scan import ScanKey
from qsm_dask.store import CohortStore, Commit

KEY = "0123456789abcdef"
Write = Callable[..., Commit]


@pytest.fixture
def scan() -> ScanKey:
    return ScanKey.parse("sub-01_ses-1")


@pytest.fixture
def store(tmp_path: Path) -> CohortStore:
    return CohortStore.create(tmp_path / "cohort")


@pytest.fixture
def arrays() -> dict[str, NDArray[Any]]:
    """Three echoes, a mask with an empty chunk's worth of zeros, and a label image."""
    rng = np.random.default_rng(7)
    return {
        "phase": rng.normal(size=(3, 6, 5, 4)).astype(np.float32),
        "mask": np.zeros((6, 5, 4), dtype=bool),
        "dseg": rng.integers(0, 14, size=(6, 5, 4), dtype=np.int32),
    }


@pytest.fixture
def write(store: CohortStore, scan: ScanKey, arrays: dict[str, NDArray[Any]]) -> Write:
    """Commit `arrays` (or others) as node `field` of the scan."""

    def commit(values: Mapping[str, NDArray[Any]] | None = None, **changes: Any) -> Commit:
        given = {
            "scan": scan,
            "node": "field",
            "key": KEY,
            "attributes": {"labels": {"1": "caudate_left"}},
            "provenance": {"steps": ["mask.magnitude"]},
            "seconds": 1.5,
            "peak_bytes": 1000,
            **changes,
        }
        scan_, node, key = given.pop("scan"), given.pop("node"), given.pop("key")
        return store.write(scan_, node, key, arrays if values is None else values, **given)

    return commit


def objects_of(store: CohortStore, commit: Commit) -> list[Path]:
    """Every file of a commit's attempt."""
    return sorted(path for path in (store.place.folder / commit.folder).rglob("*") if path.is_file())


def chunks_of(store: CohortStore, commit: Commit) -> list[Path]:
    """Every chunk file of a commit."""
    return [store.place.folder / commit.folder / name for entry in commit.arrays.values() for name in entry["chunks"]]


def segments_of(store: CohortStore) -> list[Path]:
    """Every segment of the index."""
    return sorted((store.place.folder / "index").glob("*.parquet"))


def flip(path: Path, byte: int, bit: int = 0) -> None:
    """Alter one bit of a file, as a bad disk or cable does."""
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(bytes(content))
