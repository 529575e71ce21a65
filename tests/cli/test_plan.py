"""`qsm-dask plan`: what it tells of a cohort and of a study that is only described."""

import pytest

from qsm_dask.phantom import DEFAULT_TE
from qsm_dask.pipeline import Pipeline
from qsm_dask.store import CohortStore
from qsm_dask.workflow import ingest, process, simulate
from tests.cli.conftest import ENGINE

CLUSTER = "kind: slurm\njobs: 4\nmemory: 2 GiB\nnode: {count: 3, cpus: 8, memory: 16 GiB, price: 2.0}\n"


@pytest.fixture
def described(study, tmp_path):
    (tmp_path / "mine.yaml").write_text(CLUSTER)
    options = ("--scans", 100, "--shape", 32, 32, 24, "--voxel-size", 6, 7, 6.7, "--echoes", len(DEFAULT_TE))
    return (*options, "--measured", study.place, "-c", tmp_path / "mine.yaml")


def test_a_cohort_that_is_done_costs_nothing(told, study):
    found = told("plan", study.place)
    assert (found["done"], found["scans"], found["wall_hours"], found["store_objects"]) == (2, 0, 0.0, 0)


def test_a_study_costs_what_scans_of_its_kind_did(told, study, described):
    found = told("plan", *described)
    assert (found["scans"], found["nodes"], found["slots_per_node"]) == (100, 3, 8)
    files = [file for file in (study.place.folder / "scans").rglob("*") if file.is_file()]
    assert found["store_objects"] == 100 * len(files) / 2
    assert found["store_bytes"] == pytest.approx(100 * sum(file.stat().st_size for file in files) / 2, rel=0.02)
    assert found["cost"] == pytest.approx(2.0 * found["node_hours"])
    assert [phase["name"] for phase in found["phases"]] == ["ingest", "process"]


def test_it_is_told_to_people_too(qsm, described):
    code, out, err = qsm("plan", *described, "--price", 5)
    assert code == 0
    for words in ("3 x 8", "node-hours", "inversion.rts", "cost", "objects"):
        assert words in out
    assert "costs of 2 measured scans" in err


@pytest.mark.parametrize(
    "options", [(), ("--scans", 3), ("--shape", 32, 32, 24), ("COHORT", "--scans", 3, "--shape", 32, 32, 24)]
)
def test_either_a_cohort_or_a_described_study(qsm, study, options):
    code, _, err = qsm("plan", *(study.place if one == "COHORT" else one for one in options))
    assert code == 2
    assert "give a COHORT, or --scans and --shape" in err


def test_a_cluster_that_is_too_small_is_told_before_anything_is_measured(qsm, study):
    options = ("-c", "slurm", "--node-cpus", 4, "--node-memory", "1 GiB", "-p", "accurate")
    code, _, err = qsm("plan", "--scans", 3, "--shape", 32, 32, 24, *options)
    assert code == 2
    assert "holds no worker" in err


REGIONS = """
name: quick regions
goal: [chi, dseg]
steps:
  - mask.magnitude
  - unwrap.laplacian
  - field.weighted_mean
  - background.vsharp
  - inversion.tkd
  - anatomy.register: {template: atlas, iterations: [5], affine_iterations: [5]}
  - anatomy.labels: {atlas: atlas}
  - roi.statistics
"""


@pytest.fixture
def carried(tmp_path):
    """A cohort whose labels were carried to it from an atlas, and the options that say so."""
    bids = tmp_path / "bids"
    simulate.run(bids, subjects=1, shape=(32, 32, 24), atlas=True)
    store = CohortStore.create(tmp_path / "cohort")
    ingest.run(bids, store, ENGINE)
    (tmp_path / "regions.yaml").write_text(REGIONS)
    atlas = str(bids / simulate.ATLAS / "tpl-phantom")
    process.run(store, ENGINE, Pipeline.from_yaml(tmp_path / "regions.yaml").with_atlas(atlas))
    return store, ("-p", tmp_path / "regions.yaml", "--atlas", atlas, "-c", "serial")


def test_regions_of_an_atlas_are_planned_as_they_are_processed(told, carried):
    store, options = carried
    found = told("plan", store.place, *options)
    assert (found["scans"], found["done"]) == (0, 1)
    study = ("--scans", 10, "--shape", 32, 32, 24, "--voxel-size", 6, 7, 6.7, "--echoes", len(DEFAULT_TE))
    found = told("plan", *study, "--measured", store.place, *options)
    assert found["seconds"]["anatomy.register"] > 0.0  # no label image is taken for given


def test_an_atlas_that_is_not_there_is_told_first(qsm, study):
    code, _, err = qsm("plan", study.place, "-p", "regions", "--atlas", "/nowhere/at/all")
    assert code == 2
    assert "there is no folder" in " ".join(err.split())
