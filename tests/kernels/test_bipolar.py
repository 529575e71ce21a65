"""The linear phase between polarities, made and taken away."""

import numpy as np
import pytest

from qsm_dask.kernels.bipolar import bipolar
from tests.kernels.fields import accrued, ball, smooth, wrap

SHAPE = (40, 36, 25)
MASK = ball(SHAPE, (19, 18, 12), 12)
SIGNS = np.array([1, -1, 1, -1, 1])[:, None, None, None]


def ramp(constant, *slopes):
    """g [rad]: its value at the centre and its slopes [rad/voxel]."""
    axes = [s * (np.arange(n) - (n - 1) / 2) for s, n in zip(slopes, SHAPE, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    return constant + x + y + z


def clean(te):
    """Phase of a steep field, with an offset that is not linear."""
    field = smooth(SHAPE, 3, 2.0) / (te[1] - te[0])
    return accrued(field, te) + 0.7 + smooth(SHAPE, 8, 0.5)


@pytest.mark.parametrize("te", [(0.004, 0.008, 0.012), (0.003, 0.0075, 0.012, 0.0165), 0.005 * np.arange(1, 6)])
@pytest.mark.parametrize(
    "g", [ramp(0.3, 0.2, 0, 0), ramp(-0.6, 0.05, -0.6, 0.1), ramp(0.1, 0, 0, 0.3), ramp(0, 0, 0, 0)]
)
def test_the_artefact_is_removed_and_all_else_is_left(te, g):
    truth = clean(te)
    found = bipolar(wrap(truth + SIGNS[: len(te)] * g), MASK, te)
    assert np.abs(wrap(found - truth)[:, MASK]).max() < 1e-4
    assert np.all(found[:, ~MASK] == 0)
    assert np.abs(found).max() <= np.float32(np.pi)
    assert found.dtype == np.float32


def test_noise_leaves_it_as_precise_as_the_best_plane():
    """Phase noise s in three echoes of N voxels gives the plane's mean the error sqrt(6) s / (4 sqrt N)."""
    te, g = (0.004, 0.008, 0.012), ramp(0.3, 0.2, -0.1, 0.05)
    errors = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        signal = np.exp(1j * (clean(te) + SIGNS[:3] * g))
        signal = signal + 0.05 * (rng.standard_normal(signal.shape) + 1j * rng.standard_normal(signal.shape))
        noisy = np.angle(signal)
        found = bipolar(noisy, MASK, te, np.abs(signal))
        errors.append(np.mean(wrap(noisy - found - g)[0][MASK]))
    assert np.sqrt(np.mean(np.square(errors))) < 1.5 * np.sqrt(6) * 0.05 / 4 / np.sqrt(MASK.sum())


def test_dark_voxels_do_not_count():
    te, g = (0.004, 0.008, 0.012), ramp(0.3, 0.2, -0.1, 0.05)
    rng = np.random.default_rng(0)
    phase, magnitude = clean(te) + SIGNS[:3] * g, np.ones((3, *SHAPE))
    dark = rng.random(SHAPE) < 0.4
    magnitude[:, dark] = 0
    phase[:, dark] = rng.uniform(-np.pi, np.pi, phase[:, dark].shape)
    found = bipolar(wrap(phase), MASK, te, magnitude)
    assert np.abs(wrap(found - clean(te))[:, MASK & ~dark]).max() < 1e-4
    with pytest.raises(ValueError, match="magnitude is 0 in the whole mask"):
        bipolar(wrap(phase), MASK, te, np.zeros_like(magnitude))


def test_nan_outside_the_mask_and_a_single_slice():
    te, g = (0.004, 0.008, 0.012), ramp(0.3, 0.2, -0.1, 0)
    phase = wrap(clean(te) + SIGNS[:3] * g)
    phase[:, ~MASK] = np.nan
    found = bipolar(phase, MASK, te)
    assert np.isfinite(found).all()
    alone = bipolar(phase[..., 12:13], MASK[..., 12:13], te)
    assert np.abs(wrap(alone - clean(te)[..., 12:13])[:, MASK[..., 12:13]]).max() < 1e-4


def test_faults_are_refused():
    phase, mask, te = np.zeros((3, 4, 4, 4), np.float32), np.ones((4, 4, 4), bool), (0.005, 0.01, 0.015)
    cases = [
        ((phase[:2], mask, te[:2]), "at least 3 echoes"),
        ((phase, mask, (0.005, 0.01, 0.02)), "equally spaced"),
        ((phase[:2], mask, te), "equally many"),
        ((phase * np.nan, mask, te), "phase is NaN"),
        ((phase, mask, te, phase * np.nan), "magnitude is NaN"),
        ((phase, ~mask, te), "mask is empty"),
        ((phase, mask[1:], te), "resample"),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            bipolar(*arguments)
