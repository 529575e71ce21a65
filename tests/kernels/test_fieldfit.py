"""Fits of the field: exact without noise, unbiased with it, and as noisy as they say."""

import numpy as np
import pytest

from qsm_dask.kernels.fieldfit import linear_fit, nonlinear_fit
from qsm_dask.kernels.fieldmap import weighted_mean
from tests.kernels.fields import accrued, ball, smooth, wrap

RADIANS = 2 * np.pi * 42.577 * 3.0  # of one ppm at 3 T in a second
SHAPE = (40, 36, 24)
MASK = ball(SHAPE, (20, 18, 12), 11)
TIMES = [(0.004, 0.009, 0.017), (0.005, 0.010, 0.015, 0.020), (0.006, 0.011)]


def slow_offset():
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij", sparse=True)
    return 1.0 + 0.8 * x - 0.6 * y + 0.5 * z


def true_field(te, steepest=0.6):
    """Field [rad/s] whose steepest step accrues `steepest` between the first two echoes, median zero."""
    field = smooth(SHAPE, 3, steepest) / (te[1] - te[0])
    return field - np.median(field[MASK])


@pytest.mark.parametrize("te", TIMES)
def test_without_noise_both_fits_are_exact_under_any_offset(te):
    field, offset = true_field(te), slow_offset()
    phase = accrued(field, te) + offset
    magnitude = np.random.default_rng(0).uniform(0.2, 1, phase.shape)
    linear = linear_fit(phase, MASK, te, 3.0, magnitude)
    nonlinear = nonlinear_fit(wrap(phase), MASK, te, 3.0, magnitude)
    assert nonlinear[3].converged
    for found in (linear, nonlinear):
        np.testing.assert_allclose(found[0][MASK], (field / RADIANS)[MASK], atol=2e-5)
        assert found[2].max() < 1e-4
        for array in found[:3]:
            assert array.dtype == np.float32
            assert np.all(array[~MASK] == 0)


def test_the_line_is_that_of_polyfit():
    te, mask = (0.004, 0.009, 0.017, 0.02), np.ones((3, 4, 5), bool)
    rng = np.random.default_rng(0)
    phase, magnitude = rng.normal(size=(4, 3, 4, 5)), rng.uniform(0.2, 1, (4, 3, 4, 5))
    field, _, residual = linear_fit(phase, mask, te, 3.0, magnitude)
    slope, value = np.polyfit(te, phase[:, 1, 2, 3], 1, w=magnitude[:, 1, 2, 3])
    rest = phase[:, 1, 2, 3] - value - slope * np.array(te)
    assert field[1, 2, 3] == pytest.approx(slope / RADIANS, rel=1e-5)
    assert residual[1, 2, 3] == pytest.approx(
        np.sqrt(np.average(rest**2, weights=magnitude[:, 1, 2, 3] ** 2)), rel=1e-5
    )


def test_without_intercept_it_is_the_weighted_mean():
    te = (0.004, 0.009, 0.017)
    rng = np.random.default_rng(0)
    phase = accrued(true_field(te), te) + 0.05 * rng.standard_normal((3, *SHAPE))
    magnitude = rng.uniform(0.2, 1, phase.shape)
    fit = linear_fit(phase, MASK, te, 3.0, magnitude, intercept=False)
    for a, b in zip(fit, weighted_mean(phase, MASK, te, 3.0, magnitude), strict=False):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    single = linear_fit(phase[:1], MASK, te[:1], 3.0, intercept=False)
    np.testing.assert_allclose(single[0][MASK], (phase[0] / te[0] / RADIANS)[MASK], rtol=1e-5)


def noisy(te, truth, strength, level, seed):
    rng = np.random.default_rng(seed)
    signal = strength * np.exp(1j * truth)
    return signal + level * (rng.standard_normal(signal.shape) + 1j * rng.standard_normal(signal.shape))


@pytest.mark.parametrize("te", TIMES)
@pytest.mark.parametrize("method", [linear_fit, nonlinear_fit])
def test_the_noise_told_is_that_of_many_realisations(method, te):
    """And the mean over them is the truth. The magnitude varies in space and decays."""
    x = np.linspace(0.4, 1.2, SHAPE[0])[:, None, None]
    strength = np.stack([np.exp(-25 * t) * x + np.zeros(SHAPE) for t in te])
    truth = accrued(true_field(te, 0.3), te) + slow_offset()
    fields, told = [], []
    for seed in range(40):
        signal = noisy(te, truth, strength, 0.02, seed)
        if method is linear_fit:
            unwrapped = truth + np.angle(signal * np.exp(-1j * truth))
            found = method(unwrapped, MASK, te, 3.0, np.abs(signal))
        else:
            found = method(np.angle(signal), MASK, te, 3.0, np.abs(signal))
        fields.append(found[0][MASK])
        told.append(found[1][MASK])
    spread, told = np.std(fields, axis=0, ddof=1), np.mean(told, axis=0)
    bright = np.broadcast_to(x, SHAPE)[MASK] > np.median(np.broadcast_to(x, SHAPE)[MASK])
    for part in (bright, ~bright):
        assert np.sqrt(np.mean(told[part] ** 2) / np.mean(spread[part] ** 2)) == pytest.approx(1, rel=0.03)
    bias = np.mean(fields, axis=0) - (true_field(te, 0.3) / RADIANS)[MASK]
    assert np.abs(np.mean(bias)) < 5 * np.mean(told) / np.sqrt(40 * bias.size)


