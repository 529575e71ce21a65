"""Masks of heads that are known, and of noise."""

import numpy as np
import pytest
from scipy.ndimage import binary_fill_holes, distance_transform_edt, label
from scipy.special import ellipe

from qsm_dask.kernels.masking import combine, magnitude, phase_quality
from tests.kernels.fields import accrued, ball, head, smooth

SIZE = (3.0, 3.0, 3.0)
OPENING_MM = 16.0


def overlap(a, b):
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def decaying(image, te=(0.005, 0.015, 0.025), rate=30.0):
    return np.stack([image * np.float32(np.exp(-rate * t)) for t in te])


@pytest.mark.parametrize("scale", [1e-6, 1.0, 4e4])
@pytest.mark.parametrize("echoes", [1, 3])
def test_the_brain_without_skull_and_scalp(scale, echoes):
    image, brain = head()
    found = magnitude(decaying(image * np.float32(scale))[:echoes], SIZE)
    assert overlap(found, brain) > 0.99
    assert found.dtype == np.bool_


@pytest.mark.parametrize("shape", [(33, 29, 25), (32, 32, 24)])
def test_coarse_and_odd_images(shape):
    image, brain = head(shape)
    assert overlap(magnitude(image[None], (6.0, 6.0, 6.7)), brain) > 0.9


def test_receive_shading_and_bright_vessels_do_not_matter():
    image, brain = head()
    x = np.linspace(0.7, 1.5, image.shape[0], dtype=np.float32)[:, None, None]
    image = image * x
    image[30:32, 30:32, 10:30] *= 20
    assert overlap(magnitude(image[None], SIZE), brain) > 0.98


def test_holes_and_gaps_are_filled():
    image, brain = head()
    image[26:29, 30:34, 20:24] = 0.01  # an iron-rich nucleus
    image[32, :, 24:] *= 0.1  # a fissure
    found = magnitude(image[None], SIZE, opening_mm=OPENING_MM)
    # The opening rounds the two corners between fissure and surface: (1 - pi / 4) of its radius squared, all along.
    half_y, half_z = (0.66 * (n - 1) / 2 * 3.0 for n in brain.shape[1:])
    arc_mm = 2 * half_y * ellipe(1 - (half_z / half_y) ** 2)
    rounded = 2 * (1 - np.pi / 4) * OPENING_MM**2 * arc_mm / 27.0
    lost = np.argwhere(brain & ~found)
    assert len(lost) == pytest.approx(rounded, rel=0.1)
    assert 3.0 * np.abs(lost[:, 0] - 32).max() <= OPENING_MM
    assert overlap(found, brain) > 0.985  # half of that share, and the stump of the bridge
    np.testing.assert_array_equal(found, binary_fill_holes(found))


def test_dark_veins_and_specks_do_not_break_the_brain():
    """One voxel in two hundred dark, and tubes across: each would cost an opening a sphere around it."""
    image, brain = head((96, 96, 72))
    rng = np.random.default_rng(0)
    image[rng.random(image.shape) < 0.005] *= 0.1
    for y in range(10, 90, 12):
        image[:, y, y % 70] *= 0.1
    assert overlap(magnitude(image[None], (2.0, 2.0, 2.0)), brain) > 0.98


def test_a_field_of_view_filled_by_tissue_is_kept_whole():
    rng = np.random.default_rng(0)
    image = (1 + 0.1 * rng.standard_normal((30, 28, 20))).astype(np.float32)
    image[:, 10:14] *= 0.8
    assert magnitude(image[None], (1, 1, 1)).all()


def test_a_percentile_takes_the_place_of_otsus_threshold():
    """Four slabs of rising brightness, each with a slope of its own."""
    image = np.repeat(np.arange(1, 5, dtype=np.float32), 5)[:, None, None] * np.ones((1, 16, 16), np.float32)
    image += np.linspace(0, 0.1, 16, dtype=np.float32)
    options = {"opening_mm": 0.0, "closing_mm": 0.0}
    for percentile, first in ((30.0, 5), (70.0, 10)):
        found = magnitude(image[None], (1, 1, 1), percentile=percentile, **options)
        expected = image > np.percentile(image, percentile)
        np.testing.assert_array_equal(found, expected)
        assert not found[:first].any()


def test_of_two_objects_the_larger_is_kept():
    shape = (40, 24, 24)
    large, small = ball(shape, (11, 12, 12), 9), ball(shape, (31, 12, 12), 6)
    found = magnitude((1.0 * (large | small) + 0.01).astype(np.float32)[None], (1, 1, 1), opening_mm=2.0)
    assert not np.any(found & small)
    assert overlap(found, large) > 0.98  # the opening rounds off its corners


@pytest.mark.parametrize("size", [(1.0, 1.0, 1.0), (0.8, 1.1, 2.5)])
def test_erosion_is_exact_and_spares_the_faces_of_the_image(size):
    """A block that touches two faces, against SciPy's distances with those faces continued."""
    image = np.full((30, 26, 20), 0.01, np.float32)
    image[:20, 4:22, 5:] = 1
    options = {"opening_mm": 0.0, "closing_mm": 0.0}
    whole = magnitude(image[None], size, **options)
    np.testing.assert_array_equal(whole, image > 0.5)
    eroded = magnitude(image[None], size, erosion_mm=3.0, **options)
    depth = distance_transform_edt(np.pad(whole, 10, mode="edge"), sampling=size)[10:-10, 10:-10, 10:-10]
    np.testing.assert_array_equal(eroded, whole & (depth > 3.0 * 1.000005))


