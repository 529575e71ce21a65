"""Region statistics against plain NumPy."""

import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qsm_dask.kernels.roi import statistics
from qsm_dask.quantities import COORDINATES


def plain(values, voxel_volume):
    values = np.asarray(values, np.float64)
    if values.size == 0:
        return [0, 0] + [np.nan] * 8
    return [
        values.size,
        values.size * voxel_volume,
        values.mean(),
        values.std(ddof=1) if values.size > 1 else np.nan,
        np.median(values),
        np.median(np.abs(values - np.median(values))),
        *np.percentile(values, [5, 25, 75, 95]),
    ]


EXACT = [0, 1, 4, 5, 6, 7, 8, 9]


def compare(found, truth):
    np.testing.assert_array_equal(found[EXACT], np.array(truth)[EXACT])
    np.testing.assert_allclose(found, truth, rtol=1e-9, atol=1e-12)


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
        compare(values[number, 0], plain(image[mask], 1.5))
        for row, region in enumerate(present, 1):
            compare(values[number, row], plain(image[mask & (dseg == region)], 1.5))


def test_the_order_of_statistics_and_maps():
    """One region of the values 1, 2, 4, 8, 16."""
    mask = np.ones((6, 1, 1), bool)
    dseg = np.array([7, 7, 7, 7, 7, 0], np.int32).reshape(6, 1, 1)
    r2star = np.array([1, 2, 4, 8, 16, 100], np.float32).reshape(6, 1, 1)
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
    }
    assert tuple(by_hand) == COORDINATES["statistic"]
    np.testing.assert_allclose(values[1, 1], list(by_hand.values()), rtol=1e-7)


def test_a_label_outside_the_mask_keeps_its_row_and_a_single_voxel_has_no_sd():
    mask = np.array([True, True, False]).reshape(3, 1, 1)
    dseg = np.array([0, 5, 9]).reshape(3, 1, 1)
    labels, values = statistics(mask, (1, 1, 1), dseg, np.array([1.0, 2.0, np.nan], np.float32).reshape(3, 1, 1))
    assert labels.tolist() == [0, 5, 9]
    np.testing.assert_array_equal(values[0, 1], [1, 1, 2, np.nan, 2, 0, 2, 2, 2, 2])
    np.testing.assert_array_equal(values[0, 2], [0, 0, *[np.nan] * 8])


def test_without_labels_there_is_one_row():
    labels, values = statistics(np.ones((2, 2, 2), bool), (1, 1, 1), None, np.ones((2, 2, 2), np.float32))
    assert labels.tolist() == [0]
    assert values.shape == (len(COORDINATES["map"]), 1, 10)


def test_every_map_has_its_place():
    """The parameters of the kernel and the names of the store agree, in order."""
    parameters = tuple(inspect.signature(statistics).parameters)
    assert parameters[parameters.index("chi") :] == COORDINATES["map"]
    mask, names = np.ones((2, 2, 2), bool), COORDINATES["map"]
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
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            statistics(*arguments)
