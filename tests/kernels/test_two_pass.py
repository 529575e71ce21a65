"""Two maps into one, and the mask that tells them apart."""

import numpy as np
import pytest
from scipy.ndimage import label

from qsm_dask.kernels.dipole import forward_field
from qsm_dask.kernels.inversion.rts import rts
from qsm_dask.kernels.inversion.two_pass import two_pass
from qsm_dask.kernels.masking import field_quality
from tests.kernels.analytic import OBLIQUE, head, relative_error, sphere_fraction
from tests.kernels.fields import ball

SHAPE = (20, 18, 16)
FILLED = ball(SHAPE, (10, 9, 8), 7)
HOLE = ball(SHAPE, (10, 9, 8), 2)


def test_holes_come_from_the_filled_map_shifted_to_the_mean_of_the_other():
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 0.05, SHAPE).astype(np.float32)
    chi = two_pass(truth + np.float32(0.3), FILLED, truth - np.float32(0.1), FILLED & ~HOLE)
    np.testing.assert_allclose(chi[FILLED], truth[FILLED] - 0.1, atol=1e-6)
    assert not chi[~FILLED].any()
    assert chi.dtype == np.float32


def test_the_reliable_map_stands_where_it_is_known():
    one, two = np.full(SHAPE, 2.0, np.float32), np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    reliable = FILLED & ~HOLE
    chi = two_pass(one, FILLED, two, reliable)
    np.testing.assert_array_equal(chi[reliable], two[reliable])
    np.testing.assert_allclose(chi[FILLED & HOLE], two[reliable].mean(), atol=1e-5)


def test_an_unreliable_source_streaks_in_one_pass_and_not_in_two():
    """The field is right around a source of 2 ppm and noise inside it; the first pass has neither."""
    shape, size = (40, 44, 36), (2.0, 2.0, 2.0)
    chi, field, mask = head(shape, size, OBLIQUE)
    strong = 2.0 * sphere_fraction(shape, size, 6.0, centre=(14.0, 25.0, 20.0))
    hole = strong > 0
    strong_field = forward_field(strong.astype(np.float32), size, OBLIQUE)
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, shape) * hole
    dirty = (field + strong_field * ~hole + noise).astype(np.float32)
    filled = rts(dirty, mask, size, OBLIQUE)[0]
    reliable = mask & ~hole
    first = rts(field.astype(np.float32), reliable, size, OBLIQUE)[0]
    both = two_pass(filled, mask, first, reliable)

    def error(found):
        return relative_error(found[reliable] - found[reliable].mean(), chi[reliable] - chi[reliable].mean())

    assert error(both) < 0.4 * error(filled)
    inside = strong > 1.9
    contrast = filled[inside].mean() - filled[reliable].mean()
    assert both[inside].mean() - both[reliable].mean() == pytest.approx(contrast, abs=1e-4)


def test_maps_that_do_not_belong_together_are_refused():
    chi = np.zeros(SHAPE, np.float32)
    broken = chi.copy()
    broken[10, 12, 8] = np.nan
    cases = [
        ((chi, FILLED, chi[1:], FILLED[1:]), "resample"),
        ((chi, FILLED, chi, FILLED & False), "mask is empty"),
        ((chi, HOLE, chi, FILLED & ~HOLE), "share no voxel"),
        ((broken, FILLED, chi, FILLED), "chi_filled is NaN"),
        ((chi, FILLED, broken, FILLED), "chi_reliable is NaN"),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            two_pass(*arguments)


def noisy(shape=SHAPE):
    noise = np.full(shape, 0.001, np.float32)
    noise[HOLE] = 0.0035
    residual = np.full(shape, 0.05, np.float32)
    residual[10, 14, 8] = 0.8
    return noise, residual


def test_noisy_voxels_and_those_off_the_line_become_holes():
    noise, residual = noisy()
    expected = FILLED & ~HOLE
    np.testing.assert_array_equal(field_quality(FILLED, noise), expected)
    expected[10, 14, 8] = False
    np.testing.assert_array_equal(field_quality(FILLED, noise, residual), expected)
    np.testing.assert_array_equal(field_quality(FILLED, noise, noise_ratio=4.0), FILLED)
    np.testing.assert_array_equal(field_quality(FILLED, noise, residual, noise_ratio=4.0, residual_rad=1.0), FILLED)


def test_islands_go_and_values_outside_the_mask_do_not_count():
    noise, _ = noisy()
    noise[~FILLED] = np.nan
    noise[5:8][FILLED[5:8]] = 0.01  # cuts a cap off
    kept = field_quality(FILLED, noise)
    assert label(kept)[1] == 1
    assert not kept[:8].any()


def test_fields_that_cannot_be_judged_are_refused():
    noise, residual = noisy()
    broken = noise.copy()
    broken[10, 12, 8] = np.inf
    cases = [
        ((FILLED, broken), {}, "field_noise is NaN or infinite"),
        ((FILLED, noise[1:]), {}, "resample"),
        ((FILLED & False, noise), {}, "mask is empty"),
        ((FILLED, noise), {"noise_ratio": 0.0}, "noise_ratio"),
        ((FILLED, noise, residual), {"residual_rad": 0.01}, "no voxel is left"),
    ]
    for arguments, options, message in cases:
        with pytest.raises(ValueError, match=message):
            field_quality(*arguments, **options)
