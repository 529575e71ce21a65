"""LBV: harmonic fields, local sources, a sparse direct solver in float64 and the multigrid it rests on."""

import itertools

import numpy as np
import pytest
from scipy import ndimage, sparse
from scipy.sparse.linalg import spsolve

from qsm_dask.kernels.background.lbv import BoundaryValues, enclosed, lbv
from qsm_dask.kernels.multigrid import Poisson
from tests.kernels.analytic import AXIAL, OBLIQUE, dipole_field, ellipsoid, head, positions, relative_error
from tests.kernels.plain_slow import LOGARITHMIC, without_slow

GRIDS = [
    ((18, 20, 19), (2.0, 2.0, 2.0)),
    ((27, 25, 15), (1.0, 1.2, 2.5)),
    ((33, 30, 12), (0.5, 0.5, 3.0)),
    ((9, 30, 31), (4.0, 1.0, 1.0)),
]


def ragged(shape, seed=0):
    """A random mask of two thirds of the voxels in blobs, that touches every face."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1.5)
    return noise > np.quantile(noise, 1 / 3)


def inner(shape, seed=0):
    active = ragged(shape, seed)
    for axis in range(3):
        np.moveaxis(active, axis, 0)[[0, -1]] = False
    return active


def stencil(voxel_size):
    """Minus the sum of second differences, and of (h_i^2 + h_j^2) / 12 times the product of two, as steps and weights.

    The product of the leading errors h_i^2 / 12 of each fourth derivative with the Laplacian, which vanishes.
    """
    second = {-1: 1.0, 0: -2.0, 1: 1.0}
    weights = dict.fromkeys(itertools.product((-1, 0, 1), repeat=3), 0.0)
    for axis, size in enumerate(voxel_size):
        for step, value in second.items():
            weights[tuple(step * (a == axis) for a in range(3))] -= value / size**2
    for one, other in ((0, 1), (0, 2), (1, 2)):
        share = (voxel_size[one] ** 2 + voxel_size[other] ** 2) / (12 * voxel_size[one] ** 2 * voxel_size[other] ** 2)
        for (s, v), (t, w) in itertools.product(second.items(), second.items()):
            weights[tuple(s * (a == one) + t * (a == other) for a in range(3))] -= share * v * w
    return {step: weight for step, weight in weights.items() if weight}


def plain_lbv(field, mask, voxel_size, unknown=None):
    """What is left of a field, by a direct solver in float64; unknown are the voxels below the surface by default."""
    if unknown is None:
        unknown = ndimage.binary_erosion(mask, ndimage.generate_binary_structure(3, 2))
    number = np.full(mask.shape, -1)
    number[unknown] = np.arange(unknown.sum())
    matrix, right = sparse.lil_matrix((unknown.sum(),) * 2), np.zeros(unknown.sum())
    for index in np.argwhere(unknown):
        row = number[tuple(index)]
        for step, weight in stencil(voxel_size).items():
            beside = tuple(index + step)
            if unknown[beside]:
                matrix[row, number[beside]] += weight
            else:
                right[row] -= weight * field[beside]
    local = np.zeros(mask.shape)
    local[unknown] = field[unknown] - spsolve(matrix.tocsc(), right, permc_spec="MMD_AT_PLUS_A")
    return local


@pytest.mark.parametrize(("shape", "voxel_size"), GRIDS)
def test_equals_a_direct_solver_in_float64(shape, voxel_size):
    mask = ragged(shape)
    x, y, z = positions(shape, voxel_size)
    field = 0.05 * np.random.default_rng(1).standard_normal(shape) + 0.02 * x - 0.01 * z + x * y / 500
    local, kept, solved = lbv(field.astype(np.float32), mask, voxel_size, refine=False)
    truth = plain_lbv(field, mask, voxel_size)
    np.testing.assert_array_equal(kept, enclosed(mask))
    assert local.dtype == np.float32
    assert solved.converged
    assert relative_error(local, truth) < 3e-4


def plain_refined(field, mask, voxel_size):
    """Two layers averaged, then polynomials taken off what is left below them, 1000 voxels or more of one component."""
    kept = enclosed(mask)
    below = kept & ndimage.binary_erosion(mask, iterations=2)
    assert np.count_nonzero(below) >= 1000
    local, layer = plain_lbv(field, mask, voxel_size), kept & ~below
    limit = 3 * 1.4826 * np.median(np.abs(local[layer]))
    half = np.where(layer, np.clip(local, -limit, limit) / 2, 0.0)
    averaged = local - half + plain_lbv(half, kept, voxel_size, below)
    return without_slow(averaged, kept, voxel_size, below, **LOGARITHMIC)


@pytest.mark.parametrize(("shape", "voxel_size"), [((27, 29, 25), (2.0, 2.0, 2.0)), ((30, 31, 23), (2.0, 1.8, 2.6))])
def test_refined_it_equals_the_same_in_float64(shape, voxel_size):
    _, field, mask = head(shape, voxel_size, noise=0.001)
    x, y, z = positions(shape, voxel_size)
    total = (field + 0.001 * x + (2 * z**2 - x**2 - y**2) / 4e4) * mask
    truth = plain_refined(total, mask, voxel_size)
    assert relative_error(truth, plain_lbv(total, mask, voxel_size)) > 0.1
    local, _, solved = lbv(total.astype(np.float32), mask, voxel_size)
    assert solved.converged
    assert relative_error(local, truth) < 1e-3


@pytest.mark.parametrize(("shape", "voxel_size"), GRIDS)
def test_operator_and_preconditioner_are_symmetric_and_positive(shape, voxel_size):
    active = inner(shape)
    poisson = Poisson(active, voxel_size)
    rng = np.random.default_rng(2)
    one, other = (active * rng.standard_normal((2, *shape))).astype(np.float32)
    for operator in (poisson.apply, poisson.precondition):
        of_one, of_other = operator(one).copy().astype(np.float64), operator(other).copy().astype(np.float64)
        assert not of_one[~active].any()
        scale = np.linalg.norm(of_one) * np.linalg.norm(other)
        assert np.vdot(of_one, other) == pytest.approx(np.vdot(one, of_other), abs=1e-6 * scale)
        assert np.vdot(of_one, one) > 0


@pytest.mark.parametrize(
    ("shape", "voxel_size"), [((40, 44, 36), (2, 2, 2)), ((90, 84, 66), (1, 1, 1)), ((72, 70, 20), (0.6, 0.6, 3))]
)
def test_iterations_do_not_grow_with_the_grid(shape, voxel_size):
    _, field, mask = head(shape, voxel_size, noise=0.001)
    _, _, solved = lbv(field, mask, voxel_size, refine=False)
    assert solved.converged
    assert solved.iterations <= 12
    _, _, twice = lbv(field, mask, voxel_size)
    assert twice.converged
    assert solved.iterations < twice.iterations <= 24


def test_the_second_layer_has_the_mean_of_two_readings_and_the_background_below_it_is_harmonic():
    """Of a small mask, where no polynomials are fitted: against a direct solution by SciPy."""
    voxel_size = (1.0, 1.3, 2.1)
    rng = np.random.default_rng(3)
    mask = np.zeros((12, 11, 10), bool)
    mask[1:11, 1:10, 1:9] = True
    field = rng.standard_normal(mask.shape)
    field[5, 2, 4] = 40.0
    once = plain_lbv(field, mask, voxel_size)
    kept = enclosed(mask) & ndimage.binary_erosion(mask)
    layer = kept & ~ndimage.binary_erosion(mask, iterations=2)
    limit = 3 * 1.4826 * np.median(np.abs(once[layer]))
    assert abs(once[5, 2, 4]) > limit
    half = np.where(layer, np.clip(once, -limit, limit) / 2, 0.0)
    truth = once - half
    below = plain_lbv(half, mask, voxel_size, unknown=kept & ~layer)
    truth = np.where(layer, truth, truth + below)
    local, same, solved = lbv(field.astype(np.float32), mask, voxel_size, tolerance=1e-6)
    assert solved.converged
    np.testing.assert_array_equal(same, kept)
    np.testing.assert_allclose(local[kept], truth[kept], atol=2e-4)


@pytest.mark.parametrize("voxel_size", [(2.0, 2.0, 2.0), (1.0, 1.3, 2.9)])
def test_harmonic_polynomials_vanish(voxel_size):
    """The stencil is exact for harmonic polynomials up to the fifth degree."""
    shape = (30, 28, 21)
    x, y, z = positions(shape, voxel_size)
    background = 1.0 + 0.01 * x - 0.02 * z + (2 * z**2 - x**2 - y**2 + 3 * x * y) / 2000 + (x**3 - 3 * x * z**2) / 1e5
    background = background + (x**4 - 6 * x**2 * z**2 + z**4 + y**5 / 9 - 10 * y**3 * z**2 / 9 + 5 * y * z**4 / 9) / 1e6
    mask = ellipsoid(shape, voxel_size, np.array(shape) * voxel_size * 0.45)
    local, kept, _ = lbv(background.astype(np.float32), mask, voxel_size)
    assert np.abs(local[kept]).max() < 1e-5 * np.abs(background[mask]).max()


@pytest.mark.parametrize("b0_dir", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
@pytest.mark.parametrize("voxel_size", [(2.0, 2.0, 2.0), (1.6, 2.0, 2.7)])
def test_field_of_an_outer_dipole_is_removed_and_that_of_an_inner_source_stays(voxel_size, b0_dir):
    shape = tuple(round(96 / v) for v in voxel_size)
    mask = ellipsoid(shape, voxel_size, (36, 38, 34))
    middle = (np.array(shape) - 1) / 2
    background, _ = dipole_field(shape, voxel_size, b0_dir, middle + np.array([10.0, 60.0, 8.0]) / voxel_size, 10, 9.4)
    inside, r = dipole_field(shape, voxel_size, b0_dir, middle, 4.0, 0.5)
    inside = np.where(r < 4.0, 0.0, inside)
    left, kept, _ = lbv(background.astype(np.float32), mask, voxel_size)
    assert left[kept].std() < 0.005 * background[mask].std()
    both, _, _ = lbv((inside + background).astype(np.float32), mask, voxel_size)
    near = r < 14.0
    assert np.polyfit(inside[near], both[near], 1)[0] == pytest.approx(1.0, abs=0.02)
    assert np.corrcoef(inside[near], both[near])[0, 1] > 0.98


@pytest.mark.parametrize("peel", [0, 1, 3])
def test_each_layer_peeled_and_the_surface_are_lost_also_at_the_slab_edge(peel):
    mask = np.ones((20, 18, 16), bool)
    _, kept, _ = lbv(np.zeros(mask.shape), mask, (2, 2, 2), peel=peel)
    assert kept.sum() == (18 - 2 * peel) * (16 - 2 * peel) * (14 - 2 * peel)
    assert kept[1 + peel : -1 - peel, 1 + peel : -1 - peel, 1 + peel : -1 - peel].all()


def test_transpose_is_adjoint():
    shape, voxel_size = (18, 20, 13), (1.0, 1.2, 2.5)
    mask = inner(shape)
    kept = enclosed(mask)
    boundary = BoundaryValues(mask, kept, voxel_size)
    field, other = np.random.default_rng(5).standard_normal((2, *shape)).astype(np.float32) * (mask, kept)
    left = boundary.remove(field, tolerance=1e-6)[0].copy()
    assert np.vdot(left, other) == pytest.approx(
        np.vdot(field, boundary.transpose(other.copy(), tolerance=1e-6)), rel=1e-4
    )


def test_two_components_are_as_each_alone():
    shape = (22, 40, 20)
    field = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    left, right = (ellipsoid(shape, (2, 2, 2), (15, 15, 15), (10, c, 9)) for c in (10, 29))
    both, kept, _ = lbv(field, left | right, (2, 2, 2), tolerance=1e-6)
    apart = sum(lbv(field, part, (2, 2, 2), tolerance=1e-6)[0] for part in (left, right))
    assert kept[10, 10, 9]
    assert kept[10, 29, 9]
    assert relative_error(both, apart) < 1e-5


def test_values_outside_the_mask_are_never_read():
    _, field, mask = head((24, 22, 20), (3.0, 3.0, 3.0))
    local, _, _ = lbv(field, mask, (3, 3, 3))
    again, _, _ = lbv(np.where(mask, field, np.nan), mask, (3, 3, 3))
    np.testing.assert_array_equal(local, again)


def test_too_few_iterations_are_told():
    _, field, mask = head(noise=0.001)
    assert not lbv(field, mask, (2, 2, 2), max_iterations=1)[2].converged


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": np.zeros((12, 12, 12), bool)}, "empty"),
        ({"mask": np.ones((12, 12, 11), bool)}, "shape"),
        ({"total_field": np.full((12, 12, 12), np.nan)}, "NaN"),
        ({"voxel_size": (1, 0, 1)}, "voxel_size"),
        ({"peel": -1}, "peel"),
        ({"peel": 6}, "too thin"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"max_iterations": 0}, "max_iterations"),
    ],
)
def test_lbv_refuses(change, message):
    arguments = {"total_field": np.zeros((12, 12, 12)), "mask": np.ones((12, 12, 12), bool), "voxel_size": (1, 1, 1)}
    quantities = [change.get(name, value) for name, value in arguments.items()]
    parameters = {name: value for name, value in change.items() if name not in arguments}
    with pytest.raises(ValueError, match=message):
        lbv(*quantities, **parameters)
