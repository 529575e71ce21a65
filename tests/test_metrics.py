"""Measures of agreement: by hand, by brute force, and by what they must be for known errors."""

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from qsm_dask import metrics

EVERYWHERE = np.ones((9, 10, 11), dtype=bool)


@pytest.fixture
def truth() -> NDArray[np.float64]:
    values = 0.05 * np.random.default_rng(3).standard_normal(EVERYWHERE.shape)
    return values - values.mean()


def ball(shape: tuple[int, int, int], radius: float) -> NDArray[np.bool_]:
    place = np.indices(shape) - (np.array(shape) // 2).reshape(3, 1, 1, 1)
    return (place**2).sum(axis=0) <= radius**2


class TestPrepared:
    def test_a_lost_voxel_counts_as_the_mean_of_those_kept(self) -> None:
        values = np.array([1.0, 2.0, 6.0, 100.0]).reshape(4, 1, 1)
        mask = np.array([True, True, True, False]).reshape(4, 1, 1)
        kept = np.array([True, True, False, True]).reshape(4, 1, 1)
        assert metrics.prepared(values, mask, kept).ravel().tolist() == [-0.5, 0.5, 0.0, 0.0]
        assert metrics.prepared(values, mask).ravel().tolist() == [-2.0, -1.0, 3.0, 0.0]

    def test_a_constant_added_to_a_map_changes_nothing(self, truth: NDArray[np.float64]) -> None:
        kept = np.random.default_rng(1).random(truth.shape) > 0.2
        moved = metrics.prepared(truth + 0.3, EVERYWHERE, kept)
        assert moved == pytest.approx(metrics.prepared(truth, EVERYWHERE, kept), abs=1e-12)

    def test_what_lies_outside_is_never_read(self) -> None:
        values = np.array([1.0, 3.0, np.nan]).reshape(3, 1, 1)
        mask = np.isfinite(values)
        assert metrics.prepared(values, mask).ravel().tolist() == [-1.0, 1.0, 0.0]
        with pytest.raises(ValueError, match="NaN or infinite inside the mask"):
            metrics.prepared(values, np.ones_like(mask))

    def test_a_map_that_keeps_nothing_is_refused(self) -> None:
        with pytest.raises(ValueError, match="nothing to compare"):
            metrics.prepared(np.zeros((2, 2, 2)), np.ones((2, 2, 2), bool), np.zeros((2, 2, 2), bool))


class TestErrors:
    def test_nrmse_by_hand(self) -> None:
        truth = np.array([3.0, -4.0, 0.0, 9.0]).reshape(4, 1, 1)
        found = np.array([3.0, -4.0, 1.0, -9.0]).reshape(4, 1, 1)
        mask = np.array([True, True, True, False]).reshape(4, 1, 1)
        assert metrics.nrmse(found, truth, mask) == pytest.approx(100.0 / 5.0)

    def test_a_map_of_zeros_is_wrong_by_a_hundred_percent(self, truth: NDArray[np.float64]) -> None:
        zero = np.zeros_like(truth)
        assert metrics.nrmse(zero, truth, EVERYWHERE) == pytest.approx(100.0)
        assert metrics.detrended_nrmse(zero, truth, EVERYWHERE) == 100.0
        assert metrics.hfen(zero, truth, EVERYWHERE) == pytest.approx(100.0)
        assert metrics.correlation(zero, truth, EVERYWHERE) == 0.0

    def test_scale_and_offset_are_trends(self, truth: NDArray[np.float64]) -> None:
        found = 0.7 * truth + 0.01
        assert metrics.detrended_nrmse(found, truth, EVERYWHERE) == pytest.approx(0.0, abs=1e-9)
        assert metrics.nrmse(0.7 * truth, truth, EVERYWHERE) == pytest.approx(30.0)
        assert metrics.correlation(found, truth, EVERYWHERE) == pytest.approx(1.0)

    def test_noise_without_trend_stays(self, truth: NDArray[np.float64]) -> None:
        # Noise at a right angle to the truth and to constants: the line's slope is 1 exactly.
        noise = np.random.default_rng(4).standard_normal(truth.shape)
        noise -= noise.mean()
        noise -= truth * float((noise * truth).sum() / (truth**2).sum())
        noise *= 0.2 * np.linalg.norm(truth) / np.linalg.norm(noise)
        assert metrics.detrended_nrmse(truth + noise, truth, EVERYWHERE) == pytest.approx(20.0)
        assert metrics.correlation(truth + noise, truth, EVERYWHERE) == pytest.approx(1.0 / math.hypot(1.0, 0.2))

    def test_correlation_is_numpys(self, truth: NDArray[np.float64]) -> None:
        found, mask = np.roll(truth, 1, axis=0) + 0.3 * truth, truth > -0.05
        assert metrics.correlation(found, truth, mask) == pytest.approx(np.corrcoef(found[mask], truth[mask])[0, 1])


class TestHfen:
    def test_a_gaussian_s_response_is_the_laplacian_of_a_wider_one(self) -> None:
        # A Gaussian of s voxels filtered by one of 1.5 is one of hypot(s, 1.5), whose Laplacian is known.
        place = np.indices((41, 41, 41)) - 20.0
        square = (place**2).sum(axis=0)

        def laplacian(width: float) -> NDArray[np.float64]:
            height = (2.0 * math.pi * width**2) ** -1.5
            return height * np.exp(-square / (2.0 * width**2)) * (square / width**4 - 3.0 / width**2)

        def gaussian(width: float) -> NDArray[np.float64]:
            return (2.0 * math.pi * width**2) ** -1.5 * np.exp(-square / (2.0 * width**2))

        mask = square < 18.0**2
        wide, narrow = (laplacian(math.hypot(width, 1.5)) for width in (3.0, 2.0))
        expected = 100.0 * np.linalg.norm(wide - narrow) / np.linalg.norm(narrow)
        assert metrics.hfen(gaussian(3.0), gaussian(2.0), mask) == pytest.approx(expected, rel=0.01)

    def test_slow_errors_hardly_count(self) -> None:
        mask = ball((31, 31, 31), 10.0)
        rough = np.random.default_rng(2).standard_normal(mask.shape)
        slow = 0.5 * np.indices(mask.shape)[0] / 10.0
        assert metrics.nrmse(rough + slow, rough, mask) > 50.0
        assert metrics.hfen(rough + slow, rough, mask) < 1.0


class TestXsim:
    def test_equal_maps_score_one(self, truth: NDArray[np.float64]) -> None:
        assert metrics.xsim(truth, truth, EVERYWHERE) == pytest.approx(1.0)

    def test_it_is_the_index_of_each_cube_averaged(self, truth: NDArray[np.float64]) -> None:
        found = 0.8 * truth + 0.02 * np.random.default_rng(8).standard_normal(truth.shape)
        mask = np.zeros(truth.shape, bool)
        mask[2:, :7, 3:8] = True  # touches faces of the array, where cubes are cut off
        scores = []
        for centre in np.argwhere(mask):
            cube = tuple(slice(max(index - 2, 0), index + 3) for index in centre)
            one, other = found[cube].ravel(), truth[cube].ravel()
            (var_one, both), (_, var_other) = np.cov(one, other, ddof=0)
            luminance = (2 * one.mean() * other.mean() + 1e-4) / (one.mean() ** 2 + other.mean() ** 2 + 1e-4)
            scores.append(luminance * (2 * both + 1e-6) / (var_one + var_other + 1e-6))
        assert metrics.xsim(found, truth, mask) == pytest.approx(np.mean(scores), rel=1e-9)

    def test_only_windows_of_the_mask_matter(self, truth: NDArray[np.float64]) -> None:
        mask = np.zeros(truth.shape, bool)
        mask[4, 4, 4] = True
        far = truth.copy()
        far[7:] = 9.0
        assert metrics.xsim(far, truth, mask) == pytest.approx(1.0)


class TestLinearity:
    def test_the_slope_is_that_of_regional_means(self) -> None:
        labels = np.repeat([0, 1, 2, 3], 4).reshape(16, 1, 1)
        noise = np.tile([1.0, -1.0, 1.0, -1.0], 4).reshape(16, 1, 1)
        truth = np.choose(labels, [50.0, 0.0, 1.0, 2.0])
        found = 0.9 * truth + 0.3 + noise
        assert metrics.linearity(found, truth, labels, [1, 2, 3, 7]) == pytest.approx(0.9)

    def test_one_region_has_no_slope(self) -> None:
        labels = np.ones((2, 2, 2), int)
        assert math.isnan(metrics.linearity(labels, labels, labels, [1, 2]))


class TestStreak:
    SHAPE = (40, 41, 42)

    def source(self) -> NDArray[np.bool_]:
        found = np.zeros(self.SHAPE, bool)
        found[20:22, 20, 20] = True
        return found

    def test_noise_in_the_shell_over_the_strength_of_the_source(self) -> None:
        # The box is 2 x 1 x 1; the shell is what 7 voxels around it hold beyond what 3 do.
        rng = np.random.default_rng(5)
        truth = np.where(self.source(), -1.0, 0.02 * rng.standard_normal(self.SHAPE))
        streaks = 0.05 * rng.standard_normal(self.SHAPE)
        found = np.where(self.source(), -0.8, 0.9 * truth + 0.1 + streaks)
        shell = np.zeros(self.SHAPE, bool)
        shell[13:29, 13:28, 13:28] = True
        shell[17:25, 17:24, 17:24] = False
        left = streaks[shell] - np.polyval(np.polyfit(truth[shell], streaks[shell], 1), truth[shell])
        expected = left.std() / 0.8
        everywhere = np.ones(self.SHAPE, bool)
        assert metrics.streak(found, truth, self.source(), everywhere) == pytest.approx(expected, rel=1e-9)

    def test_voxels_outside_the_mask_do_not_count(self) -> None:
        mask = ball(self.SHAPE, 12.0)
        found = np.where(self.source(), -1.0, np.where(mask, 0.0, 7.0))
        assert metrics.streak(found, np.where(self.source(), -1.0, 0.0), self.source(), mask) == 0.0

    def test_without_a_source_there_are_no_streaks_to_measure(self) -> None:
        nothing = np.zeros(self.SHAPE)
        assert math.isnan(metrics.streak(nothing, nothing, nothing > 0, nothing == 0))


def test_a_box_reaches_no_farther_than_the_array() -> None:
    mask = np.zeros((6, 7, 8), bool)
    mask[1, 3:5, 7] = True
    assert np.array_equal(np.argwhere(mask).min(axis=0), [1, 3, 7])
    wide = np.zeros_like(mask)
    wide[metrics.box_around(mask, 2)] = True
    grown = ndimage.binary_dilation(mask, np.ones((3, 3, 3)), iterations=2)
    assert np.array_equal(wide, grown)


def test_better_maps_score_better_by_every_measure(truth: NDArray[np.float64]) -> None:
    noise = np.random.default_rng(6).standard_normal(truth.shape)
    maps = [truth + level * noise for level in (0.0, 0.01, 0.03)]
    for measure, sign in (
        (metrics.nrmse, 1),
        (metrics.detrended_nrmse, 1),
        (metrics.hfen, 1),
        (metrics.xsim, -1),
        (metrics.correlation, -1),
    ):
        scores = [sign * measure(found, truth, EVERYWHERE) for found in maps]
        assert all(one < other for one, other in itertools.pairwise(scores)), measure.__name__
