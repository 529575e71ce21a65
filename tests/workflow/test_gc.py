"""Sweeping a cohort: listed unless asked to remove, results only when the present ones are whole."""

from pathlib import Path

import pytest

from qsm_dask.errors import ConfigError
from qsm_dask.scan import ScanKey
from qsm_dask.store import CohortStore
from qsm_dask.workflow import gc, verify
from tests.store.test_sweep import age, orphan
from tests.workflow import cohorts

MEDIANS = {0: 0.0, 1: 0.06}


@pytest.fixture
def cohort(tmp_path: Path) -> CohortStore:
    """Two scans done by one pipeline, the first of them by the next one too; everything is two days old."""
    made = cohorts.create(tmp_path / "cohort")
    cohorts.add(made, "sub-01", MEDIANS)
    cohorts.add(made, "sub-02", MEDIANS)
    steps = [
        {"inversion.tkd": {"threshold": 0.1}} if "inversion.tkd" in step else step for step in cohorts.PIPELINE["steps"]
    ]
    changed = cohorts.PIPELINE | {"steps": steps}
    cohorts.create(made.place.folder, changed)
    first = made.commit(ScanKey.parse("sub-01"), "ingest", "input")
    assert first is not None
    keys = cohorts.keys(first, changed)
    cohorts.maps(made, first, keys["maps"])
    cohorts.regions(made, first, keys["regions"], list(MEDIANS), cohorts.values(MEDIANS))
    age(made.place.folder / "scans", 48)
    return made


def test_a_dry_run_lists_and_removes_nothing(cohort: CohortStore) -> None:
    dead = orphan(cohort, ScanKey.parse("sub-02"), "dead", hours=48)
    seen: list[tuple[int, int, str]] = []
    summary = gc.run(cohort, progress=lambda *step: seen.append(step))
    ((one,), removed) = summary.found, summary.removed
    assert (str(one.scan), one.kind, summary.size, removed) == ("sub-02", "orphan", 1000, False)
    assert dead.is_dir()
    assert seen == [(1, 2, "sub-01"), (2, 2, "sub-02")]


def test_attempts_of_a_scan_that_the_index_does_not_know_are_found(cohort: CohortStore) -> None:
    """Its driver was killed before it recorded anything."""
    dead = orphan(cohort, ScanKey.parse("sub-09"), "dead", hours=48)
    summary = gc.run(cohort, delete=True)
    assert [str(one.scan) for one in summary.found] == ["sub-09"]
    assert not dead.exists()


def test_only_results_whose_successors_are_whole_are_superseded(cohort: CohortStore) -> None:
    """The second scan was not processed again: what it has is all it has."""
    assert gc.run(cohort, delete=True).found == ()
    summary = gc.run(cohort, superseded=True, delete=True)
    assert [(str(one.scan), one.node) for one in summary.found] == [("sub-01", "maps"), ("sub-01", "regions")]
    assert len(cohort.committed(ScanKey.parse("sub-01"))) == 3
    assert len(cohort.committed(ScanKey.parse("sub-02"))) == 3
    assert verify.run(cohort) == []


def test_nothing_is_superseded_by_a_result_that_is_torn(cohort: CohortStore) -> None:
    present = cohort.index().set_index(["scan", "node"])["key"]
    chunk = next((cohort.place.folder / "scans/sub-01/maps" / str(present["sub-01", "maps"])).glob("*/chi/c*"))
    chunk.unlink()
    assert [one.node for one in gc.run(cohort, superseded=True).found] == ["regions"]


def test_young_results_stay(cohort: CohortStore) -> None:
    orphan(cohort, ScanKey.parse("sub-02"), "dead", hours=48)
    assert gc.run(cohort, superseded=True, older_than_h=72.0).found == ()
    with pytest.raises(ConfigError, match="--older-than -1: give hours"):
        gc.run(cohort, older_than_h=-1.0)
