"""Carried regions keep their volume: against shapes known by formula, and the sums of scipy's shares."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import cKDTree

from qsm_dask.kernels.carrying import carry_regions
from qsm_dask.kernels.resample import carry_labels

SHAPE = (40, 36, 32)


def places(shift, turn=0.0, scale=1.0):
    """Positions of a scan's voxels in the atlas, the middle of the one near that of the other."""
    middle = (np.array(SHAPE).reshape(3, 1, 1, 1) - 1) / 2
    x, y, z = (np.indices(SHAPE) - middle) * scale
    c, s = np.cos(turn), np.sin(turn)
    return (np.stack([c * x - s * y, s * x + c * y, z]) + middle + np.reshape(shift, (3, 1, 1, 1))).astype(np.float32)


def ellipsoid(axes, at=(0.0, 0.0, 0.0)):
    middle = (np.array(SHAPE) - 1) / 2 + at
    distance = sum(((i - m) / a) ** 2 for i, m, a in zip(np.indices(SHAPE), middle, axes, strict=True))
    return distance < 1


def test_a_thin_nucleus_keeps_the_volume_that_the_largest_share_wears_away():
    """Of the size of a subthalamic nucleus, at many places between voxels."""
    labels = 4 * ellipsoid((1.6, 4.7, 3.5)).astype(np.int32)
    rng = np.random.default_rng(0)
    kept, worn = [], []
    for _ in range(20):
        at = places(rng.uniform(-0.5, 0.5, 3), turn=rng.uniform(-0.5, 0.5))
        kept.append((carry_regions(labels, np.eye(4), at) == 4).sum() / (labels == 4).sum())
        worn.append((carry_labels(labels, np.eye(4), at) == 4).sum() / (labels == 4).sum())
    assert np.mean(worn) < 0.95
    assert abs(np.mean(kept) - 1.0) < 0.01
    assert np.abs(np.array(kept) - 1.0).max() < 0.04


def test_the_volume_is_the_sum_of_shares_and_the_voxels_are_those_with_most():
    labels = 7 * ellipsoid((4.0, 5.0, 6.0)).astype(np.int32)
    at = places((0.3, -0.2, 0.4), turn=0.3, scale=0.9)
    found = carry_regions(labels, np.eye(4), at) == 7
    share = ndimage.map_coordinates((labels == 7).astype(float), at.astype(float), order=1)
    assert found.sum() == pytest.approx(share.sum(), abs=0.51)
    assert share[found].min() >= share[~found].max() - 1e-5


def test_regions_that_touch_are_neither_torn_nor_mixed():
    """A head filled by two labels: no voxel inside is lost, whatever their volumes want."""
    labels = np.where(ellipsoid((14.0, 14.0, 12.0)), 2, 0).astype(np.int32)
    labels[ellipsoid((5.0, 5.0, 2.0))] = 9
    at = places((0.4, 0.1, -0.3), turn=0.2)
    found = carry_regions(labels, np.eye(4), at)
    inside = ndimage.map_coordinates((labels > 0).astype(float), at.astype(float), order=1) > 0.999
    assert (found[inside] > 0).all()
    assert set(np.unique(found)) == {0, 2, 9}


def test_where_many_regions_touch_no_voxel_inside_is_lost():
    """Sixty regions that fill a box, as parcellations fill a cortex; half of the grids make exact ties."""
    seeds = np.random.default_rng(5).uniform(0, 1, (60, 3)) * SHAPE
    cells = np.indices(SHAPE).reshape(3, -1).T
    labels = 1 + cKDTree(seeds).query(cells)[1].reshape(SHAPE).astype(np.int32)
    labels[:2] = labels[-2:] = 0
    for at in (places((0.5, 0.5, 0.5)), places((0.3, -0.2, 0.4), turn=0.3)):
        found = carry_regions(labels, np.eye(4), at)
        share = ndimage.map_coordinates((labels > 0).astype(float), at.astype(float), order=1)
        assert (found[share > 0.751] > 0).all()
        assert not found[share < 0.249].any()


def test_labels_at_voxel_centres_are_themselves_up_to_the_largest_there_can_be():
    labels = np.random.default_rng(2).choice([0, 7, 2**31 - 1, 2**31 - 2], SHAPE)
    found = carry_regions(labels, np.eye(4), np.indices(SHAPE).astype(np.float32))
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, labels)


def test_there_is_nothing_beyond_the_atlas():
    labels = np.full((6, 6, 6), 3)
    at = np.indices((9, 6, 6)).astype(np.float32)
    found = carry_regions(labels, np.eye(4), at)
    assert (found[:6] == 3).all()
    assert not found[6:].any()


def test_what_cannot_be_carried_is_refused():
    at = np.indices((2, 2, 2)).astype(np.float32)
    with pytest.raises(ValueError, match="must be integers"):
        carry_regions(np.zeros(SHAPE), np.eye(4), at)
    with pytest.raises(ValueError, match="0 to 2147483647"):
        carry_regions(np.full(SHAPE, 2**31), np.eye(4), at)
    with pytest.raises(ValueError, match="positions are float64"):
        carry_regions(np.zeros(SHAPE, np.int32), np.eye(4), at.astype(float))
    with pytest.raises(ValueError, match="to no volume"):
        carry_regions(np.zeros(SHAPE, np.int32), np.zeros((4, 4)), at)
