"""Figures of masks, by hand."""

import numpy as np
import pytest

from qsm_dask.maskfigures import figures


def cube(shape=(6, 6, 6)):
    mask = np.zeros(shape, bool)
    mask[1:5, 1:5, 1:5] = True
    return mask


def test_a_cube_of_isotropic_voxels_has_an_edge_ratio_of_one():
    assert figures(cube(), (2.0, 2.0, 2.0)) == {"volume_ml": pytest.approx(0.512), "edge_ratio": pytest.approx(1.0)}


def test_faces_at_the_border_of_the_image_and_in_holes_count():
    whole = np.ones((4, 4, 4), bool)
    assert figures(whole, (1.0, 1.0, 1.0))["edge_ratio"] == pytest.approx(1.0)
    whole[1, 1, 1] = False
    assert figures(whole, (1.0, 1.0, 1.0))["edge_ratio"] == pytest.approx((96 + 6) / (6 * 63 ** (2 / 3)))


def test_anisotropic_voxels_have_faces_of_three_sizes():
    one = np.zeros((3, 3, 3), bool)
    one[1, 1, 1] = True
    expected = 2 * (1 * 2 + 1 * 4 + 2 * 4) / (6 * 8 ** (2 / 3))
    assert figures(one, (1.0, 2.0, 4.0))["edge_ratio"] == pytest.approx(expected)


def test_dice_with_the_mask_before():
    half = cube()
    half[3:] = False
    assert figures(half, (1.0, 1.0, 1.0), cube())["dice"] == pytest.approx(2 * 32 / (32 + 64))
    assert figures(np.zeros((3, 3, 3), bool), (1.0, 1.0, 1.0), np.zeros((3, 3, 3), bool)) == {
        "volume_ml": 0.0,
        "edge_ratio": 0.0,
        "dice": 0.0,
    }
