"""The combination of echoes, by hand and by its noise."""

import numpy as np
import pytest

from qsm_dask.kernels.fieldmap import weighted_mean
from tests.kernels.fields import accrued, smooth

WEIGHTINGS = ["phase_variance", "phase_snr", "uniform"]


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("te", [(0.02,), (0.004, 0.01, 0.023)])
def test_a_field_of_one_ppm(weighting, te):
    """At 3 T one ppm is 127.731 Hz, so 8.0256 rad in 10 ms."""
    mask = np.ones((3, 4, 5), bool)
    mask[0] = False
    phase = np.stack([np.full(mask.shape, 802.557 * t, np.float32) for t in te])
    magnitude = np.random.default_rng(0).uniform(0.1, 1, phase.shape).astype(np.float32)
    field, _ = weighted_mean(phase, mask, te, 3.0, magnitude, weighting=weighting)
    np.testing.assert_allclose(field[mask], 1, rtol=1e-5)
    assert np.all(field[~mask] == 0)
    assert field.dtype == np.float32


def test_weights_by_hand():
    te, mask = (0.01, 0.02), np.ones((1, 1, 1), bool)
    rates = np.array([100.0, 130.0])
    phase = (rates * te).astype(np.float32).reshape(2, 1, 1, 1)
    magnitude = np.array([1.0, 0.7], np.float32).reshape(2, 1, 1, 1)
    radians = 2 * np.pi * 42.577 * 7.0
    for weighting, weights in [
        ("phase_variance", [1e-4, 0.49 * 4e-4]),
        ("phase_snr", [0.01, 0.014]),
        ("uniform", [1, 1]),
    ]:
        field = weighted_mean(phase, mask, te, 7.0, magnitude, weighting=weighting)[0][0, 0, 0]
        assert field == pytest.approx(np.average(rates, weights=weights) / radians, rel=1e-5)
    without = weighted_mean(phase, mask, te, 7.0)[0][0, 0, 0]
    assert without == pytest.approx(np.average(rates, weights=[1, 4]) / radians, rel=1e-5)


def test_zero_magnitude_takes_the_echoes_as_equally_bright():
    te, mask = (0.005, 0.012), np.ones((4, 4, 4), bool)
    phase = accrued(smooth((4, 4, 4), 0, 1.0) / 0.01, te).astype(np.float32)
    phase[1] += 0.3
    np.testing.assert_array_equal(
        weighted_mean(phase, mask, te, 3.0, np.zeros_like(phase))[0], weighted_mean(phase, mask, te, 3.0)[0]
    )


def test_phase_variance_is_the_least_noisy_and_has_the_noise_it_should():
    """Noise s/m a phase gives the optimal mean a variance of s^2 / sum (m TE)^2."""
    te = np.array([0.004, 0.012, 0.024, 0.036])
    magnitude = np.exp(-30 * te)
    shape = (40, 40, 40)
    rng = np.random.default_rng(0)
    noise = 0.02 * rng.standard_normal((4, *shape)) / magnitude[:, None, None, None]
    strength = np.broadcast_to(magnitude[:, None, None, None], noise.shape)
    expected = 0.02 / np.sqrt(np.sum((magnitude * te) ** 2)) / (2 * np.pi * 42.577 * 3.0)
    noises = {}
    for weighting in WEIGHTINGS:
        field, told = weighted_mean(noise, np.ones(shape, bool), te, 3.0, strength, weighting=weighting)
        noises[weighting] = field.std()
        np.testing.assert_allclose(told, noises[weighting], rtol=0.02)
    assert noises["phase_variance"] == pytest.approx(expected, rel=0.01)
    assert noises["phase_variance"] < noises["phase_snr"] < noises["uniform"]


def test_the_noise_of_a_single_echo_is_told_from_its_neighbours():
    """In the presence of a field that varies by half a radian a voxel, with whole turns left in it."""
    te, shape = (0.02,), (40, 40, 20)
    rng = np.random.default_rng(0)
    phase = smooth(shape, 1, 0.5)[None] + 0.05 * rng.standard_normal((1, *shape))
    phase += 2 * np.pi * rng.integers(-1, 2, (1, *shape))
    _, told = weighted_mean(phase, np.ones(shape, bool), te, 3.0)
    np.testing.assert_allclose(told, 0.05 / (2 * np.pi * 42.577 * 3.0 * 0.02), rtol=0.05)


def test_noise_is_never_more_than_that_of_uniform_phase():
    """Where there is no signal, or no way to tell, phase has the standard deviation pi / sqrt(3)."""
    te, mask = (0.01, 0.03), np.ones((6, 6, 6), bool)
    phase = 0.02 * np.random.default_rng(0).standard_normal((2, 6, 6, 6))
    magnitude = np.ones((2, 6, 6, 6))
    magnitude[:, 0, 0, 0] = 0
    uniform = np.pi / np.sqrt(3) / (2 * np.pi * 42.577 * 3.0)
    _, told = weighted_mean(phase, mask, te, 3.0, magnitude, weighting="uniform")
    assert told[0, 0, 0] == pytest.approx(uniform * np.hypot(1 / 0.02, 1 / 0.06), rel=1e-5)
    assert np.all(told[1:] < 0.1 * told[0, 0, 0])
    _, alone = weighted_mean(phase[:1, :1], mask[:1], te[:1], 3.0)
    np.testing.assert_allclose(alone, uniform / 0.01, rtol=1e-5)


def test_faults_are_refused():
    phase, mask, te = np.zeros((2, 4, 4, 4), np.float32), np.ones((4, 4, 4), bool), (0.005, 0.01)
    cases = [
        ((phase, mask, te, 0.0), {}, "b0"),
        ((phase, mask, te, [3.0, 3.0]), {}, "b0"),
        ((phase, mask, (0.005,), 3.0), {}, "equally many"),
        ((phase * np.nan, mask, te, 3.0), {}, "unwrapped_phase is NaN"),
        ((phase, ~mask, te, 3.0), {}, "mask is empty"),
        ((phase, mask[1:], te, 3.0), {}, "resample"),
        ((phase, mask, te, 3.0, phase[:1]), {}, "equally many"),
        ((phase, mask, te, 3.0), {"weighting": "snr"}, "must be one of"),
    ]
    for arguments, options, message in cases:
        with pytest.raises(ValueError, match=message):
            weighted_mean(*arguments, **options)


def test_weights_of_decay_are_those_of_the_formula():
    """Phases of 1 and 3 rad at 10 and 20 ms: 100 and 150 rad/s with the weights 10 e^-1/4 and 20 e^-1/2."""
    te, shape = (0.01, 0.02), (2, 2, 2)
    phase = np.stack([np.full(shape, 1.0), np.full(shape, 3.0)]).astype(np.float32)
    magnitude = np.stack([np.full(shape, 5.0), np.full(shape, 1.0)]).astype(np.float32)
    found, _ = weighted_mean(phase, np.ones(shape, bool), te, 3.0, magnitude, weighting="decay")
    first, second = 10 * np.exp(-0.25), 20 * np.exp(-0.5)
    expected = (100 * first + 150 * second) / (first + second) / (2 * np.pi * 42.577 * 3)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    with pytest.raises(ValueError, match="decay_s is 0"):
        weighted_mean(phase, np.ones(shape, bool), te, 3.0, magnitude, weighting="decay", decay_s=0.0)
