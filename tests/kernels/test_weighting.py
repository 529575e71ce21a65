"""Susceptibility weighting against plain NumPy on images made by formula."""

import numpy as np
import pytest

from qsm_dask.kernels.weighting import mip, swi
from tests.kernels.fields import smooth, wrap

SHAPE = (26, 31, 17)
FULL = np.ones(SHAPE, bool)
SIZE = (1.0, 1.2, 2.0)
TE = np.array([0.005, 0.012, 0.02])
DECAY = np.exp(-30 * TE)[:, None, None, None]


def waves(seed=0, steepest=0.3):
    field = smooth(SHAPE, seed, steepest)
    return field - field.mean()


def test_it_is_the_formula_of_the_paper_where_nothing_wraps_and_nothing_is_filtered():
    field = waves() / TE[-1]  # rad/s, a third of a radian a voxel at most: no wrap between neighbours
    phase = np.stack([field * t for t in TE])
    rng = np.random.default_rng(0)
    magnitude = (DECAY * rng.uniform(0.5, 1.5, (3, *SHAPE))).astype(np.float32)
    found = swi(wrap(phase), magnitude, TE, FULL, SIZE, highpass_voxels=(0.0, 0.0, 0.0), sensitivity_mm=1e4)
    weights = magnitude.astype(np.float64) ** 2 * TE[:, None, None, None]
    combined = (weights * phase).sum(axis=0) / weights.sum(axis=0)
    median = np.median(combined[combined > 0]) * 10 / 4
    dark = np.where(combined > 0, (1 + np.tanh(1 - combined / median)) / (1 + np.tanh(1)), 1)
    bright = np.sqrt((magnitude.astype(np.float64) ** 2).sum(axis=0))
    # So wide a Gaussian is flat over the image: the sensitivity is one number.
    np.testing.assert_allclose(found / bright * bright.mean(), dark, rtol=5e-3)
    assert found.dtype == np.float32


def test_wraps_and_offsets_change_nothing():
    field = waves(steepest=2.0) / TE[-1]
    magnitude = np.broadcast_to(DECAY, (3, *SHAPE)).astype(np.float32)
    phase = np.stack([field * t for t in TE])
    one = swi(phase.astype(np.float32), magnitude, TE, FULL, SIZE)
    two = swi(wrap(phase + 1.3), magnitude, TE, FULL, SIZE)
    assert np.abs(phase).max() > np.pi
    np.testing.assert_allclose(one, two, atol=1e-3)


def test_a_vein_is_dark_and_a_calcification_is_not():
    rng = np.random.default_rng(0)
    phase = (0.05 * rng.standard_normal((3, *SHAPE))).astype(np.float32)
    phase[:, 8:10, 12:14] = 60 * TE[:, None, None, None]
    phase[:, 18:20, 12:14] = -60 * TE[:, None, None, None]
    magnitude = np.broadcast_to(DECAY, (3, *SHAPE)).astype(np.float32)
    mask = FULL.copy()
    mask[:2], mask[:, :, -1] = False, False
    phase[:, ~mask] = np.nan
    found = swi(phase, magnitude, TE, mask, SIZE)
    assert found[8:10, 12:14, :-1].max() < 0.2
    assert found[18:20, 12:14, :-1].min() > 0.99
    assert np.median(found[mask]) > 0.8
    assert not found[~mask].any()
    stronger = swi(phase, magnitude, TE, mask, SIZE, strength=8.0)
    assert stronger[mask].mean() < found[mask].mean()


def test_the_receive_sensitivity_is_taken_out():
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in (60, 60, 40)], indexing="ij")
    shading = 1 + 0.4 * (x**2 + y**2) - 0.2 * z
    magnitude = shading[None].astype(np.float32)
    found = swi(np.zeros_like(magnitude), magnitude, (0.02,), np.ones(shading.shape, bool), (2.0, 2.0, 2.0))
    inner = x**2 + y**2 + z**2 < 0.7
    assert found[inner].std() < 0.5 * (shading / shading.mean())[inner].std()
    assert found.mean() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("slices", [1, 4, 7, 99])
def test_the_projection_is_the_least_of_a_window(slices):
    rng = np.random.default_rng(0)
    image, mask = rng.random(SHAPE).astype(np.float32), rng.random(SHAPE) < 0.6
    found = mip(np.where(mask, image, np.nan), mask, slices=slices)
    before, after = (slices - 1) // 2, slices // 2
    seen = np.where(mask, image, np.inf)
    windows = [seen[:, :, max(0, z - before) : z + after + 1].min(axis=2) for z in range(SHAPE[2])]
    np.testing.assert_array_equal(found, np.where(mask, np.stack(windows, axis=2), 0))


def test_dark_voxels_and_faults():
    phase, magnitude = np.zeros((3, *SHAPE), np.float32), np.zeros((3, *SHAPE), np.float32)
    assert not swi(phase, magnitude, TE, FULL, SIZE).any()
    bad = magnitude.copy()
    bad[0, 3, 3, 3] = np.nan
    cases = [
        ((phase, bad, TE, FULL, SIZE), {}, "magnitude is NaN"),
        ((bad, magnitude, TE, FULL, SIZE), {}, "phase is NaN"),
        ((phase[:2], magnitude, TE, FULL, SIZE), {}, "phase has 2 echo"),
        ((phase, magnitude, TE, ~FULL, SIZE), {}, "mask is empty"),
        ((phase, magnitude, TE[:2], FULL, SIZE), {}, "equally many"),
        ((phase, magnitude, TE, FULL, SIZE), {"strength": 0.0}, "strength is 0"),
        ((phase, magnitude, TE, FULL, SIZE), {"highpass_voxels": (4.0, -1.0, 0.0)}, "highpass_voxels is"),
    ]
    for arguments, parameters, message in cases:
        with pytest.raises(ValueError, match=message):
            swi(*arguments, **parameters)
    with pytest.raises(ValueError, match="slices is 0"):
        mip(phase[0], FULL, slices=0)
