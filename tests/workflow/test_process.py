"""Processing a tiny simulated cohort: resume, refusal, failure, and the same bits whoever runs it."""

import json
from pathlib import Path

import pytest

from qsm_dask.engine import SerialEngine
from qsm_dask.errors import ConfigError
from qsm_dask.pipeline import Pipeline
from qsm_dask.shard import Shard
from qsm_dask.store import CohortStore
from qsm_dask.store.documents import PIPELINE
from qsm_dask.workflow import compare, ingest, process, simulate, status

SHAPE = (32, 32, 24)
ROOM = 4 * 2**30
NODES = ["field", "maps", "regions"]


@pytest.fixture(scope="module")
def bids(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bids")
    simulate.run(folder, subjects=2, seed=3, shape=SHAPE)
    return folder


@pytest.fixture
def cohort(bids, tmp_path) -> CohortStore:
    store = CohortStore.create(tmp_path / "cohort")
    ingest.run(bids, store, SerialEngine(ROOM), derivatives=[f"{bids / 'derivatives' / 'truth'}:dseg"])
    return store


def run(cohort, pipeline="consensus", room=ROOM, **options):
    return process.run(cohort, SerialEngine(room), Pipeline.from_yaml(pipeline), **options)


def markers(cohort) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in cohort.place.folder.glob("scans/*/*/*/COMMIT.json")}


def test_both_shipped_pipelines_run(cohort):
    for pipeline in ("consensus", "fast"):
        summary = run(cohort, pipeline)
        assert (summary.done, summary.failures) == (2, {})


@pytest.mark.parametrize("last", NODES)
def test_a_run_that_dies_in_a_node_goes_on_from_there(cohort, monkeypatch, last):
    """The disk fails while the node `last` of the first scan is written; then the run is repeated."""
    write = CohortStore.write

    def failing(self, scan, node, *rest, **options):
        if node == last and str(scan) == "sub-01":
            raise OSError("no space left on device")
        return write(self, scan, node, *rest, **options)

    monkeypatch.setattr(CohortStore, "write", failing)
    summary = run(cohort, retries=0)
    assert summary.done == 1
    assert "no space left" in summary.failures["sub-01"]
    monkeypatch.undo()
    (failed,) = [row for row in status.run(cohort).rows if row["state"] == "failed"]
    assert (failed["scan"], failed["node"]) == ("sub-01", last)
    assert "no space left" in failed["reason"]
    before = markers(cohort)
    again = run(cohort)
    assert (again.done, again.failures) == (2, {})
    assert again.computed == len(NODES) - NODES.index(last)
    assert {path: markers(cohort)[path] for path in before} == before


def test_an_unreadable_ingest_costs_its_scan_and_not_the_cohort(cohort):
    with (cohort.place.folder / "scans/sub-01/ingest/input/COMMIT.json").open("ab") as file:
        file.write(b"x")
    summary = run(cohort, "fast")
    assert summary.done == 1
    assert "sub-01 ingest" in summary.failures["sub-01"]
    found = {row["scan"]: row for row in status.run(cohort).rows if row["node"] in ("ingest", "regions")}
    assert (found["sub-01"]["state"], found["sub-02"]["state"]) == ("failed", "done")
    assert "cannot be read" in found["sub-01"]["reason"]
    compared = compare.run(cohort)
    assert (compared.with_values, list(compared.without)) == (1, ["sub-01"])


def test_a_table_with_a_flipped_bit_is_told_and_computed_again(cohort):
    """Its size is right: only decoding it shows that it is damaged."""
    run(cohort, "fast")
    chunk = next(cohort.place.folder.glob("scans/sub-02/regions/*/*/region_values/c.*"))
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    compared = compare.run(cohort)
    assert list(compared.damaged) == ["sub-02"]
    rows = cohort.read_document("tables/scans.tsv").decode().splitlines()
    assert [line.split("\t")[3] for line in rows[1:]] == ["done", "failed"]
    assert run(cohort, "fast").computed == 1
    assert compare.run(cohort).damaged == {}


def test_another_pipeline_for_some_scans_warns_of_the_others(cohort, caplog):
    run(cohort, "fast")
    assert not caplog.records
    run(cohort, "consensus", participants=["01"])
    assert "scans outside this selection are pending" in caplog.text


def test_a_damaged_node_is_computed_again_and_comes_out_equal(cohort):
    run(cohort)
    digests = {(row.scan, row.node): row.digest for row in cohort.index().itertuples()}
    chunk = next(cohort.place.folder.glob("scans/sub-01/maps/*/*/chi/c.*"))
    chunk.unlink()
    assert run(cohort).computed == 1
    assert {(row.scan, row.node): row.digest for row in cohort.index().itertuples()} == digests


