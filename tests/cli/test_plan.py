"""`qsm-dask plan`: what it tells of a cohort and of a study that is only described."""

import pytest

from qsm_dask.phantom import DEFAULT_TE

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
