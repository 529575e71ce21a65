"""iLSQR and the absolute data term: their parts against plain mathematics, and what both must not do."""

import numpy as np
import pytest

from qsm_dask.kernels.inversion import ilsqr as ilsqr_module
from qsm_dask.kernels.inversion.fansi import fansi
from qsm_dask.kernels.inversion.ilsqr import ilsqr
from qsm_dask.kernels.inversion.l1 import fit_absolute, l1
from qsm_dask.units import radians_per_ppm
from tests.kernels.analytic import AXIAL, OBLIQUE, head, relative_error

B0, TE = 3.0, (0.01, 0.02, 0.03)


def invert(kernel, field, mask, voxel_size, b0_dir, **parameters):
    return kernel(field, mask, voxel_size, b0_dir, *(() if kernel is ilsqr else (B0, TE)), **parameters)


@pytest.mark.parametrize("shape", [(8, 10, 12), (7, 9, 5)], ids=["even", "odd"])
def test_curvature_is_the_adjoint_of_the_weighted_gradient(shape):
    size = (1.0, 1.5, 3.0)
    rng = np.random.default_rng(0)
    x, weights = rng.standard_normal(shape), rng.random((3, *shape))
    slopes = [weights[a] * (np.roll(x, -1, a) - x) / v for a, v in enumerate(size)]
    expected = sum((np.roll(g, 1, a) - g) / v for a, (g, v) in enumerate(zip(slopes, size, strict=True)))
    out = np.empty(shape, np.float32)
    ilsqr_module.curvature(x.astype(np.float32), weights.astype(np.float32), ilsqr_module._per_mm2(size), out)
    np.testing.assert_allclose(out, expected, atol=1e-4)


def test_the_absolute_term_is_solved_voxel_by_voxel():
    rng = np.random.default_rng(1)
    wanted, phase = rng.uniform(-9, 9, 60), rng.uniform(-3, 3, 60)
    wanted[:20] = phase[:20] + rng.uniform(-0.2, 0.2, 20)
    weight, penalty = rng.uniform(0.2, 1.4, 60), 5.0
    field, dual = wanted.reshape(3, 4, 5).astype(np.float32), np.zeros((3, 4, 5), np.float32)
    fit_absolute(
        field, dual, phase.reshape(3, 4, 5).astype(np.float32), weight.reshape(3, 4, 5).astype(np.float32), penalty
    )
    value = (field + dual).ravel()
    candidates = value[:, None] + np.linspace(-0.3, 0.3, 6001)
    cost = 2 * weight[:, None] * np.abs(np.sin((candidates - phase[:, None]) / 2))
    cost += penalty / 2 * (candidates - wanted[:, None]) ** 2
    best = candidates[np.arange(60), cost.argmin(axis=1)]
    np.testing.assert_allclose(value, best, atol=2e-4)
    np.testing.assert_allclose(dual.ravel(), wanted - value, atol=1e-5)


def test_streaks_lie_in_the_cone_alone():
    _, field, mask = head((24, 22, 20), (3, 3, 3), OBLIQUE, noise=0.0005)
    grid, _ = ilsqr_module.door.linear(field, mask, (3, 3, 3), OBLIQUE)
    rng = np.random.default_rng(2)
    chi = rng.standard_normal(grid.shape).astype(np.float32)
    weights = rng.random((3, *grid.shape)).astype(np.float32)
    streaks, solved = ilsqr_module._streaks(chi, weights, grid, 0.1, 1e-4, 200)
    spectrum = np.fft.rfftn(streaks)
    assert solved.converged
    assert np.abs(spectrum[np.abs(grid.dipole) >= 0.1]).max() < 1e-4 * np.abs(spectrum).max()
    whole, _ = ilsqr_module._streaks(streaks, weights, grid, 0.1, 1e-5, 400)
    assert relative_error(whole, streaks) < 0.01


@pytest.mark.parametrize("kernel", [ilsqr, l1])
@pytest.mark.parametrize("case", [{}, {"b0_dir": OBLIQUE, "voxel_size": (2.2, 1.9, 2.6)}], ids=["axial", "oblique"])
def test_sources_are_recovered(kernel, case):
    chi, field, mask = head(**case, noise=0.0005)
    estimate, _ = invert(kernel, field, mask, case.get("voxel_size", (2, 2, 2)), case.get("b0_dir", AXIAL))
    assert not estimate[~mask].any()
    truth = chi[mask] - chi[mask].mean()
    assert relative_error(estimate[mask] - estimate[mask].mean(), truth) < 0.35
    assert np.polyfit(truth, estimate[mask], 1)[0] == pytest.approx(1.0, abs=0.2 if kernel is ilsqr else 0.15)


def test_spoilt_voxels_harm_an_absolute_term_less_than_a_squared_one():
    chi, field, mask = head((24, 22, 20), (3, 3, 3), noise=0.0005)
    rng = np.random.default_rng(4)
    spoilt = rng.random(mask.shape) < 0.03
    noisy = field + 0.1 * spoilt * rng.standard_normal(mask.shape)
    good = mask & ~spoilt
    truth = chi[good] - chi[good].mean()
    squared, absolute = (invert(kernel, noisy, mask, (3, 3, 3), AXIAL)[0][good] for kernel in (fansi, l1))
    errors = [relative_error(estimate - estimate.mean(), truth) for estimate in (squared, absolute)]
    assert errors[1] < 0.7 * errors[0]


def test_whole_turns_of_the_field_change_nothing():
    _, field, mask = head((24, 22, 20), (3, 3, 3), noise=0.0005)
    turns = np.random.default_rng(2).integers(-1, 2, mask.shape) * 2 * np.pi / radians_per_ppm(B0, 0.01)
    one, other = (invert(l1, f, mask, (3, 3, 3), AXIAL)[0] for f in (field, field + turns))
    assert relative_error(other, one) < 2e-3


@pytest.mark.parametrize("kernel", [ilsqr, l1])
def test_no_field_gives_no_susceptibility_and_nan_outside_is_not_read(kernel):
    chi, solved = invert(kernel, np.zeros((9, 8, 7)), np.ones((9, 8, 7), bool), (1, 1, 1), OBLIQUE)
    assert not chi.any()
    assert solved.converged
    _, field, mask = head((20, 18, 16), (4, 4, 4))
    marked = np.where(mask, field, np.nan)
    marked.flags.writeable = mask.flags.writeable = False
    one, other = (invert(kernel, f, mask, (4, 4, 4), AXIAL)[0] for f in (field, marked))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kernel", [ilsqr, l1])
def test_solved_tells_of_iterations_that_ran_out(kernel):
    _, field, mask = head((20, 20, 20), (4, 4, 4))
    _, solved = invert(kernel, field, mask, (4, 4, 4), AXIAL, max_iterations=2, tolerance=1e-8)
    assert not solved.converged


@pytest.mark.parametrize("kernel", [ilsqr, l1])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": np.zeros((6, 6, 6), bool)}, "empty"),
        ({"field": np.full((6, 6, 6), np.nan)}, "NaN or infinite"),
        ({"voxel_size": (1, 1, 0)}, "voxel_size"),
        ({"b0_dir": (1, 1, 1)}, "b0_dir"),
        ({"tolerance": 0.0}, "tolerance"),
    ],
)
def test_they_refuse(kernel, change, message):
    given = {"field": np.zeros((6, 6, 6)), "mask": np.ones((6, 6, 6), bool), "voxel_size": (1, 1, 1), "b0_dir": AXIAL}
    with pytest.raises(ValueError, match=message):
        invert(kernel, **(given | change))
