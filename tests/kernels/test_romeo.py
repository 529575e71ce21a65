"""ROMEO on fields whose true phase is known."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import label
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

from qsm_dask.kernels.unwrap.romeo import romeo
from qsm_dask.kernels.unwrap.tree import unwrap_all
from qsm_dask.kernels.unwrap.weights import DONE, OUTSIDE, PENDING, STATE, WEIGHTS, records, voxel_quality, weigh_edges
from tests.kernels.fields import accrued, ball, smooth, wrap

TURN = 2 * np.pi


def turns_off(unwrapped, truth, mask):
    """Whole turns by which each component of the mask is off; fails where a component is not off by one number."""
    parts, number = label(mask)
    off = (np.asarray(unwrapped, np.float64) - truth) / TURN
    found = []
    for part in range(1, number + 1):
        inside = off[parts == part]
        np.testing.assert_allclose(inside, np.round(inside[0]), atol=2e-5)
        found.append(int(np.round(inside[0])))
    return found


@given(
    st.tuples(*[st.integers(1, 14)] * 3).filter(lambda shape: np.prod(shape) > 8),
    st.integers(0, 2**31),
    st.floats(0.3, 3.0),
    st.floats(0.4, 1.0),
)
def test_one_echo_is_exact_in_every_component(shape, seed, steepest, share):
    truth = smooth(shape, seed, steepest)[None]
    mask = np.random.default_rng(seed).random(shape) < share
    mask.flat[0] = True
    unwrapped = romeo(wrap(truth), mask, [0.02])
    turns_off(unwrapped[0], truth[0], mask)
    assert np.all(unwrapped[0][~mask] == 0)


@pytest.mark.parametrize("mode", ["template", "individual"])
@pytest.mark.parametrize("te", [(0.004, 0.009, 0.0155), (0.005, 0.012), (0.003, 0.0065, 0.011, 0.0245)])
def test_unequal_echoes_have_their_true_turns(te, mode):
    """The other echoes tell how many turns the first has, here one to two."""
    shape = (21, 18, 15)
    field = smooth(shape, 3, 0.8) / te[-1]
    field += 1.6 * TURN / te[0] - np.median(field)
    truth = accrued(field, te)
    unwrapped = romeo(wrap(truth), np.ones(shape, bool), te, np.ones(truth.shape, np.float32), mode=mode)
    np.testing.assert_allclose(unwrapped, truth, atol=1e-3)


@pytest.mark.parametrize("mode", ["template", "individual"])
@pytest.mark.parametrize("template_echo", [1, 3])
def test_disjoint_components_are_each_unwrapped_and_agree_in_time(mode, template_echo):
    shape, te = (33, 20, 17), (0.004, 0.0095, 0.0175)
    mask = ball(shape, (6, 9, 8), 7) | ball(shape, (25, 10, 8), 6.4)
    assert label(mask)[1] == 2
    field = smooth(shape, 5, 0.7) / te[-1]
    field[17:] += 1.3 * TURN / te[0]
    truth = accrued(field, te)
    unwrapped = romeo(wrap(truth), mask, te, mode=mode, template_echo=template_echo)
    np.testing.assert_allclose(unwrapped[:, mask], truth[:, mask], atol=1e-3)


def test_the_median_of_a_component_settles_what_time_cannot():
    """Echo times in whole ratios say nothing of the turns of the first echo."""
    shape, te = (20, 12, 10), (0.005, 0.010, 0.015)
    field = smooth(shape, 1, 0.9) / te[-1]
    field[10:] += 5.2 * TURN / te[0]
    mask = np.ones(shape, bool)
    mask[9:11] = False
    unwrapped = romeo(wrap(accrued(field, te)), mask, te)
    for half in (slice(0, 9), slice(11, None)):
        part = unwrapped[:, half]
        assert abs(np.median(part[0])) <= np.pi
        np.testing.assert_allclose(part[1], 2 * part[0], atol=1e-3)
        np.testing.assert_allclose(part[2], 3 * part[0], atol=1e-3)


@pytest.mark.parametrize("mode", ["template", "individual"])
def test_a_constant_offset_leaves_no_jumps(mode):
    shape, te = (24, 22, 12), (0.004, 0.0087, 0.0131)
    truth = accrued(smooth(shape, 8, 1.1) / te[-1], te, offset=2.3)
    mask = np.ones(shape, bool)
    unwrapped = romeo(wrap(truth), mask, te, mode=mode)
    for echo in range(3):
        turns_off(unwrapped[echo], truth[echo], mask)


def test_noise_wraps_no_voxel_that_its_neighbours_could_save():
    """Where the prediction in time fails, space decides; only hopeless voxels stay."""
    shape, te = (40, 40, 30), (0.005, 0.015, 0.025)
    rng = np.random.default_rng(0)
    truth = accrued(smooth(shape, 2, 1.0) / te[-1], te)
    signal = np.exp(1j * truth) + 0.25 * (rng.standard_normal(truth.shape) + 1j * rng.standard_normal(truth.shape))
    phase, magnitude = np.angle(signal).astype(np.float32), np.abs(signal).astype(np.float32)
    mask = np.ones(shape, bool)

    def wrong(**options):
        return np.mean(np.abs(romeo(phase, mask, te, magnitude, **options) - truth)[1:] > np.pi)

    assert wrong(uncertain=0.5) < 0.002
    assert wrong(uncertain=0.5) < 0.5 * wrong(uncertain=1.0)


@given(st.integers(0, 2**31))
def test_the_result_differs_from_the_input_by_whole_turns(seed):
    rng = np.random.default_rng(seed)
    phase = rng.uniform(-np.pi, np.pi, (3, 6, 7, 5)).astype(np.float32)
    mask = rng.random((6, 7, 5)) < 0.8
    mask[0, 0, 0] = True
    magnitude = rng.uniform(0, 1, phase.shape).astype(np.float32)
    unwrapped = romeo(phase, mask, (0.004, 0.011, 0.02), magnitude, weights=tuple(WEIGHTS))
    turns = (unwrapped - phase)[:, mask] / TURN
    np.testing.assert_allclose(turns, np.round(turns), atol=1e-5)


@given(st.integers(0, 2**31))
def test_the_path_is_the_spanning_tree_of_greatest_weight(seed):
    """Against SciPy's minimum spanning tree, with weights that leave no choice."""
    rng = np.random.default_rng(seed)
    shape = (4, 5, 4)
    phase = rng.uniform(-np.pi, np.pi, shape).astype(np.float32)
    number = np.arange(phase.size).reshape(shape)
    found = records(np.ones(shape, bool))
    pairs, places = [], []
    for axis in range(3):
        near = np.take(number, range(shape[axis] - 1), axis)
        far = np.take(number, range(1, shape[axis]), axis)
        pairs += list(zip(near.ravel(), far.ravel(), strict=True))
        places += [(voxel, axis) for voxel in near.ravel()]
    weights = rng.permutation(255)[: len(pairs)] + 1
    for (voxel, axis), weight in zip(places, weights, strict=True):
        found.reshape(-1, 4)[voxel, axis] = weight
    near, far = np.array(pairs).T
    tree = minimum_spanning_tree(coo_matrix((256 - weights, (near, far)), shape=(phase.size,) * 2))
    order, parents = breadth_first_order(tree, 0, directed=False)
    truth = phase.ravel().astype(np.float64)
    for voxel in order[1:]:
        truth[voxel] -= TURN * np.round((truth[voxel] - truth[parents[voxel]]) / TURN)
    values = phase.copy()
    visited, starts = unwrap_all(values, found)
    assert list(starts) == [0, phase.size]
    assert sorted(visited) == list(range(phase.size))
    turns_off(values, truth.reshape(shape), np.ones(shape, bool))