def test_a_scan_too_large_for_a_worker_is_refused_before_it_runs(cohort):
    summary = run(cohort, room=1000)
    assert summary.done == 0
    assert "needs" in summary.failures["sub-01"]
    assert "memory" in summary.failures["sub-01"]


def test_a_kernel_that_refuses_is_a_row_with_scan_step_and_reason(cohort, tmp_path):
    source = dict(Pipeline.from_yaml("consensus").source)
    step = {"reference.region": {"labels": [99999]}}
    source["steps"] = [step if name == "reference.whole_brain" else name for name in source["steps"]]
    mine = tmp_path / "mine.yaml"
    mine.write_text(json.dumps(source))
    summary = run(cohort, mine)
    assert summary.done == 0
    assert "reference.region" in summary.failures["sub-01"]
    states = {row.node: row.state for row in cohort.index().itertuples() if row.scan == "sub-01"}
    assert states == {"ingest": "done", "field": "done", "maps": "failed"}


def test_provenance_names_every_step_with_its_parameters(cohort):
    run(cohort)
    scan = cohort.scans()[0]
    (row,) = [row for row in cohort.index().itertuples() if row.scan == str(scan) and row.node == "maps"]
    steps = cohort.commit(scan, "maps", row.key).provenance["steps"]
    inversion = next(step for step in steps if step["stage"].startswith("inversion."))
    assert inversion["parameters"]
    assert inversion["solved"]["iterations"] > 0
    assert inversion["cite"].startswith("10.")


def with_steps(change, tmp_path):
    """The consensus pipeline with a step replaced by others, as a file."""
    source = dict(Pipeline.from_yaml("consensus").source)
    source["steps"] = [new for step in source["steps"] for new in change.get(str(step), [step])]
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps(source))
    return path


def test_a_mask_narrowed_after_the_maps_is_read_again_in_the_right_version(cohort, tmp_path):
    steps = {"reference.whole_brain": [{"mask.erode": {"depth_mm": 8.0}}, "reference.whole_brain"]}
    mine = with_steps(steps, tmp_path)
    run(cohort, mine)
    digests = {(row.scan, row.node): row.digest for row in cohort.index().itertuples()}
    for node in ("field", "regions"):
        next(cohort.place.folder.glob(f"scans/sub-01/{node}/*/COMMIT.json")).unlink()
    assert run(cohort, mine).computed == 2
    assert {(row.scan, row.node): row.digest for row in cohort.index().itertuples()} == digests


def test_views_and_tables_hold_results_of_the_last_pipeline_only(cohort, tmp_path):
    run(cohort, "fast")
    mine = with_steps({"inversion.rts": [{"inversion.tkd": {"threshold": 0.25}}]}, tmp_path)
    run(cohort, mine, participants=["01"])
    assert cohort.dataset()["scan"].values.tolist() == ["sub-01"]
    assert "chi" not in cohort.scan("sub-02")
    assert compare.run(cohort).with_values == 1


def test_tables_name_the_reference_of_the_map_itself(cohort, tmp_path):
    branch = {
        "reference.region": {"labels": [1], "writes": {"chi": "chi_caudate", "chi_reference": "chi_reference_caudate"}}
    }
    run(cohort, with_steps({"reference.whole_brain": ["reference.whole_brain", branch]}, tmp_path))
    compare.run(cohort)
    header, first, *_ = cohort.read_document("tables/regions.tsv").decode().splitlines()
    assert dict(zip(header.split("\t"), first.split("\t"), strict=True))["chi_reference"] == "whole_brain"


def test_a_typing_error_does_not_change_the_cohorts_pipeline(cohort):
    run(cohort)
    with pytest.raises(ConfigError):
        run(cohort, "fast", participants=["nobody"])
    assert status.run(cohort).all_done


def test_a_filter_that_matches_nothing_is_an_error(cohort):
    with pytest.raises(ConfigError, match="no scan of .* matches nobody"):
        run(cohort, participants=["nobody"])
    assert run(cohort, participants=["sub-02"]).done == 1


def test_a_cohort_without_scans_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="qsm-dask ingest"):
        run(CohortStore.create(tmp_path / "empty"))


def test_a_package_that_a_step_needs_is_missed_before_any_scan_runs(cohort, monkeypatch):
    steps = [{"mask.bet": {"iterations": 5}}, *("unwrap.laplacian", "field.weighted_mean", "background.vsharp")]
    pipeline = Pipeline.from_mapping({"name": "bet", "steps": [*steps, "inversion.tkd"]})
    monkeypatch.setattr("qsm_dask.engine.packages.find_spec", lambda name: None)
    for shard in (None, Shard(1, 2)):
        with pytest.raises(ConfigError, match=r"brainextractor: pip install 'qsm-dask\[anatomy\]'"):
            process.run(cohort, SerialEngine(ROOM), pipeline, shard=shard)
    assert cohort.read_document(PIPELINE) is None
    run(cohort, "fast")  # which needs no more than every installation has