def test_a_turn_too_many_in_an_echo_does_not_reach_the_nonlinear_fit():
    te = (0.005, 0.010, 0.015, 0.020)
    truth = accrued(true_field(te), te)
    nonlinear = nonlinear_fit(truth + 2 * np.pi * (np.arange(4) % 2)[:, None, None, None], MASK, te, 3.0)[0]
    np.testing.assert_allclose(nonlinear[MASK], (true_field(te) / RADIANS)[MASK], atol=2e-5)


def test_the_nonlinear_fit_is_the_minimum_that_a_search_finds():
    """At an SNR of three, where sine and line differ."""
    te, mask = np.array([0.004, 0.008, 0.012, 0.016]), np.ones((4, 4, 4), bool)
    signal = noisy(te, np.zeros((4, 4, 4, 4)), 1.0, 0.3, 0)
    phase, magnitude = np.angle(signal), np.abs(signal)
    field = nonlinear_fit(phase, mask, te, 3.0, magnitude)[0] * RADIANS
    rates = np.linspace(-150, 150, 6001)
    weights, at = magnitude[:, 1, 2, 3] ** 2, phase[:, 1, 2, 3]
    coherence = np.abs(np.sum(weights[:, None] * np.exp(1j * (at[:, None] - te[:, None] * rates)), axis=0))
    assert field[1, 2, 3] == pytest.approx(rates[coherence.argmax()], abs=0.06)


@pytest.mark.parametrize("method", [linear_fit, nonlinear_fit])
def test_dark_voxels_are_finite_and_as_noisy_as_can_be(method):
    te = (0.005, 0.010, 0.015)
    rng = np.random.default_rng(0)
    phase = accrued(true_field(te), te) + 0.02 * rng.standard_normal((3, *SHAPE))
    phase[:, ~MASK] = np.nan
    magnitude = np.ones_like(phase)
    magnitude[:, 20, 18, 12] = 0  # no echo
    magnitude[1:, 20, 18, 14] = 0  # one echo
    magnitude[2, 20, 18, 10] = 0  # two echoes
    field, told, residual = method(phase, MASK, te, 3.0, magnitude)[:3]
    for array in (field, told, residual):
        assert np.isfinite(array).all()
    uniform = np.pi / np.sqrt(3) * np.sqrt(2) / 0.010 / RADIANS
    assert told[20, 18, 12] == pytest.approx(uniform, rel=1e-3)
    assert told[20, 18, 14] == pytest.approx(uniform / np.sqrt(2), rel=1e-3)
    assert told[20, 18, 10] == pytest.approx(np.sqrt(2) * 0.02 / 0.005 / RADIANS, rel=0.05)
    nowhere = method(phase, MASK, te, 3.0, np.zeros_like(phase))
    np.testing.assert_allclose(nowhere[1][MASK], uniform, rtol=1e-5)


def test_the_noise_of_phase_alone():
    te = (0.005, 0.010, 0.015, 0.020)
    rng = np.random.default_rng(0)
    phase = accrued(true_field(te), te) + 0.03 * rng.standard_normal((4, *SHAPE))
    for told in (linear_fit(phase, MASK, te, 3.0)[1], nonlinear_fit(phase, MASK, te, 3.0)[1]):
        np.testing.assert_allclose(told[MASK], 0.03 / (0.005 * np.sqrt(5)) / RADIANS, rtol=0.03)


def test_faults_are_refused():
    phase, mask, te = np.zeros((2, 4, 4, 4), np.float32), np.ones((4, 4, 4), bool), (0.005, 0.01)
    for method in (linear_fit, nonlinear_fit):
        for arguments, options, message in [
            ((phase[:1], mask, te[:1], 3.0), {}, "at least 2 echoes"),
            ((phase, mask, te, 0.0), {}, "b0"),
            ((phase, mask, (0.005,), 3.0), {}, "echo"),
            ((phase * np.nan, mask, te, 3.0), {}, "phase is NaN"),
            ((phase, ~mask, te, 3.0), {}, "mask is empty"),
            ((phase, mask[1:], te, 3.0), {}, "resample"),
            ((phase, mask, te, 3.0, phase * np.nan), {}, "magnitude is NaN"),
        ]:
            with pytest.raises(ValueError, match=message):
                method(*arguments, **options)
    for name in ("tolerance_rad", "iterations"):
        with pytest.raises(ValueError, match=name):
            nonlinear_fit(phase, mask, te, 3.0, **{name: 0})
