"""Region statistics against plain NumPy."""

import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from qsm_dask.kernels.roi import statistics
from qsm_dask.quantities import COORDINATES

STATISTICS = COORDINATES["statistic"]
SIX = ndimage.generate_binary_structure(3, 1)


def plain(image, region, mask, voxel_volume):
    """Every statistic that needs no probability, by plain NumPy in double precision."""
    counted = region & mask
    values = image[counted].astype(np.float64)
    if values.size == 0:
        return [0, 0, *[np.nan] * 8, 0, *[np.nan] * 3, 0, *[np.nan] * 5]
    median = np.median(values)
    mad = np.median(np.abs(values - median))
    cut = int(0.1 * values.size)
    reach = 3 * mad / 0.6744897501960817  # the quantile of a Gaussian at three quarters
    core = image[ndimage.binary_erosion(counted, SIX)].astype(np.float64)
    return [
        values.size,
        values.size * voxel_volume,
        values.mean(),
        values.std(ddof=1) if values.size > 1 else np.nan,
        median,
        mad,
        *np.percentile(values, [5, 25, 75, 95]),
        values.size / np.count_nonzero(region),
        np.sort(values)[cut : values.size - cut].mean(),
        np.sort(values[np.abs(values - median) <= reach]).mean(),
        values.sum() * voxel_volume,
        core.size,
        np.sort(core).mean() if core.size else np.nan,
        np.median(core) if core.size else np.nan,
        *[np.nan] * 3,
    ]


