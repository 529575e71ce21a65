"""The T1w of a subject: which one a scan is given, and what cannot be read."""

import numpy as np
import pytest

from qsm_dask.errors import InputError
from qsm_dask.io import bids, structural
from qsm_dask.io.filters import Filters
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
    arrays, source = structural.read(item)
    np.testing.assert_array_equal(arrays["t1w"], values)
    np.testing.assert_allclose(arrays["t1w_affine"], GRID)
    assert source == {"from": "raw", "files": ["sub-01/ses-a/anat/sub-01_ses-a_acq-mprage_T1w.nii.gz"]}


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


def test_a_t1w_that_cannot_be_used_is_named_with_the_remedy(tmp_path):
    root = dataset(tmp_path)
    scan(root)
    place = root / "sub-01" / "anat" / "sub-01_T1w.nii.gz"
    for stored, message in ((np.zeros((4, 4, 4)), "the same everywhere"), (np.ones((4, 4, 4, 2)), "4x4x4x2 voxels")):
        write_image(place, stored.astype(np.float32))
        (item,) = structural.attach(bids.index(root).acquisitions, root)[0].maps
        with pytest.raises(InputError, match=message) as caught:
            structural.read(item)
        assert "sub-01/anat/sub-01_T1w.nii.gz" in str(caught.value)
        assert "filter file" in str(caught.value)
