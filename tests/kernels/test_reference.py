"""Referencing by hand computation."""

import numpy as np
import pytest

from qsm_dask.kernels.reference import region, whole_brain

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