@given(
    st.tuples(*[st.integers(1, 9)] * 3),
    st.lists(st.integers(1, 2**31 - 1) | st.integers(1, 30), min_size=0, max_size=12, unique=True),
    st.sampled_from([np.int32, np.int64, np.uint16, np.uint8]),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_every_region_as_numpy_has_it(shape, labels, dtype, tied, seed):
    rng = np.random.default_rng(seed)
    labels = [label % (np.iinfo(dtype).max + 1) for label in labels]
    dseg = rng.choice(np.array([0, *labels], dtype), shape)
    mask = rng.random(shape) < 0.7
    mask.flat[0] = True
    chi = rng.normal(0.05, 0.1, shape).astype(np.float32)
    r2star = rng.uniform(0, 100, shape).astype(np.float32)
    if tied:
        chi, r2star = np.round(chi, 1), np.round(r2star, -1)
    found, values = statistics(mask, (0.5, 1.5, 2.0), dseg, chi, r2star)
    present = sorted(set(dseg.ravel().tolist()) - {0})
    assert found.tolist() == [0, *present]
    assert found.dtype == np.int64
    assert values.shape == (len(COORDINATES["map"]), found.size, len(COORDINATES["statistic"]))
    for number, image in enumerate((chi, r2star)):
        np.testing.assert_array_equal(values[number, 0], plain(image, mask, mask, 1.5))
        for row, region in enumerate(present, 1):
            np.testing.assert_array_equal(values[number, row], plain(image, dseg == region, mask, 1.5))


def test_the_order_of_statistics_and_maps():
    """One region of the values 1, 2, 4, 8, 16, in a row, and one voxel of it outside the mask."""
    mask = np.array([1, 1, 1, 1, 1, 1, 0], bool).reshape(7, 1, 1)
    dseg = np.array([7, 7, 7, 7, 7, 0, 7], np.int32).reshape(7, 1, 1)
    r2star = np.array([1, 2, 4, 8, 16, 100, 1000], np.float32).reshape(7, 1, 1)
    _, values = statistics(mask, (1, 1, 2), dseg, None, r2star)
    assert COORDINATES["map"][1] == "r2star"
    assert np.isnan(values[0]).all()
    by_hand = {
        "n": 5,
        "volume_mm3": 10,
        "mean": 6.2,
        "sd": np.sqrt(((5.2**2) + 4.2**2 + 2.2**2 + 1.8**2 + 9.8**2) / 4),
        "median": 4,
        "mad": 3,
        "p05": 1.2,
        "p25": 2,
        "p75": 8,
        "p95": 14.4,
        "coverage": 5 / 6,
        "trimmed_mean": 6.2,  # a tenth of five is none
        "clipped_mean": 6.2,  # 16 is 12 from the median; three SD by the MAD are 13.3
        "mass": 62,
        "core_n": 0,  # a row has no neighbours to its sides
        "core_mean": np.nan,
        "core_median": np.nan,
        "weighted_volume_mm3": np.nan,
        "weighted_mean": np.nan,
        "pv_mean": np.nan,
    }
    assert tuple(by_hand) == STATISTICS
    np.testing.assert_allclose(values[1, 1], list(by_hand.values()), rtol=1e-7)


def test_veins_are_clipped_and_tails_trimmed():
    """Twenty voxels of 1, 2 and 3, one vein of 50 and one calcification of -40."""
    values = np.array([*([1.0, 2, 2, 3] * 5), 50.0, -40.0], np.float32).reshape(22, 1, 1)
    ones = np.ones(values.shape, np.int32)
    _, found = statistics(ones.astype(bool), (1, 1, 1), ones, values)
    told = dict(zip(STATISTICS, found[0, 1], strict=True))
    assert told["clipped_mean"] == 2.0  # the MAD is 0.5, so all from -0.2 to 4.2 count
    assert told["trimmed_mean"] == 2.0  # two at either end go: -40 and a 1, 50 and a 3
    assert told["mean"] == 50 / 22


def test_the_core_is_what_lies_a_voxel_inside():
    """A cube of 5 voxels, one of its sides at the edge of the image, has a core of 4 x 3 x 3 less the edge's plane."""
    dseg = np.zeros((5, 9, 9), np.int32)
    dseg[:, 2:7, 2:7] = 3
    chi = np.zeros(dseg.shape, np.float32)
    chi[1:4, 3:6, 3:6] = np.float32(0.25)
    chi[dseg == 0] = np.float32(7)
    _, found = statistics(np.ones(dseg.shape, bool), (1, 1, 1), dseg, chi)
    told = dict(zip(STATISTICS, found[0, 1], strict=True))
    assert (told["n"], told["core_n"], told["core_mean"], told["core_median"]) == (125, 27, 0.25, 0.25)


@pytest.mark.parametrize("size", [(1.0, 1.0, 1.0), (0.8, 1.5, 3.0)])
def test_the_gradient_of_a_plane_is_its_slope_up_to_the_edge_of_the_mask(size):
    x, y, z = (np.arange(n) * step for n, step in zip((6, 7, 5), size, strict=True))
    field = (0.003 * x[:, None, None] - 0.004 * y[:, None] + 0.012 * z).astype(np.float32)
    mask = np.zeros(field.shape, bool)
    mask[1:5, :, 1:4] = True
    mask[2, 3, 2] = False
    field[~mask] = np.nan
    chi = np.zeros(field.shape, np.float32)
    _, found = statistics(mask, size, None, chi, None, None, None, None, None, None, field)
    told = dict(zip(STATISTICS, found[COORDINATES["map"].index("field_gradient"), 0], strict=True))
    assert (told["p05"], told["median"], told["p95"]) == pytest.approx((0.013, 0.013, 0.013), rel=1e-5)


def parts(*, labels=(4, 9), number=400, seed=3):
    """Voxels along a line, of which two regions, 0.2 and 0.05 ppm, and a rest of -0.03 ppm fill shares."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet((0.4, 0.4, 0.4), number).astype(np.float32)
    chi = (shares.astype(np.float64) @ [0.2, 0.05, -0.03]).astype(np.float32)
    shape = (number, 1, 1)
    return np.ones(shape, bool), chi.reshape(shape), shares.T[:2].reshape(2, *shape), np.array(labels)


def test_values_weighted_by_probability_are_those_of_numpy():
    mask, chi, probseg, labels = parts()
    mask[::7] = False
    found, values = statistics(mask, (1, 2, 3), None, chi, *[None] * 7, probseg, labels)
    assert found.tolist() == [0, 4, 9]
    for row, share in enumerate(probseg, 1):
        told = dict(zip(STATISTICS, values[0, row], strict=True))
        weights = share[mask].astype(np.float64)
        assert told["weighted_volume_mm3"] == pytest.approx(6 * weights.sum(), rel=1e-12)
        inside = chi[mask].astype(np.float64)
        assert told["weighted_mean"] == pytest.approx(np.average(inside, weights=weights), rel=1e-12)
        line = np.polynomial.Polynomial.fit(weights, inside, 1)
        assert told["pv_mean"] == pytest.approx(line(1.0), rel=1e-9)
        assert (told["n"], told["coverage"]) == (0, 0)
    assert np.isnan(values[0, 0, -3:]).all()
    assert np.isnan(values[1:]).all()


def test_the_pure_region_is_found_behind_partial_volumes():
    """With one tissue around it the value of a region is exact; the weighted mean is not."""
    mask, _, probseg, _ = parts()
    chi = np.float32(0.2) * probseg[0] + np.float32(-0.03) * (1 - probseg[0])
    _, values = statistics(mask, (1, 1, 1), None, chi, *[None] * 7, probseg[:1], np.array([4]))
    told = dict(zip(STATISTICS, values[0, 1], strict=True))
    assert told["pv_mean"] == pytest.approx(0.2, abs=1e-6)
    assert told["weighted_mean"] < 0.18
    _, values = statistics(mask, (1, 1, 1), None, chi, *[None] * 7, probseg[:1] * np.float32(0.4), np.array([4]))
    assert np.isnan(values[0, 1, STATISTICS.index("pv_mean")])  # no voxel is even half of the region


def test_labels_and_probabilities_stand_side_by_side():
    mask, chi, probseg, labels = parts()
    dseg = np.where(np.arange(400) < 100, 4, 2**31 - 1).astype(np.int64).reshape(400, 1, 1)
    found, values = statistics(mask, (1, 1, 1), dseg, chi, *[None] * 7, probseg, labels)
    assert found.tolist() == [0, 4, 9, 2**31 - 1]
    number, share = values[0, :, 0], values[0, :, STATISTICS.index("weighted_volume_mm3")]
    assert number.tolist() == [400, 100, 0, 300]
    assert np.isfinite(share).tolist() == [False, True, True, False]
    whole, shares = statistics(mask, (1, 1, 1), dseg, chi)[1], statistics(mask, (1, 1, 1), dseg, chi * 2)[1]
    np.testing.assert_array_equal(values[0, [0, 1, 3], :17], whole[0, :, :17])
    np.testing.assert_array_equal(shares[0, :, 2], 2 * whole[0, :, 2])


def test_a_label_outside_the_mask_keeps_its_row_and_a_single_voxel_has_no_sd():
    mask = np.array([True, True, False]).reshape(3, 1, 1)
    dseg = np.array([0, 5, 9]).reshape(3, 1, 1)
    labels, values = statistics(mask, (1, 1, 1), dseg, np.array([1.0, 2.0, np.nan], np.float32).reshape(3, 1, 1))
    assert labels.tolist() == [0, 5, 9]
    one = [1, 1, 2, np.nan, 2, 0, 2, 2, 2, 2, 1, 2, 2, 2, 0, *[np.nan] * 5]
    np.testing.assert_array_equal(values[0, 1], one)
    np.testing.assert_array_equal(values[0, 2], [0, 0, *[np.nan] * 8, 0, *[np.nan] * 3, 0, *[np.nan] * 5])


def test_without_labels_there_is_one_row():
    labels, values = statistics(np.ones((2, 2, 2), bool), (1, 1, 1), None, np.ones((2, 2, 2), np.float32))
    assert labels.tolist() == [0]
    assert values.shape == (len(COORDINATES["map"]), 1, len(STATISTICS))


def test_every_map_has_its_place():
    """The parameters of the kernel and the names of the store agree, in order."""
    parameters = tuple(inspect.signature(statistics).parameters)
    maps = parameters[parameters.index("chi") : parameters.index("probseg")]
    assert maps == (*COORDINATES["map"][:-1], "total_field")
    mask, names = np.ones((2, 2, 2), bool), COORDINATES["map"][:-1]
    for place in range(len(names)):
        given = [np.full(mask.shape, 7.0, np.float32) if number == place else None for number in range(len(names))]
        _, values = statistics(mask, (1, 1, 1), None, *given)
        mean = values[:, 0, COORDINATES["statistic"].index("mean")]
        assert np.flatnonzero(np.isfinite(mean)).tolist() == [place]
        assert mean[place] == 7


def test_inputs_are_left_alone():
    chi = np.arange(27, dtype=np.float32)[::-1].reshape(3, 3, 3).copy()
    before = chi.copy()
    statistics(np.ones((3, 3, 3), bool), (1, 1, 1), np.ones((3, 3, 3), np.int32), chi)
    np.testing.assert_array_equal(chi, before)


def test_faults_are_refused():
    mask, size, chi = np.ones((2, 2, 2), bool), (1, 1, 1), np.ones((2, 2, 2), np.float32)
    cases = [
        ((mask, size), "none of chi, r2star, .* was given"),
        ((mask, size, None, chi * np.nan), "chi is NaN"),
        ((mask, size, None, None, chi[:1]), "r2star has shape"),
        ((~mask, size, None, chi), "mask is empty"),
        ((mask, size, np.ones((2, 2, 2)), chi), "labels must be integers"),
        ((mask, size, -np.ones((2, 2, 2), int), chi), "from -1 to -1"),
        ((mask, size, np.full((2, 2, 2), 2**31), chi), "2147483648"),
        ((mask, size, np.ones((2, 2, 3), int), chi), "resample"),
        ((mask, (1, 1, -1), None, chi), "voxel_size"),
        ((mask, size, None, chi, *[None] * 6, chi * np.inf), "total_field is NaN or infinite"),
        ((mask, size, None, chi, *[None] * 7, chi[None]), "probseg and probseg_labels go together"),
        ((mask, size, None, chi, *[None] * 7, chi[None], np.array([1, 2])), "it must be 2 labels on the mask's grid"),
        ((mask, size, None, chi, *[None] * 7, chi[None], np.array([0])), "labels must lie in 1"),
        ((mask, size, None, chi, *[None] * 7, chi[None], np.array([1.5])), "different whole numbers"),
        (
            (mask, size, None, chi, *[None] * 7, chi[None] * 2, np.array([1])),
            "from 2 to 2: probabilities lie in 0 to 1",
        ),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            statistics(*arguments)
