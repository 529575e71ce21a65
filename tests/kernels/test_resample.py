"""Interpolation at given positions: against scipy, against maps known by formula, and at its edges."""

import numpy as np
import pytest
from scipy import ndimage

from qsm_dask.kernels.resample import block_mean, carry_labels, jacobian, refined, sample

SHAPE = (9, 8, 11)


def affine_of(seed=3):
    """An oblique, anisotropic affine whose first axis runs backwards."""
    turn, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-1.5, 2.0, 3.1])
    affine[:3, 3] = (4.0, -7.0, 11.0)
    return affine


def positions_in(affine, index):
    """Positions [mm] of voxel indices (3, …)."""
    moved = np.tensordot(affine[:3, :3], index, axes=1) + affine[:3, 3].reshape(3, 1, 1, 1)
    return moved.astype(np.float32)


def some_indices(shape=(5, 6, 7), low=-1.5, seed=1):
    rng = np.random.default_rng(seed)
    high = np.array(SHAPE).reshape(3, 1, 1, 1) - 1 - low
    return low + rng.random((3, *shape)) * (high - low)


def inside(index):
    return ((index >= 0) & (index <= np.array(SHAPE).reshape(3, 1, 1, 1) - 1)).all(axis=0)


def test_values_are_those_of_scipy_inside_and_zero_outside():
    image = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    index = some_indices()
    found = sample(image, affine_of(), positions_in(affine_of(), index))
    expected = ndimage.map_coordinates(image.astype(np.float64), index, order=1)
    np.testing.assert_allclose(found, np.where(inside(index), expected, 0.0), atol=2e-5)
    assert inside(index).any()
    assert not inside(index).all()


def test_labels_are_those_whose_linear_share_is_largest():
    labels = np.random.default_rng(2).integers(0, 4, SHAPE).astype(np.int32) * 1000
    index = some_indices(shape=(8, 9, 10), seed=4)
    found = carry_labels(labels, affine_of(), positions_in(affine_of(), index))
    shares = [ndimage.map_coordinates((labels == value).astype(float), index, order=1) for value in np.unique(labels)]
    clear = np.sort(shares, axis=0)[-1] - np.sort(shares, axis=0)[-2] > 1e-4
    expected = np.unique(labels)[np.argmax(shares, axis=0)]
    chosen = clear & inside(index)
    assert chosen.sum() > 200
    np.testing.assert_array_equal(found[chosen], expected[chosen])
    assert not found[~inside(index)].any()


def test_labels_at_voxel_centres_are_themselves_up_to_the_largest_there_can_be():
    labels = np.random.default_rng(2).choice([0, 7, 2**31 - 1, 2**31 - 2], SHAPE)
    at = positions_in(np.diag([2.0, 3.0, 4.0, 1.0]), np.indices(SHAPE).astype(float))
    found = carry_labels(labels, np.diag([2.0, 3.0, 4.0, 1.0]), at)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, labels)


def test_of_two_labels_with_equal_shares_the_lower_wins():
    labels = np.zeros((2, 2, 2), np.int32)
    labels[0], labels[1] = 9, 4
    middle = np.full((3, 1, 1, 1), 0.5, np.float32)
    assert carry_labels(labels, np.eye(4), middle).item() == 4


def test_the_jacobian_of_a_linear_map_is_its_determinant_on_any_grid():
    scan, linear = affine_of(5), np.diag([1.2, 0.9, 1.1]) + 0.05
    index = np.indices((4, 5, 6)).astype(float)
    mapped = np.tensordot(linear, positions_in(scan, index).astype(float), axes=1).astype(np.float32)
    np.testing.assert_allclose(jacobian(mapped, scan), np.linalg.det(linear), rtol=1e-4)


def test_the_jacobian_of_a_fold_is_negative():
    scan = np.eye(4)
    at = positions_in(scan, np.indices((6, 4, 4)).astype(float))
    at[0, 3:] = 5.0 - at[0, 3:]
    found = jacobian(at, scan)
    assert found[0, 0, 0] == 1.0
    assert found[5, 0, 0] == -1.0


@pytest.mark.parametrize("step", [(1, 1, 1), (2, 2, 2), (3, 1, 2)])
def test_a_linear_map_is_refined_exactly_beyond_the_outermost_centres_too(step):
    shape = (7, 6, 9)
    fine = np.indices(shape).astype(float)
    linear = np.array([[1.0, 0.2, 0.0], [0.1, 2.0, -0.3], [0.0, 0.4, 1.5]])
    coarse_index = np.indices([-(-n // s) for n, s in zip(shape, step, strict=True)]).astype(float)
    centres = [s * i + (s - 1) / 2 for s, i in zip(step, coarse_index, strict=True)]
    coarse = np.tensordot(linear, np.stack(centres), axes=1).astype(np.float32)
    np.testing.assert_allclose(refined(coarse, step, shape), np.tensordot(linear, fine, axes=1), atol=1e-4)


def test_blocks_are_means_and_the_last_may_be_short():
    values = np.arange(5, dtype=np.float32).reshape(5, 1, 1) * np.ones((5, 2, 3), np.float32)
    found = block_mean(values, (2, 1, 3))
    assert found.shape == (3, 2, 1)
    np.testing.assert_array_equal(found[:, 0, 0], [0.5, 2.5, 4.0])


def test_what_cannot_be_read_is_refused():
    at = positions_in(np.eye(4), np.indices((2, 2, 2)).astype(float))
    with pytest.raises(ValueError, match="must be integers"):
        carry_labels(np.zeros(SHAPE), np.eye(4), at)
    with pytest.raises(ValueError, match="0 to 2147483647"):
        carry_labels(np.full(SHAPE, 2**31), np.eye(4), at)
    with pytest.raises(ValueError, match="cannot be interpolated"):
        sample(np.zeros((4, 4)), np.eye(4), at)
    with pytest.raises(ValueError, match="float32"):
        sample(np.zeros(SHAPE), np.eye(4), at.astype(float))
    with pytest.raises(ValueError, match="to no volume"):
        sample(np.zeros(SHAPE), np.zeros((4, 4)), at)
