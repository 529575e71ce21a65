"""Segmentations enter with the scans or after them, and their regions come out by name."""

import json
import os

import nibabel as nib
import numpy as np
import pytest

from qsm_dask.io.tables import read_parquet
from qsm_dask.pipeline import Pipeline
from qsm_dask.quantities import COORDINATES
from qsm_dask.store.documents import REGIONS
from qsm_dask.workflow import compare, process, verify
from tests.io.bids_tree import AFFINE, SHAPE, scan, write_image, write_json
from tests.io.transform_files import rigid, write_itk
from tests.workflow.ingesting import ENGINE, commit_of, counts, run, touch_later

STATISTIC = COORDINATES["statistic"].index
ROOM = np.array([[-0.5, 0, 0, 3.0], [0, 0, 0.5, -2.5], [0, -0.5, 0, 3.0], [0, 0, 0, 1]])
"""Half-millimetre voxels in FreeSurfer's order around the small scan."""


def aseg(path, fill):
    """Labels that are `fill` where the scan's x index is even, by the position of each voxel."""
    shape = (14, 20, 12)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"))
    at = np.tensordot(ROOM[:3, :3], index, axes=1) + ROOM[:3, 3].reshape(3, 1, 1, 1)
    across = np.floor(at[0] + 3.5).astype(int)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.freesurfer.MGHImage(np.where(across % 2 == 0, fill, 16).astype(np.int32), ROOM), path)


def spoil(path):
    """Other voxels behind the same header, of the same length and time: whoever reads them now gets others."""
    stat = path.stat()
    header = path.read_bytes()[:352]
    path.write_bytes(header + b"\x7f" * (stat.st_size - len(header)))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_segmentation_is_added_later_without_reading_the_images_again(root, cohort, tmp_path):
    folder = scan(root, "sub-01", extension=".nii")
    run(root, cohort)
    before = commit_of(cohort, "sub-01")
    phase = cohort.read(before, ["phase"])["phase"]
    for image in folder.glob("*.nii"):
        spoil(image)
    aseg(tmp_path / "fs/sub-01/mri/aseg.mgz", 12)
    options = {"derivatives": [f"{tmp_path / 'fs'}:dseg"]}
    summary = run(root, cohort, **options)
    assert counts(summary) == (1, 0, 0, 0)
    after = commit_of(cohort, "sub-01")
    assert {name: after.attributes["digests"][name] for name in before.attributes["digests"]} == (
        before.attributes["digests"]
    )
    np.testing.assert_array_equal(cohort.read(after, ["phase"])["phase"], phase)
    labels = cohort.read(after, ["dseg"])["dseg"]
    assert set(np.unique(labels[:, 1:-1, 1:-1])) == {12, 16}
    assert (labels[::2, 1:-1, 1:-1] == 12).all()
    assert after.attributes["labels"] == {"12": "Left-Putamen", "16": "Brain-Stem"}
    assert after.attributes["sources"]["dseg"]["files"] == ["fs/sub-01/mri/aseg.mgz"]
    assert after.attributes["sources"]["phase"] == before.attributes["sources"]["phase"]
    assert len(after.attributes["files"]["fs/sub-01/mri/aseg.mgz"]["sha256"]) == 64
    assert counts(run(root, cohort, **options)) == (0, 1, 0, 0)
    assert commit_of(cohort, "sub-01").attempt == after.attempt

    aseg(tmp_path / "fs/sub-01/mri/aseg.mgz", 51)
    touch_later(tmp_path / "fs/sub-01/mri/aseg.mgz")
    assert counts(run(root, cohort, **options)) == (1, 0, 0, 0)
    assert "51" in commit_of(cohort, "sub-01").attributes["labels"]
    assert counts(run(root, cohort)) == (1, 0, 0, 0)
    assert set(commit_of(cohort, "sub-01").arrays) == {"phase", "magnitude"}
    assert not list(verify.run(cohort))


