"""Regions of an atlas in a scan, and the figures that tell how they arrived, by hand."""

import numpy as np
import pytest
from scipy import ndimage

from qsm_dask.anatomy.labels import labels, probabilities
from qsm_dask.atlas import Atlas, Image

SHAPE = (12, 6, 6)
NAMES = {3: "putamen_left", 2**31 - 1: "putamen_right", 9: "far_away"}


def volume():
    """Four voxels along x for the left, two for the right, and a region that only the atlas's last slice holds."""
    image = np.zeros(SHAPE, np.int32)
    image[1:5, 1:5, 1:5] = 3
    image[8:10, 1:5, 1:5] = 2**31 - 1
    image[:, :, 5] = 9
    return image


def places(shape=SHAPE):
    """Positions of a scan on the atlas's own grid, of which it sees all but the last slice."""
    return np.indices(shape).astype(np.float32)


def test_a_label_image_on_its_own_grid_stays_as_it_is():
    atlas = Atlas(labels=Image(volume(), np.eye(4)), names=NAMES)
    found, told = labels(places((12, 6, 5)), np.eye(4), atlas=atlas)
    np.testing.assert_array_equal(found, volume()[:, :, :5])
    assert told.labels == NAMES


def test_figures_by_hand():
    mask = np.zeros((12, 6, 5), bool)
    mask[2:] = True
    atlas = Atlas(labels=Image(volume(), np.eye(4)), names=NAMES)
    _, told = labels(places((12, 6, 5)), np.diag([2.0, 1.0, 1.0, 1.0]), mask, atlas=atlas)
    assert told.figures == {
        "regions": 3.0,
        "regions_empty": 1.0,
        "volume_ratio_min": 2.0,  # a voxel of the scan has twice the volume
        "volume_ratio_max": 2.0,
        "asymmetry_max": pytest.approx(2 * (64 - 32) / (64 + 32)),
        "coverage_min": 0.75,  # three of the four slices of the left lie in the mask
        "coverage_median": 0.875,
    }
    assert told.warnings == ("regions of the atlas without a voxel in this scan: far_away",)


def test_the_most_probable_region_is_taken_from_half_on():
    probabilities = np.zeros((2, 4, 4, 4), np.float32)
    probabilities[0, 0], probabilities[0, 1], probabilities[0, 2] = 0.9, 0.5, 0.4
    probabilities[1, 1], probabilities[1, 2], probabilities[1, 3] = 0.4, 0.49, 0.7
    atlas = Atlas(probabilities=Image(probabilities, np.eye(4)), names={5: "a", 8: "b"})
    found, told = labels(places((4, 4, 4)), np.eye(4), atlas=atlas)
    assert found[:, 0, 0].tolist() == [5, 5, 0, 8]
    assert told.figures["volume_ratio_min"] == pytest.approx(16 / (16 * 1.59))


def test_of_certain_regions_alone_those_below_one_are_left_out_and_more_than_one_is_refused():
    given = np.zeros((1, 4, 4, 4), np.float32)
    given[0, 0], given[0, 1] = 1.0, 0.99
    atlas = Atlas(probabilities=Image(given, np.eye(4)), names={5: "a"})
    for carry in (labels, probabilities):
        found = carry(places((4, 4, 4)), np.eye(4), atlas=atlas, threshold=1.0)[0]
        assert found[:, 0, 0].tolist() == [5, 0, 0, 0]
        for threshold in (0.0, 1.01):
            with pytest.raises(ValueError, match=f"threshold is {threshold}"):
                carry(places((4, 4, 4)), np.eye(4), atlas=atlas, threshold=threshold)


def test_probabilities_are_carried_with_their_labels_as_scipy_interpolates_them():
    rng = np.random.default_rng(3)
    given = rng.uniform(0, 1, (3, 6, 7, 8)).astype(np.float32)
    atlas = Atlas(probabilities=Image(given, np.diag([2.0, 1.0, 1.0, 1.0])), names={4: "a", 2**31 - 1: "b", 9: "c"})
    positions = (places((5, 6, 7)) + np.float32(0.3)) * np.float32([2, 1, 1]).reshape(3, 1, 1, 1)
    mask = np.ones((5, 6, 7), bool)
    found, carried, numbers, told = probabilities(positions, np.eye(4), mask, atlas=atlas)
    index = positions / np.reshape([2, 1, 1], (3, 1, 1, 1))
    for volume, one in zip(carried, given, strict=True):
        np.testing.assert_allclose(volume, ndimage.map_coordinates(one.astype(float), index, order=1), atol=1e-6)
    assert numbers.tolist() == [4, 2**31 - 1, 9]
    assert (carried.dtype, numbers.dtype) == (np.float32, np.int64)
    same, other = labels(positions, np.eye(4), mask, atlas=atlas)
    np.testing.assert_array_equal(found, same)
    assert told == other


def test_labels_alone_have_no_probabilities_to_carry():
    with pytest.raises(ValueError, match="the atlas has no probseg"):
        probabilities(places(), np.eye(4), atlas=Atlas(labels=Image(volume(), np.eye(4)), names=NAMES))


def test_an_atlas_without_regions_is_refused():
    with pytest.raises(ValueError, match="neither a dseg nor a probseg"):
        labels(places(), np.eye(4), atlas=Atlas())


def test_a_place_that_is_nowhere_and_an_empty_mask_are_refused():
    atlas = Atlas(labels=Image(volume(), np.eye(4)), names=NAMES)
    lost = places((12, 6, 5))
    lost[1, 3, 2, 2] = np.nan
    with pytest.raises(ValueError, match="template_position is NaN"):
        labels(lost, np.eye(4), atlas=atlas)
    with pytest.raises(ValueError, match="mask is empty"):
        labels(places((12, 6, 5)), np.eye(4), np.zeros((12, 6, 5), bool), atlas=atlas)
