"""R2* of decays that sink into the noise, against what is known of them."""

import numpy as np
import pytest
from scipy.optimize import least_squares
from scipy.stats import rice

from qsm_dask.applies import three_echoes
from qsm_dask.kernels.decay import nonlinear, r2prime, t2star
from qsm_dask.kernels.relaxometry import loglinear
from qsm_dask.scan import Geometry

RATES = np.array([2.0, 10.0, 20.0, 40.0, 80.0, 150.0, 300.0])
MASK = np.ones((RATES.size, 1, 1), bool)
TE = (0.004, 0.009, 0.013, 0.025)


def decay(te, rates=RATES, height=1000.0):
    return (height * np.exp(-np.multiply.outer(te, rates))).astype(np.float32)[:, :, None, None]


def noisy(te, rate, level, shape, seed=0):
    rng = np.random.default_rng(seed)
    signal = np.exp(-rate * np.array(te))[:, None, None, None] + level * rng.standard_normal((len(te), *shape))
    return np.abs(signal + 1j * level * rng.standard_normal(signal.shape)).astype(np.float32)


@pytest.mark.parametrize("level", [None, 0.0])
def test_without_noise_it_is_exact_at_any_spacing(level):
    found, solved = nonlinear(decay(TE), TE, MASK, noise_level=level)
    np.testing.assert_allclose(found[:, 0, 0], RATES, rtol=2e-3)
    assert solved.converged
    assert found.dtype == np.float32


def test_means_of_rician_noise_give_the_rate_that_made_them():
    """Also where the last echoes are nothing but noise; the means are those of scipy's distribution."""
    te = 0.004 * np.arange(1, 9)
    signal = decay(te)[..., 0, 0].astype(np.float64)
    means = np.stack([rice(line / 60, scale=60).mean() for line in signal])[:, :, None, None]
    found, _ = nonlinear(means, te, MASK, noise_level=60.0)
    np.testing.assert_allclose(found[:, 0, 0], RATES, rtol=5e-3, atol=0.02)


def test_it_is_the_least_squares_that_scipy_finds():
    signal = noisy(TE, 50.0, 0.1, (4, 4, 4)).astype(np.float64)
    found, _ = nonlinear(signal, TE, np.ones((4, 4, 4), bool), noise_level=0.1)

    def rest(p):
        return rice(np.maximum(p[0], 0) * np.exp(-p[1] * np.array(TE)) / 0.1, scale=0.1).mean() - signal[:, 1, 2, 3]

    truth = least_squares(rest, (1.0, 50.0), x_scale=(1.0, 50.0), xtol=1e-12).x[1]
    assert found[1, 2, 3] == pytest.approx(truth, rel=5e-3)


def test_the_noise_floor_does_not_bias_it():
    """Echoes down to half the noise: the others are a twentieth too low or more, this is not."""
    te = 0.005 * np.arange(1, 9)
    signal, mask = noisy(te, 90.0, 0.05, (30, 30, 30)), np.ones((30, 30, 30), bool)
    assert np.median(nonlinear(signal, te, mask, noise_level=0.05)[0]) == pytest.approx(90, rel=0.02)
    plain = np.median(nonlinear(signal, te, mask, noise_level=0.0)[0])
    assert plain < 0.95 * 90
    assert np.median(loglinear(signal, te, mask)) < 0.95 * 90


@pytest.mark.parametrize("rate", [20.0, 60.0])
def test_with_the_noise_it_estimates_it_has_no_bias_either(rate):
    te = 0.005 * np.arange(1, 7)
    found, _ = nonlinear(noisy(te, rate, 0.03, (30, 30, 30)), te, np.ones((30, 30, 30), bool))
    assert np.median(found) == pytest.approx(rate, rel=0.02)


