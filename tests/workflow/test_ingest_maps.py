"""Maps, masks and label images that exist already enter with the scans."""

import json

import numpy as np
import pytest

from qsm_dask.workflow import status
from tests.io.bids_tree import SHAPE, scan, write_image, write_json
from tests.workflow.ingesting import commit_of, counts, run, touch_later


def test_labels_masks_and_maps_of_derivatives_enter_when_named(root, cohort, tmp_path):
    scan(root, "sub-01")
    scan(root, "sub-02")
    out = tmp_path / "maps"
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:3] = 4
    write_image(out / "sub-01/anat/sub-01_dseg.nii.gz", labels)
    (out / "dseg.tsv").write_text("index\tname\n4\tputamen_left\n")
    write_image(out / "sub-01/anat/sub-01_Chimap.nii.gz", np.full(SHAPE, 250, np.float32))
    run(root, cohort, derivatives=[str(out)])
    commit = commit_of(cohort, "sub-01")
    assert set(commit.arrays) == {"phase", "magnitude", "dseg"}
    np.testing.assert_array_equal(cohort.read(commit, ["dseg"])["dseg"], labels)
    assert commit.attributes["labels"] == {"4": "putamen_left"}
    assert commit.attributes["sources"]["dseg"] == {
        "from": "derivatives",
        "files": ["maps/sub-01/anat/sub-01_dseg.nii.gz", "maps/dseg.tsv"],
    }
    assert set(commit_of(cohort, "sub-02").arrays) == {"phase", "magnitude"}

    summary = run(root, cohort, derivatives=[f"{out}:dseg,chi=ppb"])
    assert counts(summary) == (1, 1, 0, 0)
    commit = commit_of(cohort, "sub-01")
    np.testing.assert_allclose(cohort.read(commit, ["chi"])["chi"], 0.25)
    assert summary.rows[0]["facts"]["sources"]["chi"]["files"] == ["maps/sub-01/anat/sub-01_Chimap.nii.gz"]
    assert commit_of(cohort, "sub-02").attributes["warnings"] == [
        "no dseg in maps",
        "no chi in maps",
    ]
    assert json.loads(cohort.read_document("dataset.json"))["derivatives"] == ["maps:dseg,chi=ppb"]


def test_a_renamed_region_is_no_change_of_arrays(root, cohort, tmp_path):
    scan(root, "sub-01")
    write_image(tmp_path / "maps/sub-01/anat/sub-01_dseg.nii.gz", np.full(SHAPE, 4, np.uint8))
    for name in ("putamen", "caudate"):
        (tmp_path / "maps/dseg.tsv").write_text(f"index\tname\n4\t{name}\n")
        touch_later(tmp_path / "maps/dseg.tsv", len(name))
        summary = run(root, cohort, derivatives=[str(tmp_path / "maps")])
    assert counts(summary) == (0, 1, 0, 0)
    assert commit_of(cohort, "sub-01").attributes["labels"] == {"4": "caudate"}
    assert json.loads(cohort.index()["facts"][0])["labels"] == {"4": "caudate"}


def test_a_map_without_units_or_on_another_grid_fails_its_scan_alone(root, cohort, tmp_path):
    for number in (1, 2, 3):
        scan(root, f"sub-0{number}")
    out = tmp_path / "maps"
    for number, shape in ((1, SHAPE), (2, SHAPE), (3, (6, 5, 5))):
        write_image(out / f"sub-0{number}/anat/sub-0{number}_Chimap.nii.gz", np.ones(shape, np.float32))
    write_json(out / "sub-02_Chimap.json", {"Units": "ppm"})
    write_json(out / "sub-03_Chimap.json", {"Units": "ppm"})
    summary = run(root, cohort, derivatives=[f"{out}:chi"])
    assert counts(summary) == (1, 0, 2, 0)
    assert "its sidecar has no Units" in summary.failures["sub-01"]
    assert "its matrix is (6, 5, 5)" in summary.failures["sub-03"]


def test_a_magnitude_only_scan_with_a_susceptibility_map_is_of_use(root, cohort, tmp_path):
    scan(root, "sub-01", parts=["mag"])
    write_image(tmp_path / "maps/sub-01/anat/sub-01_Chimap.nii.gz", np.ones(SHAPE, np.float32))
    summary = run(root, cohort, derivatives=[f"{tmp_path / 'maps'}:chi=ppm"])
    assert counts(summary) == (1, 0, 0, 0)
    assert set(commit_of(cohort, "sub-01").arrays) == {"magnitude", "chi"}


@pytest.mark.parametrize("names", [":mask", ""])
def test_a_map_that_some_scans_lack_is_told_once_with_their_names(root, cohort, tmp_path, names):
    """Named or taken by default: what the folder has for some scans is missed for the others."""
    for number in range(1, 13):
        scan(root, f"sub-{number:02d}")
    for number in (1, 3):
        write_image(
            tmp_path / f"masks/sub-{number:02d}/anat/sub-{number:02d}_desc-brain_mask.nii.gz", np.ones(SHAPE, np.uint8)
        )
    warnings = run(root, cohort, derivatives=[f"{tmp_path / 'masks'}{names}"]).warnings
    lacking = "sub-02, sub-04, sub-05, sub-06, sub-07, sub-08, sub-09, sub-10 and 2 more"
    assert warnings == (f"no mask in masks for 10 of 12 scans: {lacking}",)
    told = {one["scan"]: one["reason"] for one in status.run(cohort).warnings}
    assert set(told) == {f"sub-{number:02d}" for number in (2, *range(4, 13))}
    assert set(told.values()) == {"no mask in masks"}