def test_images_that_changed_are_read_again_when_a_segmentation_is_added(root, cohort, tmp_path):
    folder = scan(root, "sub-01")
    run(root, cohort)
    before = commit_of(cohort, "sub-01").attributes["digests"]
    scan(root, "sub-01", seed=7)
    for image in folder.glob("*.nii.gz"):
        touch_later(image)
    aseg(tmp_path / "fs/sub-01/mri/aseg.mgz", 12)
    run(root, cohort, derivatives=[f"{tmp_path / 'fs'}:dseg"])
    after = commit_of(cohort, "sub-01").attributes["digests"]
    assert after["phase"] != before["phase"]
    assert "dseg" in after


def test_another_transform_moves_the_labels_and_nothing_else(root, cohort, tmp_path):
    scan(root, "sub-01")
    aseg(tmp_path / "fs/sub-01/mri/aseg.mgz", 12)
    options = {"derivatives": [f"{tmp_path / 'fs'}:dseg"], "transforms": [f"{tmp_path}/{{sub}}.txt"]}
    found = []
    for shift in (0, 1):
        write_itk(tmp_path / "sub-01.txt", rigid((0, 0, 0), (shift, 0, 0)))
        touch_later(tmp_path / "sub-01.txt", 10 + shift)
        assert counts(run(root, cohort, **options)) == (1, 0, 0, 0)
        commit = commit_of(cohort, "sub-01")
        found.append(cohort.read(commit, ["dseg"])["dseg"])
    assert (found[0][2, 1:-1, 1:-1] == 12).all()
    assert (found[1][2, 1:-1, 1:-1] == 16).all()
    assert commit.attributes["sources"]["dseg"]["resampled_by"] == "ITK"
    assert commit.attributes["sources"]["dseg"]["files"][-1].endswith("/sub-01.txt")
    assert counts(run(root, cohort, **options)) == (0, 1, 0, 0)


def test_a_segmentation_of_another_place_fails_its_scan_alone(root, cohort, tmp_path):
    for name in ("sub-01", "sub-02"):
        scan(root, name)
        aseg(tmp_path / f"fs/{name}/mri/aseg.mgz", 12)
    away = nib.load(tmp_path / "fs/sub-02/mri/aseg.mgz")
    affine = away.affine.copy()
    affine[:3, 3] += 90.0
    nib.save(nib.freesurfer.MGHImage(np.asarray(away.dataobj), affine), tmp_path / "fs/sub-02/mri/aseg.mgz")
    summary = run(root, cohort, derivatives=[f"{tmp_path / 'fs'}:dseg"])
    assert counts(summary) == (1, 0, 1, 0)
    assert "less than 1 % of its regions lies inside the scan" in summary.failures["sub-02"]


PIPELINE = {
    "name": "values of a given map",
    "goal": ["region_values"],
    "steps": [{"mask.magnitude": {"opening_mm": 0.0, "closing_mm": 0.0, "erosion_mm": 0.0}}, "roi.statistics"],
}


def given(root, out, name="sub-01"):
    """A scan with a bright magnitude, a mask of all of it and a susceptibility map; the map."""
    chi = np.random.default_rng(4).normal(0.0, 0.1, SHAPE).astype(np.float32)
    scan(root, name)
    write_image(out / f"{name}/anat/{name}_Chimap.nii.gz", chi)
    write_image(out / f"{name}/anat/{name}_desc-brain_mask.nii.gz", np.ones(SHAPE, np.uint8))
    write_json(out / f"{name}/anat/{name}_Chimap.json", {"Units": "ppm"})
    return chi


