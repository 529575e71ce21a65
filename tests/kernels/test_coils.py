"""Coils whose offsets and sensitivities are known, and what is left of them when they are combined."""

import numpy as np
import pytest

from qsm_dask.kernels.bipolar import bipolar
from qsm_dask.kernels.coils import mcpc3ds
from qsm_dask.kernels.offsets import mcpc3ds as remove_offset
from tests.kernels.fields import accrued, ball, smooth, wrap

SHAPE, TE, SIZE = (40, 36, 30), np.array([0.004, 0.009, 0.014]), (2.0, 2.0, 2.5)
HEAD = ball(SHAPE, (19, 18, 15), 14)
INNER = ball(SHAPE, (19, 18, 15), 9)
DECAY = 30.0
NARROW = 2.5
"""Smoothing [mm] whose two rounds reach 2.5 sqrt(2) standard deviations inwards, not as far as INNER."""


def sensitivities(count):
    """Smooth complex sensitivities of coils around the head; the sum of their squares is 1."""
    grid = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij", sparse=True)
    found = []
    for number in range(count):
        angle = 2 * np.pi * number / count
        place = (1.6 * np.cos(angle), 1.6 * np.sin(angle), 0.4 * (-1) ** number)
        distance = np.sqrt(sum((g - p) ** 2 for g, p in zip(grid, place, strict=True)))
        turn = np.cos(angle) * grid[0] - np.sin(angle) * grid[1] + 0.3 * grid[2]
        found.append(np.exp(1j * (2.4 * number + 0.8 * turn)) / (0.2 + distance**2) ** 1.5)
    return np.array(found) / np.sqrt(sum(abs(s) ** 2 for s in found))


def truth(steepest=0.9):
    """Phase that a field makes, and the magnitude of a head in dark surroundings."""
    field = smooth(SHAPE, 3, steepest) / (TE[1] - TE[0])
    field -= np.median(field[HEAD])
    image = np.where(HEAD, 1.0 + 0.3 * (smooth(SHAPE, 5, 1.0) > 0), 0.0)
    return accrued(field, TE), image * np.exp(-DECAY * TE)[:, None, None, None]


def scan(count=8, noise=0.0, seed=0, extra=0.0):
    """Complex images (coil, echo, x, y, z)."""
    rng = np.random.default_rng(seed)
    phase, magnitude = truth()
    signal = sensitivities(count)[:, None] * (magnitude * np.exp(1j * (phase + extra)))[None]
    return signal + noise * (rng.standard_normal(signal.shape) + 1j * rng.standard_normal(signal.shape))


def streams(signal):
    """The images as the kernel takes them: one volume at a time, in a buffer that is used again."""

    def stream(values):
        def volumes(echoes):
            buffer = np.empty(SHAPE, np.float32)
            for coil in values:
                for volume in coil[:echoes]:
                    buffer[...] = volume
                    yield buffer

        return volumes

    return stream(np.angle(signal)), stream(np.abs(signal))


def combine(signal, **options):
    return mcpc3ds(*streams(signal), TE, SIZE, **options)


def test_the_field_and_the_magnitude_are_those_of_the_head():
    phase, magnitude = combine(scan(), smoothing_mm=NARROW)
    expected_phase, expected_magnitude = truth()
    assert phase.dtype == magnitude.dtype == np.float32
    assert np.abs(wrap(phase - expected_phase)[:, INNER]).max() < 0.01
    assert np.abs(wrap(phase - expected_phase)[:, HEAD]).max() < 0.1  # the rim, where the Gaussian is one-sided
    np.testing.assert_allclose(magnitude[:, HEAD], expected_magnitude[:, HEAD], rtol=0.02)
    np.testing.assert_allclose(magnitude[:, INNER], expected_magnitude[:, INNER], rtol=0.002)


@pytest.mark.parametrize("count", [1, 4, 16])
def test_noise_after_combination_is_that_of_one_channel(count):
    """The sum of squared sensitivities is 1: a matched filter has the noise of one coil, of any number of them."""
    sigma, clean, noisy = 0.02, scan(count), scan(count, 0.02)
    (phase, magnitude), (exact_phase, exact) = combine(noisy), combine(clean)
    error = wrap(phase - exact_phase)[:, INNER] * exact[:, INNER]
    assert error.std(axis=1) == pytest.approx(sigma, rel=0.05)
    difference = (magnitude - exact)[:, INNER]
    assert difference.std(axis=1) == pytest.approx(sigma, rel=0.05)
    assert np.abs(difference.mean(axis=1)).max() < 0.1 * sigma


def test_dark_echoes_keep_the_noise_floor_of_one_channel():
    """The root of the sum of squares of 16 coils would be sqrt(2 * 16) = 5.7 sigma where there is no signal."""
    _, magnitude = combine(scan(16, 0.02))
    outside = ~ball(SHAPE, (19, 18, 15), 16)
    assert magnitude[2, outside].mean() == pytest.approx(np.sqrt(np.pi / 2) * 0.02, rel=0.05)


def test_coils_without_signal_do_no_harm():
    """Two coils of noise alone, and one whose signal is nowhere above its noise."""
    clean, rng = scan(8, 0.02), np.random.default_rng(4)
    dead = 0.02 * (rng.standard_normal((2, *clean.shape[1:])) + 1j * rng.standard_normal((2, *clean.shape[1:])))
    weak = 0.02 * scan(8, 1.0, seed=2)[:1]
    phase, magnitude = combine(np.concatenate([dead, clean, weak]))
    expected_phase, expected = truth()
    alone = combine(clean)
    error, before = (wrap(p - expected_phase)[0, INNER].std() for p in (phase, alone[0]))
    assert error < 1.05 * before
    assert np.abs(wrap(phase - expected_phase)[0, INNER]).max() < 6 * before  # no singularity
    np.testing.assert_allclose(magnitude[0, INNER].mean(), expected[0, INNER].mean(), rtol=0.01)