def test_magnitudes_that_cannot_be_masked_are_refused():
    image, _ = head((20, 20, 16))
    broken = image.copy()
    broken[1, 1, 1] = np.nan
    cases = [
        ((broken[None], SIZE), {}, "magnitude is NaN or infinite in 1 voxels, the first at"),
        ((0 * image[None], SIZE), {}, "nowhere positive"),
        ((image, SIZE), {}, "single echo needs its axis"),
        ((image[None], (1, 1)), {}, "voxel_size"),
        ((image[None], SIZE), {"erosion_mm": -1.0}, "erosion_mm"),
        ((image[None], SIZE), {"opening_mm": np.nan}, "opening_mm"),
        ((image[None], SIZE), {"percentile": 100.0}, "percentile is 100"),
        ((image[None], SIZE), {"erosion_mm": 200.0}, "eroded so deep"),
    ]
    for arguments, options, message in cases:
        with pytest.raises(ValueError, match=message):
            magnitude(*arguments, **options)


def scan(noise=0.03, seed=0):
    """A head whose mask still has scalp, a noisy cavity and an island."""
    image, brain = head(noise=0.0)
    te = np.array((0.005, 0.011))
    shape = image.shape
    cavity = ball(shape, (32, 50, 24), 5)
    image[cavity] = 0.02
    rng = np.random.default_rng(seed)
    truth = accrued(smooth(shape, 1, 0.4) / te[-1], te)
    signal = decaying(image, te) * np.exp(1j * truth)
    signal = signal + noise * (rng.standard_normal(signal.shape) + 1j * rng.standard_normal(signal.shape))
    mask = (image > 0.5) | cavity
    return np.angle(signal).astype(np.float32), np.abs(signal).astype(np.float32), mask, te, brain, cavity


@pytest.mark.parametrize("with_magnitude", [True, False])
def test_unreliable_phase_and_thin_layers_go(with_magnitude):
    phase, strength, mask, te, brain, cavity = scan()
    given = (strength,) if with_magnitude else ()
    kept, quality = phase_quality(phase, mask, te, *given, threshold=0.6)
    assert not np.any(kept & ~mask)
    assert label(kept)[1] == 1
    assert np.count_nonzero(kept & ball(mask.shape, (32, 50, 24), 3)) == 0
    assert overlap(kept, brain & ~cavity) > 0.95
    assert np.all((quality >= 0) & (quality <= 1))
    assert np.all(quality[~mask] == 0)


def test_holes_of_low_quality_are_filled_but_the_mask_is_never_left():
    phase, strength, mask, te, *_ = scan()
    phase[:, 30:33, 30:33, 22:25] = np.random.default_rng(0).uniform(-3, 3, (2, 3, 3, 3))
    mask[34, 34, 24] = False
    kept, quality = phase_quality(phase, mask, te, strength)
    assert quality[31, 31, 23] < 0.5
    assert kept[30:33, 30:33, 22:25].all()
    assert not kept[34, 34, 24]


def test_phases_that_cannot_be_judged_are_refused():
    phase, strength, mask, te, *_ = scan()
    noise = np.random.default_rng(0).uniform(-3, 3, phase.shape).astype(np.float32)
    broken = strength.copy()
    broken[1, 32, 32, 24] = np.inf
    cases = [
        ((noise, mask, te), {"threshold": 0.95}, "no voxel's phase quality exceeds 0.95"),
        ((phase, mask, te), {"threshold": 1.0}, "between 0 and 1"),
        ((phase, mask & False, te), {}, "mask is empty"),
        ((phase, mask, te[:1]), {}, "equally many"),
        ((phase, mask, te, broken), {}, "magnitude is NaN or infinite"),
        ((phase, mask[:5], te), {}, "resample"),
    ]
    for arguments, options, message in cases:
        with pytest.raises(ValueError, match=message):
            phase_quality(*arguments, **options)


@pytest.mark.parametrize(("rule", "kept"), [("and", 2), ("or", 6), ("minus", 2)])
def test_masks_are_combined_voxel_by_voxel(rule, kept):
    one, other = np.zeros((8, 2, 2), bool), np.zeros((8, 2, 2), np.float32)
    one[:4], other[2:6] = True, 2.0
    found = combine(one, other, rule=rule)
    assert found.dtype == np.bool_
    assert found.sum() == kept * 4
    expected = {"and": [2, 3], "or": [0, 1, 2, 3, 4, 5], "minus": [0, 1]}[rule]
    assert np.flatnonzero(found[:, 0, 0]).tolist() == expected


def test_masks_that_cannot_be_combined_are_refused():
    one, other = np.zeros((8, 2, 2), bool), np.zeros((8, 2, 2), bool)
    one[:2], other[4:] = True, True
    with pytest.raises(ValueError, match="mask and mask_other leaves no voxel"):
        combine(one, other)
    with pytest.raises(ValueError, match="resample one to the other's grid"):
        combine(one, other[1:])
    with pytest.raises(ValueError, match="mask is empty"):
        combine(one, other & False)
