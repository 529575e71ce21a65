"""A subject's T1w from its file to the map that leads from it to the scan: stored, told and exported."""

import numpy as np
import pytest
import SimpleITK

from qsm_dask.cohort.standing import standings
from qsm_dask.engine import SerialEngine
from qsm_dask.io.nifti import read_header, read_volume, write_volume
from qsm_dask.pipeline import Pipeline
from qsm_dask.store import INGEST_KEY, CohortStore
from qsm_dask.workflow import export, ingest, process, simulate

ROOM = 4 * 2**30
SHIFT = np.array([4.0, -3.0, 2.0])
PIPELINE = Pipeline.from_mapping(
    {
        "name": "T1w",
        "goal": ["chi"],
        "steps": [
            *("mask.magnitude", "unwrap.laplacian", "field.weighted_mean", "background.vsharp", "inversion.tkd"),
            {"anatomy.align_t1w": {"resolution_mm": 4.0}},
        ],
    }
)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Two subjects of whom the second has a T1w: its first magnitude upside down, moved by a known shift."""
    folder = tmp_path_factory.mktemp("cohort")
    bids = folder / "bids"
    simulate.run(bids, subjects=2, seed=5, shape=(48, 56, 40))
    first = bids / "sub-02" / "anat" / "sub-02_echo-1_part-mag_MEGRE.nii.gz"
    magnitude, affine = read_volume(first), np.array(read_header(first).affine)
    affine[:3, 3] += SHIFT
    write_volume(bids / "sub-02" / "anat" / "sub-02_T1w.nii.gz", (magnitude.max() - magnitude)[:-3], affine)
    store = CohortStore.create(folder / "cohort")
    ingest.run(bids, store, SerialEngine(ROOM))
    summary = process.run(store, SerialEngine(ROOM), PIPELINE)
    assert (summary.failures, summary.done) == ({}, 2)
    return store


def test_the_t1w_is_kept_on_its_own_grid(done):
    without, having = (standing.scan for standing in standings(done, Pipeline.from_mapping))
    commit = done.commit(having, "ingest", INGEST_KEY)
    assert commit.arrays["t1w"]["shape"] == [45, 56, 40]
    assert done.read(commit, ("t1w_affine",))["t1w_affine"].shape == (4, 4)
    assert "t1w" not in done.commit(without, "ingest", INGEST_KEY).arrays


def test_the_scan_that_has_one_is_aligned_and_the_other_says_why_not(done):
    without, having = standings(done, Pipeline.from_mapping)
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