def test_labels_up_to_the_largest_and_probabilities_reach_the_region_table(root, cohort, tmp_path):
    out = tmp_path / "maps"
    chi = given(root, out)
    labels = np.zeros(SHAPE, np.int32)
    labels[:2], labels[2:4], labels[4:] = 2**31 - 1, 2**24 + 1, 12
    write_image(out / "sub-01/anat/sub-01_dseg.nii.gz", labels)
    (out / "dseg.tsv").write_text(f"index\tname\n{2**31 - 1}\tlargest\n{2**24 + 1}\tlarge\n12\tputamen_left\n")
    shares = np.random.default_rng(5).uniform(0, 1, (*SHAPE, 2)).astype(np.float32)
    write_image(out / "sub-01/anat/sub-01_probseg.nii.gz", shares)
    write_json(out / "sub-01/anat/sub-01_probseg.json", {"LabelMap": ["putamen_left", "caudate_left"]})
    summary = run(root, cohort, derivatives=[f"{out}:dseg,probseg,mask,chi"])
    assert counts(summary) == (1, 0, 0, 0), summary.failures
    commit = commit_of(cohort, "sub-01")
    assert commit.attributes["geometry"]["probabilities"] == 2
    assert cohort.read(commit, ["probseg_labels"])["probseg_labels"].tolist() == [12, 2]
    done = process.run(cohort, ENGINE, Pipeline.from_mapping(PIPELINE))
    assert (done.failures, done.without_labels) == ({}, 0)
    np.testing.assert_array_equal(cohort.scan("sub-01")["probseg"].sel(label=12).to_numpy(), shares[..., 0])
    compare.run(cohort)
    table = read_parquet(cohort.read_document(REGIONS))
    table = table[table["map"] == "chi"].set_index(["region", "statistic"])["value"]
    for number, name in ((2**31 - 1, "largest"), (2**24 + 1, "large"), (12, "putamen_left")):
        assert table[name, "mean"] == pytest.approx(chi[labels == number].mean(dtype=np.float64), rel=1e-6)
    for volume, name in enumerate(("putamen_left", "caudate_left")):
        weights = shares[..., volume].astype(np.float64)
        assert table[name, "weighted_mean"] == pytest.approx((weights * chi).sum() / weights.sum(), rel=1e-6)
        assert table[name, "weighted_volume_mm3"] == pytest.approx(weights.sum() * 2.0, rel=1e-6)
    assert json.loads(cohort.index().query("node == 'ingest'")["facts"].iloc[0])["sources"]["probseg"]["files"] == [
        "maps/sub-01/anat/sub-01_probseg.nii.gz"
    ]


def test_memory_of_probabilities_is_projected(root, cohort, tmp_path):
    out = tmp_path / "maps"
    given(root, out)
    write_image(out / "sub-01/anat/sub-01_probseg.nii.gz", np.full((*SHAPE, 7), 0.1, np.float32))
    run(root, cohort, derivatives=[f"{out}:probseg,mask,chi"])
    attributes = commit_of(cohort, "sub-01").attributes
    geometry = process.Geometry.from_dict(attributes["geometry"])
    plan = Pipeline.from_mapping(PIPELINE).plan(geometry, attributes["sources"])
    assert plan.peak_bytes() >= 7 * 4 * np.prod(SHAPE)
    assert attributes["geometry"]["probabilities"] == 7


def test_the_grid_of_the_scan_needs_no_resampling(root, cohort, tmp_path):
    scan(root, "sub-01")
    labels = np.arange(np.prod(SHAPE), dtype=np.int32).reshape(SHAPE)
    write_image(tmp_path / "maps/sub-01/anat/sub-01_dseg.nii.gz", labels, affine=AFFINE)
    run(root, cohort, derivatives=[f"{tmp_path / 'maps'}:dseg"])
    commit = commit_of(cohort, "sub-01")
    np.testing.assert_array_equal(cohort.read(commit, ["dseg"])["dseg"], labels)
    assert "resampled_by" not in commit.attributes["sources"]["dseg"]


def test_a_segmentation_that_is_none_fails_its_scan_alone(root, cohort, tmp_path):
    for name in ("sub-01", "sub-02", "sub-03"):
        scan(root, name)
        aseg(tmp_path / f"fs/{name}/mri/aseg.mgz", 12)
    (tmp_path / "fs/sub-01/mri/aseg.mgz").write_bytes(b"<html>404 not found</html>" * 30)
    (tmp_path / "fs/sub-02/mri/aseg.mgz").write_bytes(b"\0\0")
    summary = run(root, cohort, derivatives=[f"{tmp_path / 'fs'}:dseg"])
    assert counts(summary) == (1, 0, 2, 0)
    assert "fs/sub-01/mri/aseg.mgz: not an MGH file" in summary.failures["sub-01"]
    assert "fs/sub-02/mri/aseg.mgz: truncated" in summary.failures["sub-02"]
