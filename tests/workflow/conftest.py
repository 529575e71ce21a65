"""An empty BIDS dataset and an empty cohort; modules that need others have their own."""

from pathlib import Path

import pytest

from qsm_dask.store import CohortStore
from tests.io.bids_tree import dataset


@pytest.fixture
def cohort(tmp_path: Path) -> CohortStore:
    return CohortStore.create(tmp_path / "cohort")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return dataset(tmp_path / "bids")
