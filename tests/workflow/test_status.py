"""Where scans stand: done, failed, skipped, pending, and what an old pipeline left."""

from pathlib import Path

import pytest

from qsm_dask.engine import SerialEngine
from qsm_dask.pipeline import Pipeline
from qsm_dask.store import CohortStore
from qsm_dask.workflow import process, status
from tests.workflow import cohorts
from tests.workflow.cohorts import PIPELINE


def states(found: status.Status) -> dict[str, str]:
    return {row["node"]: row["state"] for row in found.rows}


def test_a_scan_that_is_done(tmp_path: Path) -> None:
    cohort = cohorts.create(tmp_path)
    ingested = cohorts.add(cohort, "sub-01", {0: 0.0, 1: 0.1}, {0: 20.0, 1: 25.0})
    found = status.run(cohort)
    assert found.all_done
    assert [row["node"] for row in found.rows] == ["ingest", "maps", "regions"]
    assert found.rows[0] == {
        "scan": "sub-01",
        "node": "ingest",
        "state": "done",
        "digest": ingested.digest,
        "seconds": 1.0,
        "peak_bytes": 10_000_000,
        "reason": "",
    }
    assert [(row["seconds"], row["peak_bytes"]) for row in found.rows[1:]] == [(2.0, 30_000_000), (0.5, 20_000_000)]
    assert all(len(row["digest"]) == 32 for row in found.rows)


def test_sources_tell_raw_files_derivatives_and_what_was_computed(tmp_path: Path) -> None:
    cohort = cohorts.create(tmp_path)
    cohorts.add(cohort, "sub-01", {0: 0.0})
    sources = {row["quantity"]: row for row in status.run(cohort).sources}
    assert (sources["phase"]["from"], sources["phase"]["files"]) == ("raw", ["sub-01_phase.nii.gz"])
    assert (sources["mask"]["from"], sources["mask"]["files"]) == ("derivatives", ["manual/sub-01_mask.nii.gz"])
    assert (sources["chi"]["from"], sources["chi"]["node"]) == ("computed", "maps")


def test_steps_that_a_scan_cannot_have_are_told(tmp_path: Path) -> None:
    cohort = cohorts.create(tmp_path)
    cohorts.add(cohort, "sub-01", {0: 0.0}, te=(0.004,))
    (row,) = [row for row in status.run(cohort).left_out if "relaxometry" in row["reason"]]
    assert row["scan"] == "sub-01"
    assert row["reason"].startswith("relaxometry.loglinear: ")


@pytest.mark.parametrize(("state", "all_done"), [("failed", False), ("skipped", True)])
def test_a_scan_that_ends_at_ingest(tmp_path: Path, state: str, all_done: bool) -> None:
    cohort = cohorts.create(tmp_path)
    cohorts.record(cohort, "sub-02", "ingest", state, "echo 2 is truncated")
    found = status.run(cohort)
    assert [(row["node"], row["state"], row["reason"]) for row in found.rows] == [
        ("ingest", state, "echo 2 is truncated")
    ]
    assert found.all_done is all_done


def lose_index(cohort: CohortStore) -> None:
    for segment in cohort.place.folder.glob("index/*.parquet"):
        segment.unlink()


def test_scans_that_a_killed_driver_did_not_record_are_found_all_the_same(tmp_path: Path) -> None:
    """Their commits are there; the index knows of another scan only."""
    cohort = cohorts.create(tmp_path)
    cohorts.add(cohort, "sub-01", {0: 0.0})
    lose_index(cohort)
    begun = tmp_path / "scans" / "sub-03" / "ingest" / "input" / "attempt"
    begun.mkdir(parents=True)  # of a scan whose ingest was cut short
    cohort = CohortStore.open(tmp_path)
    cohorts.record(cohort, "sub-02", "ingest", "skipped", "no phase")
    found = status.run(cohort)
    assert [(row["scan"], row["node"], row["state"]) for row in found.rows] == [
        *(("sub-01", node, "done") for node in ("ingest", "maps", "regions")),
        ("sub-02", "ingest", "skipped"),
        ("sub-03", "ingest", "pending"),
    ]
    assert "run `qsm-dask ingest` again" in found.rows[-1]["reason"]
    assert not found.all_done


def test_a_run_records_what_the_index_has_missed(tmp_path: Path) -> None:
    cohort = cohorts.create(tmp_path)
    cohorts.add(cohort, "sub-01", {0: 0.0})
    lose_index(cohort)
    cohort = CohortStore.open(tmp_path)
    summary = process.run(cohort, SerialEngine(2**32), Pipeline.from_mapping(PIPELINE))
    assert (summary.done, summary.computed) == (1, 0)
    assert set(cohort.index()["node"]) == {"ingest", "maps", "regions"}


def test_a_node_that_failed_and_the_one_that_waits_for_it(tmp_path: Path) -> None:
    cohort = cohorts.create(tmp_path)
    key = cohorts.keys(cohorts.ingest(cohort, "sub-01"))["maps"]
    cohorts.record(cohort, "sub-01", "maps", "failed", "inversion.tkd: the mask is empty", key)
    found = status.run(cohort)
    assert states(found) == {"ingest": "done", "maps": "failed", "regions": "pending"}
    assert [row["reason"] for row in found.rows[1:]] == [
        "inversion.tkd: the mask is empty",
        "waits for maps, which is failed",
    ]
    assert not found.all_done


def test_a_worker_that_died_has_no_key_and_is_a_failure(tmp_path: Path) -> None:
    cohort = cohorts.create(tmp_path)
    cohorts.ingest(cohort, "sub-01")
    cohorts.record(cohort, "sub-01", "maps", "failed", "the worker died")
    assert states(status.run(cohort))["maps"] == "failed"


def test_ingested_and_not_processed(tmp_path: Path) -> None:
    cohort = cohorts.create(tmp_path, pipeline=None)
    cohorts.ingest(cohort, "sub-01")
    found = status.run(cohort)
    assert states(found) == {"ingest": "done", "field": "pending"}
    assert not found.all_done


def test_results_of_another_pipeline_or_of_older_inputs_do_not_count(tmp_path: Path) -> None:
    cohort = cohorts.create(tmp_path)
    cohorts.add(cohort, "sub-01", {0: 0.0})
    cohorts.add(cohort, "sub-02", {0: 0.0})
    cohorts.ingest(cohort, "sub-02", seed=1)  # another file came
    found = status.run(cohort)
    pending = {(row["scan"], row["node"]) for row in found.rows if row["state"] == "pending"}
    assert pending == {("sub-02", "maps"), ("sub-02", "regions")}
    steps = [{"inversion.tkd": {"threshold": 0.1}} if "inversion.tkd" in step else step for step in PIPELINE["steps"]]
    cohorts.create(tmp_path, PIPELINE | {"steps": steps})
    assert {row["state"] for row in status.run(cohort).rows if row["node"] == "regions"} == {"pending"}


def test_a_commit_that_the_index_does_not_know_counts(tmp_path: Path) -> None:
    """The index is a cache: here its last word on the node is a failure that a rival's commit has overtaken."""
    cohort = cohorts.create(tmp_path)
    cohorts.add(cohort, "sub-01", {0: 0.0})
    cohorts.record(cohort, "sub-01", "maps", "failed", "the worker died")
    found = status.run(cohort)
    assert found.all_done
    assert states(found)["maps"] == "done"


def test_an_empty_cohort(tmp_path: Path) -> None:
    found = status.run(cohorts.create(tmp_path))
    assert (found.rows, found.sources, found.all_done) == ([], [], True)
