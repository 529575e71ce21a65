"""Referencing by hand computation."""

import numpy as np
import pytest
from scipy import ndimage

from qsm_dask.kernels.mixture import gaussian_among_uniform
from qsm_dask.kernels.reference import csf, region, whole_brain
from tests.kernels.analytic import ellipsoid

CHI = np.array([[[1.0, 2.0], [3.0, 6.0]]], np.float32)
MASK = np.array([[[True, True], [True, False]]])
DSEG = np.array([[[1, 2], [2, 2]]], np.int32)


def test_whole_brain_subtracts_the_mean_over_the_mask():
    chi, reference = whole_brain(CHI, MASK)
    np.testing.assert_allclose(chi, [[[-1, 0], [1, 0]]])
    np.testing.assert_allclose(reference, [2.0, np.sqrt(2 / 3), 3])
    assert (chi.dtype, reference.dtype) == (np.float32, np.float64)


def test_region_subtracts_the_mean_over_its_labels_inside_the_mask():
    chi, reference = region(CHI, DSEG, MASK, labels=(2, 7))
    np.testing.assert_allclose(chi, [[[-1.5, -0.5], [0.5, 0]]])
    np.testing.assert_allclose(reference, [2.5, 0.5, 2])


def test_what_lies_outside_the_mask_is_not_read():
    chi, reference = whole_brain(np.where(MASK, CHI, np.nan), MASK)
    np.testing.assert_allclose(chi, [[[-1, 0], [1, 0]]])
    assert np.isfinite(reference).all()


def test_sums_are_in_float64():
    chi = np.full((64, 64, 64), 0.1, np.float32)
    _, reference = whole_brain(chi, np.ones(chi.shape, bool))
    assert reference[0] == pytest.approx(np.float64(np.float32(0.1)), rel=1e-12)


@pytest.mark.parametrize(
    ("chi", "mask", "message"),
    [
        (CHI, np.zeros_like(MASK), "empty"),
        (CHI, np.ones((1, 2, 3), bool), "shape"),
        (np.full_like(CHI, np.nan), MASK, "NaN"),
    ],
)
def test_references_refuse(chi, mask, message):
    with pytest.raises(ValueError, match=message):
        whole_brain(chi, mask)
    with pytest.raises(ValueError, match=message):
        region(chi, DSEG, mask, labels=(1,))


def test_region_refuses_labels_that_lie_nowhere_inside_the_mask():
    with pytest.raises(ValueError, match="labels"):
        region(CHI, np.where(MASK, 1, 2), MASK, labels=(2,))
    with pytest.raises(ValueError, match="dseg"):
        region(CHI, DSEG[..., :1], MASK, labels=(2,))


SIZE = (2.0, 2.0, 2.5)


def ventricle(seed=0, strangers=0.15):
    """A head with an ellipsoid of fluid of 0.015 +- 0.01 ppm, in which some voxels are anything from -1 to 0.3 ppm."""
    rng = np.random.default_rng(seed)
    mask = ellipsoid((50, 60, 40), SIZE, (46, 56, 46))
    fluid = ellipsoid(mask.shape, SIZE, (12, 22, 14))
    chi = np.where(fluid, 0.015 + 0.01 * rng.standard_normal(mask.shape), -0.01)
    odd = fluid & (rng.random(mask.shape) < strangers)
    chi[odd] = rng.uniform(-1.0, 0.3, np.count_nonzero(odd))
    rate = np.where(fluid, 2.0, 20.0)
    return chi.astype(np.float32), mask, rate.astype(np.float32), fluid


@pytest.mark.parametrize("seed", range(3))
def test_fluid_is_told_from_what_lies_in_it(seed):
    chi, mask, rate, fluid = ventricle(seed)
    offset, deviation, number = csf(chi, mask, SIZE, rate)
    inner = np.count_nonzero(ndimage.binary_erosion(fluid))
    assert offset == pytest.approx(0.015, abs=4 * 0.01 / np.sqrt(number))
    assert deviation == pytest.approx(0.01, rel=0.1)
    assert number == pytest.approx(0.85 * inner, rel=0.05)
    assert abs(chi[fluid].mean() - 0.015) > 0.03  # which the plain mean is not


def test_labels_say_where_the_fluid_is_and_the_map_may_have_any_zero():
    chi, mask, rate, fluid = ventricle()
    dseg = np.where(fluid, np.where(np.arange(60)[:, None] < 30, 4, 43), 2).astype(np.int32)
    from_rate, from_labels = csf(chi, mask, SIZE, rate), csf(chi, mask, SIZE, None, dseg, labels=(4, 43))
    np.testing.assert_array_equal(from_rate, from_labels)
    moved = csf(chi + np.float32(0.25), mask, SIZE, rate)
    np.testing.assert_allclose(moved, from_rate + np.array([0.25, 0, 0]), rtol=1e-3, atol=1e-6)


def test_no_fluid_is_unknown_and_not_an_error():
    chi, mask, rate, _ = ventricle()
    few = np.where(np.arange(50 * 60 * 40).reshape(mask.shape) % 4000 == 30, 1.0, 20.0).astype(np.float32)
    for given in ((np.full_like(rate, 20),), (few,), (None,), (None, np.ones(mask.shape, np.int32))):
        np.testing.assert_array_equal(csf(chi, mask, SIZE, *given, labels=(7,)), [np.nan, np.nan, 0])


def test_the_mixture_of_one_value_is_that_value():
    assert gaussian_among_uniform(np.full(60, 0.2)) == (0.2, 0.0, 60.0)
    assert gaussian_among_uniform(np.array([0.1, *[0.2] * 60, 0.9])) == (0.2, 0.0, 60.0)
