"""The T1w of a subject: which one a scan is given, and which is left out."""

import re

import nibabel as nib
import numpy as np
import pytest

from qsm_dask.cohort.conversion import projected_bytes
from qsm_dask.io import bids, structural
from qsm_dask.io.filters import Filters
from qsm_dask.io.series import outline
from tests.io.bids_tree import dataset, scan, write_image

GRID = np.array([[0.0, -1.5, 0, 8], [1.2, 0, 0, -9], [0, 0, 1.0, 4], [0, 0, 0, 1]])


def t1w(root, stem, folder="sub-01", shape=(7, 8, 9)):
    values = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    write_image(root / folder / "anat" / f"{stem}_T1w.nii.gz", values, affine=GRID)
    return values


def given(root, filters=None):
    return {
        str(one.key): ([item.file.label for item in one.maps], one.notes)
        for one in structural.attach(bids.index(root).acquisitions, root, filters)
    }


def test_a_scan_gets_the_t1w_of_its_session_on_its_own_grid(tmp_path):
    root = dataset(tmp_path)
    scan(root, "sub-01_ses-a")
    scan(root, "sub-01_ses-b")
    scan(root, "sub-02")
    values = t1w(root, "sub-01_ses-a_acq-mprage", "sub-01/ses-a")
    found = given(root)
    assert found["sub-01_ses-a"] == (["sub-01/ses-a/anat/sub-01_ses-a_acq-mprage_T1w.nii.gz"], ())
    assert found["sub-01_ses-b"] == ([], ())
    assert found["sub-02"] == ([], ())
    (item,) = structural.attach(bids.index(root).acquisitions, root)[0].maps
    found = structural.read(item)
    np.testing.assert_array_equal(found.arrays["t1w"], values)
    np.testing.assert_allclose(found.arrays["t1w_affine"], GRID)
    source = {"from": "raw", "files": ["sub-01/ses-a/anat/sub-01_ses-a_acq-mprage_T1w.nii.gz"]}
    assert found.sources == {"t1w": source, "t1w_affine": source}
    assert found.warnings == ()
    assert structural.planned_bytes(item) == 4 * 7 * 8 * 9


def test_of_several_the_one_most_alike_is_taken_and_a_doubt_is_told(tmp_path):
    root = dataset(tmp_path)
    scan(root, "sub-01_run-2")
    for stem in ("sub-01_run-1", "sub-01_run-02", "sub-01_echo-1"):
        t1w(root, stem)
    assert given(root)["sub-01_run-2"] == (["sub-01/anat/sub-01_run-02_T1w.nii.gz"], ())
    t1w(root, "sub-01_acq-new_run-2")
    files, notes = given(root)["sub-01_run-2"]
    assert files == ["sub-01/anat/sub-01_acq-new_run-2_T1w.nii.gz"]
    assert "several T1w of one session" in notes[0]
    chosen = Filters({"t1w": {"acq": None, "run": "1"}})
    assert given(root, chosen)["sub-01_run-2"] == (["sub-01/anat/sub-01_run-1_T1w.nii.gz"], ())


def save(path, stored, sform=1, qform=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(stored, None)
    image.set_sform(GRID, sform)
    image.set_qform(GRID, qform)
    nib.save(image, path)


def html(path):
    path.write_bytes(b"<html>" * 100)


HOLED = np.arange(64, dtype=np.float32).reshape(4, 4, 4)
HOLED[1, 2, 3] = np.nan


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (lambda path: save(path, np.zeros((4, 4, 4), np.float32)), "is the same everywhere"),
        (lambda path: save(path, np.ones((4, 4, 4, 2), np.float32)), "has 4x4x4x2 voxels"),
        (lambda path: save(path, np.ones((4, 4, 6), np.float32)), "has 4x4x6x1 voxels; a T1w has one volume of at"),
        (lambda path: save(path, HOLED), "1 voxels are NaN or infinite"),
        (lambda path: save(path, HOLED, 0, 0), "does not say how the head lay in the scanner: the header states no"),
        (lambda path: save(path, HOLED, 4, 0), "does not say how the head lay in the scanner: .*standard space only"),
        (html, "not a gzip|not a NIfTI|cannot be read"),
    ],
    ids=["flat", "4-D", "large", "holed", "nowhere", "standard", "text"],
)
def test_a_t1w_that_cannot_be_used_is_left_out_and_told_with_the_remedy(tmp_path, monkeypatch, write, told):
    monkeypatch.setattr(structural, "MOST_T1W_VOXELS", 70)
    root = dataset(tmp_path)
    scan(root)
    write(root / "sub-01" / "anat" / "sub-01_T1w.nii.gz")
    (item,) = structural.attach(bids.index(root).acquisitions, root)[0].maps
    found = structural.read(item)
    assert (found.arrays, found.sources) == ({}, {})
    (warning,) = found.warnings
    assert re.match(rf"the T1w is left out: sub-01/anat/sub-01_T1w.nii.gz: .*({told}).*filter file", warning)


def test_memory_is_planned_for_a_t1w_by_its_own_header_and_for_none_that_is_left_out(tmp_path):
    root = dataset(tmp_path)
    scan(root)
    plain = projected_bytes(outline(bids.index(root).acquisitions[0]))
    t1w(root, "sub-01", shape=(50, 60, 70))
    (having,) = structural.attach(bids.index(root).acquisitions, root)
    told = outline(having)
    assert (told.t1w, told.maps) == (4 * 50 * 60 * 70, 0)
    assert projected_bytes(told) > plain + 4 * 50 * 60 * 70
    html(root / "sub-01" / "anat" / "sub-01_T1w.nii.gz")
    assert projected_bytes(outline(having)) == plain


def test_a_t1w_that_was_not_fetched_is_left_out(tmp_path):
    root = dataset(tmp_path)
    scan(root)
    link = root / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    link.symlink_to("../../.git/annex/objects/absent")
    assert given(root)["sub-01"] == ([], ("the T1w is left out: a link whose target is absent: fetch the data",))