def test_rates_are_bounded_and_dark_voxels_are_zero():
    te = np.array([0.004, 0.008, 0.012])
    signal = np.zeros((3, 5, 1, 1), np.float32)
    signal[:, 1, 0, 0] = [1, 2, 3]
    signal[:, 2, 0, 0] = [1, 1e-6, 1e-12]
    signal[:, 3, 0, 0] = signal[:, 4, 0, 0] = np.exp(-50 * te)
    mask = np.ones((5, 1, 1), bool)
    mask[4] = False
    signal[:, 4] = np.nan
    found = nonlinear(signal, te, mask, noise_level=0.0, max_per_s=400.0)[0][:, 0, 0]
    assert found[0] == found[1] == found[4] == 0
    assert found[2] == pytest.approx(400)
    assert found[3] == pytest.approx(50, rel=1e-3)


def test_t2star_is_the_inverse():
    rate = np.array([0.0, -1.0, 1.0, 20.0, np.nan], np.float32)[:, None, None]
    mask = np.array([True, True, True, True, False])[:, None, None]
    found = t2star(rate, mask, max_s=0.4)
    np.testing.assert_allclose(found[:, 0, 0], [0, 0, 0.4, 0.05, 0])
    assert found.dtype == np.float32


def test_faults_are_refused():
    te = TE[:3]
    signal = decay(te)
    cases = [
        (nonlinear, (signal[:2], te[:2], MASK), {}, "at least 3 echoes"),
        (nonlinear, (signal, te, MASK[1:]), {}, "resample"),
        (nonlinear, (signal, te, ~MASK), {}, "mask is empty"),
        (nonlinear, (signal * np.nan, te, MASK), {}, "magnitude is NaN"),
        (nonlinear, (signal, te, MASK), {"noise_level": -1.0}, "noise_level"),
        (nonlinear, (signal, te, MASK), {"max_per_s": 0.0}, "max_per_s"),
        (t2star, (signal[0], MASK), {"max_s": 0.0}, "max_s"),
        (t2star, (signal[0] * np.nan, MASK), {}, "r2star is NaN"),
    ]
    for method, arguments, options, message in cases:
        with pytest.raises(ValueError, match=message):
            method(*arguments, **options)


def test_the_reason_for_leaving_it_out():
    assert three_echoes(Geometry((4, 4, 4), (1.0, 1.0, 1.0), (0.004, 0.01))) == (
        "needs at least 3 echoes, the scan has 2"
    )
    assert three_echoes(Geometry((4, 4, 4), (1.0, 1.0, 1.0), TE)) is None


def test_r2prime_is_the_difference_and_never_negative():
    def column(*values):
        return np.array(values, np.float32).reshape(-1, 1, 1)

    mask = np.array([True, True, True, True, False]).reshape(-1, 1, 1)
    #        a difference, a negative one, R2 not measured, no decay, outside
    found = r2prime(column(30, 10, 30, 0, np.nan), column(12, 13, 0, 12, np.nan), mask)
    assert found[:, 0, 0].tolist() == [18, 0, 0, 0, 0]
    assert found.dtype == np.float32
    for r2star, r2, message in (
        (column(30, 10, np.nan, 0, 0), column(12, 13, 1, 1, 1), "r2star is NaN"),
        (column(30, 10, 30, 0, 0), column(12, np.inf, 1, 1, 1), "r2 is NaN or infinite"),
        (column(30, 10, 30, 0, 0), column(12, 13), "r2 has shape"),
    ):
        with pytest.raises(ValueError, match=message):
            r2prime(r2star, r2, mask)


def test_clipping_raises_the_mean_of_r2prime_by_what_its_docstring_says():
    """Of a Gaussian of no mean, the positive part has the mean 1 / sqrt(2 pi) = 0.399."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((40, 40, 40)).astype(np.float32)
    found = r2prime(20 + noise, np.full(noise.shape, 20, np.float32), np.ones(noise.shape, bool))
    assert found.mean() == pytest.approx(0.399, abs=0.01)
