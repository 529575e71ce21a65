"""The brain of a subject's own segmentation."""

import numpy as np
import pytest

from qsm_dask.kernels.segmented import segmentation

SIZE = (1.0, 1.0, 2.0)


def labels():
    """Two regions with a gap of a voxel between them, and a skull."""
    image = np.zeros((14, 10, 8), np.int32)
    image[2:6, 2:8, 1:7], image[7:11, 2:8, 1:7] = 3, 2**31 - 1
    image[13] = 99
    return image


def test_all_labels_but_those_left_out_are_brain():
    found = segmentation(labels(), SIZE, leave_out=(99,), closing_mm=0.0)
    np.testing.assert_array_equal(found, (labels() > 0) & (labels() != 99))


def test_gaps_are_closed_and_nothing_else_grows_at_the_image_border_either():
    found = segmentation(labels(), SIZE, leave_out=(99,), closing_mm=1.0)
    expected = np.zeros(found.shape, bool)
    expected[2:11, 2:8, 1:7] = True
    np.testing.assert_array_equal(found[6, 3:7, 2:6], True)
    assert not found[~expected].any()
    full = np.ones((6, 6, 6), np.int32)
    assert segmentation(full, SIZE).all()
    full[0] = 0
    assert not segmentation(full, SIZE, closing_mm=3.0)[0].any()


def test_nothing_left_is_refused():
    with pytest.raises(ValueError, match="no label that is brain"):
        segmentation(labels(), SIZE, leave_out=(3, 99, 2**31 - 1))
    with pytest.raises(ValueError, match="closing_mm is -1"):
        segmentation(labels(), SIZE, closing_mm=-1.0)
