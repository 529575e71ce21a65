"""A subject's T1w from its file to the map that leads from it to the scan: stored, told and exported."""

import json

import numpy as np
import pytest
import SimpleITK

from qsm_dask.cohort.standing import standings
from qsm_dask.engine import SerialEngine
from qsm_dask.io.nifti import read_header, read_volume, write_volume
from qsm_dask.pipeline import Pipeline
from qsm_dask.scan import Geometry
from qsm_dask.store import INGEST_KEY, CohortStore
from qsm_dask.workflow import export, ingest, process, simulate
from tests.io.bids_tree import dataset, scan, write_image
from tests.workflow.ingesting import commit_of, counts, run, touch_later

ROOM = 4 * 2**30
SHIFT = np.array([4.0, -3.0, 2.0])
PIPELINE = Pipeline.from_mapping(
    {
        "name": "T1w",
        "goal": ["chi"],
        "keep": ["t1w_from_scan"],
        "steps": [
            *("mask.magnitude", "unwrap.laplacian", "field.weighted_mean", "background.vsharp", "inversion.tkd"),
            {"anatomy.align_t1w": {"resolution_mm": 4.0}},
        ],
    }
)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Three subjects. The T1w of the second is its first magnitude upside down, moved by a known shift.

    That of the third lies half a metre away; the first has none.
    """
    folder = tmp_path_factory.mktemp("cohort")
    bids = folder / "bids"
    simulate.run(bids, subjects=3, seed=5, shape=(48, 56, 40))
    for name, shift in (("sub-02", SHIFT), ("sub-03", np.array([500.0, 0.0, 0.0]))):
        first = bids / name / "anat" / f"{name}_echo-1_part-mag_MEGRE.nii.gz"
        magnitude, affine = read_volume(first), np.array(read_header(first).affine)
        affine[:3, 3] += shift
        write_volume(bids / name / "anat" / f"{name}_T1w.nii.gz", (magnitude.max() - magnitude)[:-3], affine)
    store = CohortStore.create(folder / "cohort")
    ingest.run(bids, store, SerialEngine(ROOM))
    summary = process.run(store, SerialEngine(ROOM), PIPELINE)
    assert (summary.failures, summary.done) == ({}, 3)
    return store


def test_the_t1w_is_kept_on_its_own_grid(done):
    without, having, _ = (standing.scan for standing in standings(done, Pipeline.from_mapping))
    commit = done.commit(having, "ingest", INGEST_KEY)
    assert commit.arrays["t1w"]["shape"] == [45, 56, 40]
    assert done.read(commit, ("t1w_affine",))["t1w_affine"].shape == (4, 4)
    assert "t1w" not in done.commit(without, "ingest", INGEST_KEY).arrays


def test_the_scan_that_has_one_is_aligned_and_the_other_says_why_not(done):
    without, having, _ = standings(done, Pipeline.from_mapping)
    found = done.read(having.commit(done, "registration"), ("t1w_from_scan",))["t1w_from_scan"]
    np.testing.assert_allclose(found[:3, 3] + found[:3, :3] @ [0, 0, 0], SHIFT, atol=1.5)
    (figures,) = (node.figures["anatomy.align_t1w"] for node in having.nodes if node.node == "registration")
    assert figures["shift_mm"] == pytest.approx(np.linalg.norm(SHIFT), abs=1.0)
    assert any("anatomy.align_t1w: lacks t1w, t1w_affine" in reason for reason in without.left_out)


def test_itk_reads_the_exported_map(done, tmp_path):
    having = list(standings(done, Pipeline.from_mapping))[1]
    found = done.read(having.commit(done, "registration"), ("t1w_from_scan",))["t1w_from_scan"]
    export.run(done, tmp_path / "out")
    (path,) = (tmp_path / "out").glob("sub-*/anat/*_from-T1w_to-scan_mode-image_xfm.txt")
    x, y, z = SimpleITK.ReadTransform(str(path)).TransformPoint((-10.0, -20.0, 30.0))
    np.testing.assert_allclose((-x, -y, z), (found @ [10.0, 20.0, 30.0, 1.0])[:3], atol=1e-9)
    export.run(done, tmp_path / "out")
    assert path.exists()


def test_a_t1w_of_another_place_fails_no_scan_and_gives_no_map(done, tmp_path):
    away = list(standings(done, Pipeline.from_mapping))[2]
    commit = away.commit(done, "registration")
    assert np.isnan(done.read(commit, ("t1w_from_scan",))["t1w_from_scan"]).all()
    (warning,) = commit.attributes["facts"]["warnings"]
    assert warning.startswith("anatomy.align_t1w: only 0 % of the brain lies in the T1w")
    export.run(done, tmp_path / "out")
    assert [path.parts[-3] for path in (tmp_path / "out").glob("sub-*/anat/*_xfm.txt")] == ["sub-02"]


def test_driver_and_worker_plan_alike(done):
    """The one plans from the row of the index, the other from the commit."""
    _, having, _ = (standing.scan for standing in standings(done, Pipeline.from_mapping))
    index = done.index()
    (row,) = index[(index["scan"] == str(having)) & (index["node"] == "ingest")].itertuples()
    facts, commit = json.loads(row.facts), done.commit(having, "ingest", INGEST_KEY)
    assert set(facts["sources"]) == set(commit.attributes["digests"])
    geometry = Geometry.from_dict(facts["geometry"])
    digests = commit.attributes["digests"]
    by_driver, by_worker = (PIPELINE.plan(geometry, given) for given in (facts["sources"], digests))
    assert by_driver == by_worker
    assert any(step.stage == "anatomy.align_t1w" for node in by_driver.nodes for step in node.steps)


@pytest.fixture
def small(tmp_path):
    root = dataset(tmp_path / "bids")
    scan(root)
    return root, CohortStore.create(tmp_path / "cohort")


def structural(root, values):
    write_image(root / "sub-01" / "anat" / "sub-01_T1w.nii.gz", np.asarray(values, dtype=np.float32))


def test_a_t1w_that_is_taken_away_leaves_the_commit(small):
    root, cohort = small
    structural(root, np.arange(60).reshape(3, 4, 5))
    run(root, cohort)
    before = commit_of(cohort, "sub-01")
    assert {"t1w", "t1w_affine"} < set(before.arrays)
    (root / "sub-01" / "anat" / "sub-01_T1w.nii.gz").unlink()
    assert counts(run(root, cohort)) == (1, 0, 0, 0)
    after = commit_of(cohort, "sub-01")
    assert set(after.arrays) == {"phase", "magnitude"}
    assert not {"t1w", "t1w_affine"} & (set(after.attributes["digests"]) | set(after.attributes["sources"]))
    assert after.attributes["digests"]["phase"] == before.attributes["digests"]["phase"]


def test_a_scan_goes_on_without_a_t1w_that_is_broken_and_takes_it_once_it_is_mended(small):
    root, cohort = small
    place = root / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    place.with_name("sub-01_T1w.json").write_text("{ broken")
    place.symlink_to("../../.git/annex/objects/absent")
    for break_it in (lambda: None, lambda: (place.unlink(), structural(root, np.ones((3, 4, 5, 2))))):
        break_it()
        summary = run(root, cohort)
        assert counts(summary)[2] == 0
        commit = commit_of(cohort, "sub-01")
        assert set(commit.arrays) == {"phase", "magnitude"}
        (warning,) = commit.attributes["warnings"]
        assert warning.startswith("the T1w is left out: ")
    structural(root, np.arange(60).reshape(3, 4, 5))
    touch_later(place)
    assert counts(run(root, cohort)) == (1, 0, 0, 0)
    assert "t1w" in commit_of(cohort, "sub-01").arrays
    assert commit_of(cohort, "sub-01").attributes["warnings"] == []