def test_no_open_fringe_remains_inside_the_head():
    """Phase around every square of four voxels adds up to zero, in every plane."""
    phase, _ = combine(scan(8, 0.03))
    steps = [wrap(np.diff(phase[0], axis=axis)) for axis in range(3)]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        loop = np.diff(steps[b], axis=a) - np.diff(steps[a], axis=b)
        whole = np.ones_like(loop, dtype=bool)
        for along_a in (slice(None, -1), slice(1, None)):
            for along_b in (slice(None, -1), slice(1, None)):
                corner = [slice(None)] * 3
                corner[a], corner[b] = along_a, along_b
                whole &= HEAD[tuple(corner)]
        assert np.abs(loop[whole]).max() < 1e-3


def test_results_differ_from_double_precision_by_rounding_only():
    """Against the formulas in complex128, with the true phase between echoes in place of the unwrapped one."""
    from scipy.ndimage import gaussian_filter

    signal = scan()
    phase, magnitude = combine(signal)
    step = truth()[0][1] - truth()[0][0]
    ratio = TE[0] / (TE[1] - TE[0])
    total, power = 0, 0
    for coil in signal:
        a, b = abs(coil[0]) ** 2, abs(coil[1]) ** 2
        variance = (1 + ratio) ** 2 * b + ratio**2 * a
        weight = np.divide(a * b, variance, out=np.zeros(SHAPE), where=variance > 0)
        offset = np.zeros(SHAPE)
        for _ in range(2):
            left = weight * np.exp(1j * (np.angle(coil[0]) - ratio * step - offset))
            smoothed = sum(
                f * gaussian_filter(p, [7.0 / s for s in SIZE], mode="constant")
                for f, p in ((1, left.real), (1j, left.imag))
            )
            offset += np.angle(smoothed)
        total = total + np.sqrt(abs(smoothed)) * coil * np.exp(-1j * offset)
        power = power + abs(smoothed)
    assert np.abs(wrap(phase - np.angle(total))[:, INNER]).max() < 5e-3  # running means in place of the Gaussian
    np.testing.assert_allclose(magnitude[:, INNER], abs(total / np.sqrt(power))[:, INNER], rtol=1e-3)


def test_alternating_polarity_is_corrected_after_the_combination():
    """What the combination makes of it is linear still: `offset.bipolar` and `offset.mcpc3ds` leave the field."""
    slope = 0.02 * (np.arange(SHAPE[1]) - 18)[None, :, None] + np.zeros(SHAPE)
    alternating = np.stack([slope, -slope, slope])
    phase, magnitude = combine(scan(extra=alternating), smoothing_mm=NARROW)
    phase = bipolar(phase, HEAD, TE, magnitude)
    phase, _ = remove_offset(phase, HEAD, TE, SIZE, magnitude, smoothing_mm=NARROW)
    assert np.abs(wrap(phase - truth()[0])[:, INNER]).max() < 0.02
    untouched, _ = combine(scan(extra=alternating), smoothing_mm=NARROW)
    assert np.abs(wrap(untouched - truth()[0])[:, INNER]).max() > 0.2


def test_air_does_not_decide_on_the_turn_of_the_head():
    """Phase of the head around 2.7 rad between the echoes, in noise that fills the image: no echo is a turn off."""
    head = ball(SHAPE, (19, 18, 15), 10)
    inner = ball(SHAPE, (19, 18, 15), 5)
    slow = 1.5 * np.linspace(-1, 1, SHAPE[0])[:, None, None] + np.zeros(SHAPE)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        phase = accrued((slow + 2.7) / (TE[1] - TE[0]), TE)
        signal = sensitivities(4)[:, None] * (head * np.exp(1j * phase))[None]
        signal += 0.02 * (rng.standard_normal(signal.shape) + 1j * rng.standard_normal(signal.shape))
        found, _ = combine(signal, smoothing_mm=NARROW)
        assert np.abs(np.median(wrap(found - phase)[:, inner], axis=1)).max() < 0.05


def test_voxels_that_are_zero_in_every_coil_stay_so():
    signal = scan(4)
    signal[:, :, ~HEAD] = 0
    phase, magnitude = combine(signal)
    assert not magnitude[:, ~HEAD].any()
    assert np.isfinite(phase).all()
    assert np.abs(phase).max() <= np.float32(np.pi)


def test_faults_are_refused():
    angle, strength = streams(scan(2))
    broken = streams(np.where(np.arange(SHAPE[0])[:, None, None] == 3, np.nan, scan(2)))[1]

    def fewer(echoes):
        return list(strength(echoes))[:-1]

    def other(echoes):
        return (volume[1:] for volume in strength(echoes))

    def dark(echoes):
        return (0 * volume for volume in strength(echoes))

    cases = [
        ((angle, strength, TE[:1], SIZE), {}, "at least 2 echoes"),
        ((angle, broken, TE, SIZE), {}, "coil_magnitude is NaN"),
        ((angle, lambda echoes: iter(fewer(echoes)), TE, SIZE), {}, "same coils and echoes"),
        ((angle, other, TE, SIZE), {}, "must be equal"),
        ((angle, dark, TE, SIZE), {}, "0 everywhere"),
        ((lambda _: iter(()), lambda _: iter(()), TE, SIZE), {}, "no coil"),
        ((angle, strength, TE, (1, 1)), {}, "voxel_size"),
        ((angle, strength, TE, SIZE), {"smoothing_mm": 0.0}, "smoothing_mm"),
    ]
    for arguments, options, message in cases:
        with pytest.raises(ValueError, match=message):
            mcpc3ds(*arguments, **options)
