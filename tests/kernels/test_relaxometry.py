"""R2* of decays that are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qsm_dask.applies import three_equispaced_echoes, two_echoes
from qsm_dask.kernels.relaxometry import arlo, equispaced, loglinear
from qsm_dask.scan import Geometry

RATES = np.array([2.0, 10.0, 20.0, 40.0, 80.0, 150.0, 300.0])
MASK = np.ones((RATES.size, 1, 1), bool)


def decay(te, rates=RATES, height=1000.0):
    return (height * np.exp(-np.multiply.outer(te, rates))).astype(np.float32)[:, :, None, None]


@given(st.integers(3, 9), st.floats(0.001, 0.008), st.floats(0.001, 0.01), st.floats(1e-3, 1e6))
def test_arlo_without_noise_has_only_the_error_of_simpsons_rule(echoes, spacing, first, height):
    te = first + spacing * np.arange(echoes)
    x = RATES * spacing
    truth = RATES * 3 * np.sinh(x) / (x * (np.cosh(x) + 2))
    found = arlo(decay(te, height=height), te, MASK)[:, 0, 0]
    np.testing.assert_allclose(found, truth, rtol=1e-4)


def test_arlo_is_within_a_thousandth_up_to_moderate_rates():
    te = 0.005 * np.arange(1, 7)
    found = arlo(decay(te), te, MASK)[:, 0, 0]
    moderate = RATES <= 120
    np.testing.assert_allclose(found[moderate], RATES[moderate], rtol=1e-3)


@given(st.lists(st.floats(0.001, 0.06), min_size=2, max_size=8, unique_by=lambda t: round(t, 3)))
def test_loglinear_is_exact_at_any_spacing(times):
    te = np.sort(times)
    rates = RATES[:5]
    found = loglinear(decay(te, rates), te, MASK[:5])[:, 0, 0]
    np.testing.assert_allclose(found, rates, rtol=2e-3, atol=1e-2)


def test_loglinear_is_the_weighted_fit_of_polyfit():
    te = np.array([0.004, 0.009, 0.013, 0.025])
    rng = np.random.default_rng(0)
    signal = decay(te)[..., 0, 0] * rng.uniform(0.9, 1.1, (4, RATES.size)).astype(np.float32)
    truth = [-np.polyfit(te, np.log(line), 1, w=line)[0] for line in signal.T.astype(np.float64)]
    found = loglinear(signal[:, :, None, None], te, MASK)[:, 0, 0]
    np.testing.assert_allclose(found, np.maximum(truth, 0), rtol=1e-4)


@pytest.mark.parametrize("fit", [arlo, loglinear])
def test_noise_does_not_bias_the_rate(fit):
    te = 0.005 * np.arange(1, 7)
    rng = np.random.default_rng(0)
    shape = (30, 30, 30)
    for rate in (20.0, 60.0):
        clean = np.exp(-rate * te)[:, None, None, None]
        signal = clean + 0.02 * (rng.standard_normal((6, *shape)) + 1j * rng.standard_normal((6, *shape)))
        found = fit(np.abs(signal).astype(np.float32), te, np.ones(shape, bool))
        assert np.median(found) == pytest.approx(rate, rel=0.02)


@pytest.mark.parametrize("fit", [arlo, loglinear])
def test_rates_are_clipped_and_dark_voxels_are_zero(fit):
    te = np.array([0.004, 0.008, 0.012])
    signal = np.zeros((3, 5, 1, 1), np.float32)
    signal[:, 1, 0, 0] = [1, 2, 3]
    signal[:, 2, 0, 0] = [1, 1e-6, 1e-12]
    signal[:, 3, 0, 0] = signal[:, 4, 0, 0] = np.exp(-50 * te)
    mask = np.ones((5, 1, 1), bool)
    mask[4] = False
    found = fit(signal, te, mask, max_per_s=400.0)[:, 0, 0]
    assert found[:3].tolist() == [0, 0, 400]
    assert found[3] == pytest.approx(50, rel=1e-3)
    assert found[4] == 0
    assert found.dtype == np.float32


def test_loglinear_leaves_out_echoes_without_signal():
    te = np.array([0.004, 0.008, 0.012])
    signal = decay(te)
    signal[2] = 0
    np.testing.assert_allclose(loglinear(signal, te, MASK)[:, 0, 0], RATES, rtol=1e-3)
    signal[1] = 0
    assert np.all(loglinear(signal, te, MASK) == 0)


def test_equal_spacing_allows_for_rounded_headers():
    assert equispaced([0.00423, 0.00846, 0.01270])
    assert equispaced([0.005])
    assert not equispaced([0.004, 0.008, 0.0125])


def test_the_reason_for_leaving_a_method_out():
    def scan(*te):
        return Geometry((4, 4, 4), (1.0, 1.0, 1.0), te)

    assert two_echoes(scan(0.004, 0.01)) is None
    assert two_echoes(scan(0.004)) == "needs at least 2 echoes, the scan has 1"
    assert three_equispaced_echoes(scan(0.004, 0.008, 0.012)) is None
    assert three_equispaced_echoes(scan(0.004, 0.008)) == "needs at least 3 equally spaced echoes, the scan has 2"
    assert three_equispaced_echoes(scan(0.004, 0.008, 0.02)) == "needs equally spaced echoes, the scan has 4, 8, 20 ms"


def test_faults_are_refused():
    te = (0.004, 0.008, 0.012)
    signal = decay(np.array(te))
    cases = [
        (arlo, (signal[:2], te[:2], MASK), {}, "relaxometry.loglinear"),
        (arlo, (signal, (0.004, 0.008, 0.02), MASK), {}, "relaxometry.loglinear"),
        (loglinear, (signal[:1], te[:1], MASK), {}, "at least 2 echoes"),
        (arlo, (signal, te, MASK[1:]), {}, "resample"),
        (arlo, (signal, te, ~MASK), {}, "mask is empty"),
        (loglinear, (signal[:2], te, MASK), {}, "equally many"),
        (loglinear, (signal * np.nan, te, MASK), {}, "magnitude is NaN"),
        (arlo, (signal, te, MASK), {"max_per_s": 0.0}, "max_per_s"),
    ]
    for fit, arguments, options, message in cases:
        with pytest.raises(ValueError, match=message):
            fit(*arguments, **options)