def _weight(names, phase, te=(0.01,), magnitude=None):
    """The weight, 0 to 1, of the edge between voxels 1 and 2 of a row."""
    phase = np.array(phase, np.float32).reshape(len(te), 1, 1, -1)
    strength = None if magnitude is None else np.array(magnitude, np.float32).reshape(phase.shape)
    found = records(np.ones(phase.shape[1:], bool))
    weigh_edges(found, phase, np.array(te), strength, 0, sum(WEIGHTS[name] for name in names))
    return found[0, 0, 1, 2] / 255


def test_weights_by_hand():
    close = pytest.approx
    assert _weight(["phase_coherence"], [0, 0, 1.0, 0]) == close(0.1 + 0.9 * (1 - 1 / np.pi), abs=0.002)
    # A step of 3.2 - (-3.0) is 6.2, that is -0.083 after wrapping.
    assert _weight(["phase_coherence"], [0, -3.0, 3.2, 0]) == close(0.1 + 0.9 * (1 - (TURN - 6.2) / np.pi), abs=0.002)
    # Steps 0.5 and 0.8 in echoes at 10 and 20 ms: 0.8 / 2 = 0.4, 0.1 apart.
    two = [[0, 0, 0.5, 0], [0, 0, 0.8, 0]]
    assert _weight(["phase_gradient"], two, te=(0.01, 0.02)) == close(0.1 + 0.9 * 0.9, abs=0.002)
    # Second differences -0.2 and 0.6, halved.
    assert _weight(["phase_linearity"], [0, 0.5, 0.8, 1.7]) == close(0.1 + 0.9 * 0.9 * 0.7, abs=0.002)
    # The right neighbour alone speaks twice; without neighbours nothing speaks for the edge.
    missing = np.array([0.5, 0.8, 1.7], np.float32).reshape(1, 1, 1, 3)
    found = records(np.ones((1, 1, 3), bool))
    weigh_edges(found, missing, np.array([0.01]), None, 0, WEIGHTS["phase_linearity"])
    assert found[0, 0, 0, 2] / 255 == close(0.1 + 0.9 * 0.7 * 0.7, abs=0.002)
    magnitude = [1, 0.5, 1.0, 1]
    assert _weight(["magnitude_coherence"], [0, 0, 0, 0], magnitude=magnitude) == close(0.1 + 0.9 * 0.25, abs=0.002)
    # The 95th percentile of these is 0.97; half of it is 0.485.
    dim = [0.8, 0.2, 1.0, 0.4]
    assert _weight(["magnitude_low"], [0] * 4, magnitude=dim) == close(0.1 + 0.9 * (0.5 + 0.5 * 0.2 / 0.485), abs=0.002)
    assert _weight(["magnitude_high"], [0] * 4, magnitude=dim) == close(0.1 + 0.9 * (0.5 + 0.5 * 0.485), abs=0.002)
    both = _weight(["phase_coherence", "magnitude_coherence"], [0, 0, 1.0, 0], magnitude=magnitude)
    assert both == close((0.1 + 0.9 * (1 - 1 / np.pi)) * 0.325, abs=0.002)


