"""Phase offsets that are known."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from qsm_dask.kernels.offsets import mcpc3ds
from tests.kernels.fields import accrued, ball, smooth, wrap

SHAPE = (40, 36, 30)
MASK = ball(SHAPE, (19, 18, 15), 14)


def slow_offset():
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij", sparse=True)
    return 2.0 + 0.8 * x - 0.6 * y + 0.5 * z


def smoothed_twice(offset, sigma):
    """What two rounds of smoothing inside the mask make of an offset, in float64."""
    known = np.zeros(SHAPE)
    for _ in range(2):
        left = np.where(MASK, np.exp(1j * (offset - known)), 0)
        known += np.angle(gaussian_filter(left, sigma, mode="constant"))
    return known


@pytest.mark.parametrize(
    "te",
    [(0.004, 0.008, 0.012, 0.016), (0.004, 0.0095), (0.0094, 0.020), (0.002, 0.030), (0.020, 0.0224, 0.031)],
)
def test_an_offset_that_varies_slowly_is_found(te):
    """Also for a large echo spacing, whose phase wraps by itself, and a late first echo."""
    offset = slow_offset()
    field = smooth(SHAPE, 3, 0.9) / (te[1] - te[0])
    field -= np.median(field[MASK])
    truth = accrued(field, te)
    phase, found = mcpc3ds(wrap(truth + offset), MASK, te, (1, 1, 1), smoothing_mm=2.0)
    # Near the edge the Gaussian is one-sided; SciPy's leaves as much, three running means differ from it by 2 %.
    assert np.abs(wrap(found - smoothed_twice(offset, 2.0))[MASK]).max() < 0.002
    inner = ball(SHAPE, (19, 18, 15), 9)  # where SciPy's Gaussian leaves 0.0096
    assert np.abs(wrap(found - offset)[inner]).max() < 0.0096 + 0.002
    assert np.abs(wrap(phase - truth)[:, inner]).max() < 0.0096 + 0.002
    assert np.all(found[~MASK] == 0)
    assert np.all(phase[:, ~MASK] == 0)
    assert np.abs(phase).max() <= np.float32(np.pi)


def test_without_an_offset_nothing_is_removed():
    te = (0.005, 0.011, 0.017)
    truth = accrued(smooth(SHAPE, 1, 1.0) / te[1], te)
    truth -= np.median(truth[0][MASK]) * np.array(te)[:, None, None, None] / te[0]
    phase, found = mcpc3ds(wrap(truth), MASK, te, (1, 1, 1))
    assert np.abs(found).max() < 1e-4
    assert np.abs(wrap(phase - truth)[:, MASK]).max() < 1e-4


def test_noisy_voxels_count_less_where_magnitude_tells():
    rng = np.random.default_rng(0)
    te = (0.004, 0.008)
    offset = np.full(SHAPE, 1.0)
    magnitude = np.where(rng.random(SHAPE) < 0.5, 1.0, 0.05)
    magnitude = np.stack([magnitude, magnitude])
    noise = 0.05 * (rng.standard_normal(magnitude.shape) + 1j * rng.standard_normal(magnitude.shape))
    signal = magnitude * np.exp(1j * offset) + noise
    phase, strength = np.angle(signal).astype(np.float32), np.abs(signal).astype(np.float32)

    def error(*given):
        found = mcpc3ds(phase, MASK, te, (1, 1, 1), *given, smoothing_mm=2.0)[1]
        return np.sqrt(np.mean((found - 1.0)[MASK] ** 2))

    assert error(strength) < 0.02
    assert error(strength) < 0.3 * error()


def test_a_turn_too_many_leaves_phase_in_proportion_to_echo_time():
    """A field beyond half a turn between the echoes cannot be told from one a turn less; both agree in time."""
    te = (0.006, 0.010)
    field = smooth(SHAPE, 2, 0.5) / te[1] + 2 * np.pi * 0.8 / (te[1] - te[0])
    phase, _ = mcpc3ds(wrap(accrued(field, te, 0.7)), MASK, te, (1, 1, 1))
    aliased = accrued(field - 2 * np.pi / (te[1] - te[0]), te)
    inner = ball(SHAPE, (19, 18, 15), 9)
    assert np.abs(wrap(phase - aliased)[:, inner]).max() < 0.02


def test_zero_magnitude_is_refused():
    te = (0.004, 0.008)
    truth = wrap(accrued(smooth(SHAPE, 3, 0.5) / te[1], te, 1.0))
    with pytest.raises(ValueError, match="magnitude is 0 in the whole mask"):
        mcpc3ds(truth, MASK, te, (1, 1, 1), np.zeros_like(truth))


def test_faults_are_refused():
    phase, mask, te, size = np.zeros((2, 4, 4, 4), np.float32), np.ones((4, 4, 4), bool), (0.005, 0.01), (1, 1, 1)
    broken = phase.copy()
    broken[0, 1, 1, 1] = np.nan
    cases = [
        ((phase[:1], mask, te[:1], size), {}, "at least 2 echoes"),
        ((phase, mask, (0.005, 0.01, 0.015), size), {}, "equally many"),
        ((broken, mask, te, size), {}, "NaN"),
        ((phase, mask, te, size, broken), {}, "magnitude is NaN"),
        ((phase, ~mask, te, size), {}, "mask is empty"),
        ((phase, mask[1:], te, size), {}, "resample"),
        ((phase, mask, te, (1, 1)), {}, "voxel_size"),
        ((phase, mask, te, size), {"smoothing_mm": 0.0}, "smoothing_mm"),
    ]
    for arguments, options, message in cases:
        with pytest.raises(ValueError, match=message):
            mcpc3ds(*arguments, **options)