def test_weights_are_only_where_an_edge_is_wanted():
    states = np.array([[PENDING, DONE, DONE], [OUTSIDE, PENDING, DONE]])
    found = records(np.ones((2, 3, 1), bool))
    found[..., 0, STATE] = states
    weigh_edges(found, np.zeros((1, 2, 3, 1), np.float32), np.array([0.01]), None, 0, 1)
    assert found[:, :, 0, 0].tolist() == [[0, 255, 0], [0, 0, 0]]
    assert found[:, :, 0, 1].tolist() == [[255, 0, 0], [0, 255, 0]]


def test_quality_counts_edges_that_leave_the_mask_but_not_those_that_leave_the_image():
    mask = np.ones((5, 5, 5), bool)
    phase = np.zeros((1, 5, 5, 5), np.float32)
    te = np.array([0.01])
    np.testing.assert_array_equal(voxel_quality(phase, te, None, mask), 1)
    mask[0] = False
    quality = voxel_quality(phase, te, None, mask)
    assert np.all(quality[0] == 0)
    assert quality[1, 2, 2] == pytest.approx(5 / 6)
    assert quality[1, 0, 0] == pytest.approx(3 / 4)
    assert quality[2, 2, 2] == 1


def test_threads_do_not_change_the_result():
    shape, te = (20, 22, 18), (0.004, 0.011)
    rng = np.random.default_rng(1)
    phase = rng.uniform(-np.pi, np.pi, (2, *shape)).astype(np.float32)
    mask = rng.random(shape) < 0.9
    alone = romeo(phase, mask, te)
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(lambda _: romeo(phase, mask, te), range(8)):
            np.testing.assert_array_equal(result, alone)


def test_inputs_are_left_alone_and_may_be_read_only():
    phase = wrap(accrued(smooth((8, 9, 7), 0, 2.0) / 0.01, (0.004, 0.01)))
    phase.flags.writeable = False
    before = phase.copy()
    first = romeo(phase, np.ones((8, 9, 7), bool), (0.004, 0.01))
    np.testing.assert_array_equal(phase, before)
    outside = phase.copy()
    outside[:, 0] = np.nan
    mask = np.ones((8, 9, 7), np.uint8)
    mask[0] = 0
    assert np.isfinite(romeo(outside, mask, (0.004, 0.01))).all()
    assert first.dtype == np.float32


def test_faults_are_refused():
    phase, mask, te = np.zeros((2, 4, 4, 4), np.float32), np.ones((4, 4, 4), bool), (0.005, 0.01)
    broken = phase.copy()
    broken[1, 2, 3, 1] = np.nan
    cases = [
        ((broken, mask, te), {}, "phase is NaN or infinite in 1 voxels"),
        ((phase, mask, te, broken), {}, "magnitude is NaN"),
        ((phase, np.zeros_like(mask), te), {}, "mask is empty"),
        ((phase, np.ones((4, 4, 5), bool), te), {}, "resample"),
        ((phase, mask, (0.005,)), {}, "equally many"),
        ((phase[0], mask, te), {}, "single echo needs its axis"),
        ((phase, mask, (0.01, 0.005)), {}, "ascending"),
        ((phase, mask, (5.0, 10.0)), {}, "milliseconds"),
        ((phase, mask, te), {"weights": ("phase",)}, "name one or more"),
        ((phase, mask, te), {"weights": ()}, "name one or more"),
        ((phase, mask, te), {"template_echo": 3}, "echoes 1 to 2"),
        ((phase, mask, te), {"uncertain": 1.5}, "fraction of half a turn"),
        ((phase, mask, te), {"mode": "both"}, "'template' or 'individual'"),
    ]
    for arguments, options, message in cases:
        with pytest.raises(ValueError, match=message):
            romeo(*arguments, **options)
