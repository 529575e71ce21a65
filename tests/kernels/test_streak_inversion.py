"""iLSQR and the absolute data term: their parts against plain mathematics, and what both must not do."""

import numpy as np
import pytest

from qsm_dask.kernels import fourier
from qsm_dask.kernels.inversion import ilsqr as ilsqr_module
from qsm_dask.kernels.inversion.fansi import fansi
from qsm_dask.kernels.inversion.hdqsm import hdqsm
from qsm_dask.kernels.inversion.ilsqr import ilsqr
from qsm_dask.kernels.inversion.l1 import fit_absolute, l1
from tests.kernels.analytic import AXIAL, OBLIQUE, convolve, embed, full_dipole, head, relative_error
from tests.kernels.plain_split import adjoint, gradient

B0, TE = 3.0, (0.01, 0.02, 0.03)


def falling(values, inside, low, high):
    low, high = np.percentile(values[inside], (low, high))
    return np.clip((high - values) / (high - low), 0, 1) * inside


def pairs(inside):
    """Whether a voxel and the next one along each axis are inside, on a grid larger than the mask."""
    return np.stack([inside & np.roll(inside, -1, a) for a in range(3)])


def conjugate_gradients(apply, right, iterations, precondition=lambda r: r):
    x, residual = np.zeros_like(right), right
    scaled = precondition(residual)
    direction, norm = scaled, (residual * scaled).sum()
    for _ in range(iterations):
        image = apply(direction)
        length = norm / (direction * image).sum()
        x, residual = x + length * direction, residual - length * image
        scaled = precondition(residual)
        before, norm = norm, (residual * scaled).sum()
        direction = scaled + norm / before * direction
    return x


def plain_ilsqr(field, mask, voxel_size, b0_dir, iterations):
    shape = fourier.padded_shape(mask.shape, voxel_size, fourier.MARGIN_MM)
    kernel = full_dipole(shape, voxel_size, b0_dir)
    inside, data = embed(mask, shape).astype(bool), embed(field * mask, shape)
    both = pairs(inside)
    weight = falling(np.abs(adjoint(both * gradient(data, voxel_size), voxel_size)), inside, 90, 100) ** 2
    right = convolve(weight * data, kernel)
    chi = conjugate_gradients(lambda x: convolve(weight * convolve(x, kernel), kernel), right, iterations)
    fast = convolve(data, np.sign(kernel) * np.abs(kernel) ** 0.001)
    slopes = np.abs(gradient(fast, voxel_size))
    flat = np.stack([falling(slope, pair, 20, 60) for slope, pair in zip(slopes, both, strict=True)]) ** 2
    cone = (np.abs(kernel) < 0.1) * 1.0
    cone[0, 0, 0] = 0
    delta = embed(np.ones((1, 1, 1)), shape)
    symbol = np.fft.fftn(adjoint(gradient(delta, voxel_size), voxel_size)).real
    symbol[0, 0, 0] = 1

    def normal(x):
        return convolve(adjoint(flat * gradient(x, voxel_size), voxel_size), cone)

    streaks = conjugate_gradients(normal, normal(chi), iterations, lambda r: convolve(r, cone / symbol))
    return (chi - streaks)[tuple(slice(n) for n in mask.shape)] * mask


@pytest.mark.parametrize(
    ("shape", "voxel_size", "b0_dir"),
    [((24, 26, 20), (2.5, 2.5, 2.5), AXIAL), ((23, 26, 15), (2.4, 2.0, 3.5), OBLIQUE)],
    ids=["even", "odd"],
)
def test_float32_equals_plain_float64(shape, voxel_size, b0_dir):
    _, field, mask = head(shape, voxel_size, b0_dir, noise=0.0005)
    steps = {"tolerance": 1e-12, "max_iterations": 8, "streak_tolerance": 1e-12, "streak_iterations": 8}
    chi, _ = ilsqr(field.astype(np.float32), mask, voxel_size, b0_dir, **steps)
    assert chi.dtype == np.float32
    assert relative_error(chi, plain_ilsqr(field, mask, voxel_size, b0_dir, 8)) < 1e-3


def test_a_mask_at_the_slab_edge_does_not_feel_the_other_side(monkeypatch):
    """As of the direct inversions: on a wide grid an edge makes no difference, and the margin in use is of use."""
    _, field, mask = head((28, 30, 24), (3, 3, 3))
    tight = tuple(slice(int(n.min()), int(n.max()) + 1) for n in np.nonzero(mask))
    in_use = fourier.MARGIN_MM

    def chi(field, mask, margin_mm):
        monkeypatch.setattr(fourier, "MARGIN_MM", margin_mm)
        return ilsqr(field, mask, (3, 3, 3), AXIAL)[0]

    wide = chi(field, mask, 160.0)[tight][mask[tight]]

    def error(margin_mm):
        cropped = chi(field[tight], mask[tight], margin_mm)[mask[tight]]
        return relative_error(cropped - cropped.mean(), wide - wide.mean())

    assert error(160.0) < 0.015
    assert error(in_use) < 0.8 * error(0.0)


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


@pytest.mark.parametrize("case", [{}, {"b0_dir": OBLIQUE, "voxel_size": (2.2, 1.9, 2.6)}], ids=["axial", "oblique"])
def test_sources_are_recovered(case):
    chi, field, mask = head(**case, noise=0.0005)
    estimate, _ = ilsqr(field, mask, case.get("voxel_size", (2, 2, 2)), case.get("b0_dir", AXIAL))
    assert not estimate[~mask].any()
    truth = chi[mask] - chi[mask].mean()
    assert relative_error(estimate[mask] - estimate[mask].mean(), truth) < 0.35
    assert np.polyfit(truth, estimate[mask], 1)[0] == pytest.approx(1.0, abs=0.2)


def test_spoilt_voxels_harm_an_absolute_term_less_than_a_squared_one():
    chi, field, mask = head((24, 22, 20), (3, 3, 3), noise=0.0005)
    rng = np.random.default_rng(4)
    spoilt = rng.random(mask.shape) < 0.03
    noisy = field + 0.1 * spoilt * rng.standard_normal(mask.shape)
    good = mask & ~spoilt
    truth = chi[good] - chi[good].mean()
    maps = [kernel(noisy, mask, (3, 3, 3), AXIAL, B0, TE)[0][good] for kernel in (fansi, l1, hdqsm)]
    squared, *absolute = (relative_error(estimate - estimate.mean(), truth) for estimate in maps)
    assert max(absolute) < 0.7 * squared


def test_no_field_gives_no_susceptibility_and_nan_outside_is_not_read():
    chi, solved = ilsqr(np.zeros((9, 8, 7)), np.ones((9, 8, 7), bool), (1, 1, 1), OBLIQUE)
    assert not chi.any()
    assert solved.converged
    _, field, mask = head((20, 18, 16), (4, 4, 4))
    marked = np.where(mask, field, np.nan)
    marked.flags.writeable = mask.flags.writeable = False
    one, other = (ilsqr(f, mask, (4, 4, 4), AXIAL)[0] for f in (field, marked))
    np.testing.assert_array_equal(one, other)


def test_solved_tells_of_iterations_that_ran_out():
    _, field, mask = head((20, 20, 20), (4, 4, 4))
    _, solved = ilsqr(field, mask, (4, 4, 4), AXIAL, max_iterations=2, tolerance=1e-8)
    assert not solved.converged


@pytest.mark.parametrize(
    ("change", "parameters", "message"),
    [
        ({"mask": np.zeros((6, 6, 6), bool)}, {}, "empty"),
        ({"field": np.full((6, 6, 6), np.nan)}, {}, "NaN or infinite"),
        ({"voxel_size": (1, 1, 0)}, {}, "voxel_size"),
        ({"b0_dir": (1, 1, 1)}, {}, "b0_dir"),
        ({}, {"tolerance": 0.0}, "tolerance"),
        ({}, {"cone": 0.4}, "cone"),
    ],
)
def test_it_refuses(change, parameters, message):
    given = {"field": np.zeros((6, 6, 6)), "mask": np.ones((6, 6, 6), bool), "voxel_size": (1, 1, 1), "b0_dir": AXIAL}
    with pytest.raises(ValueError, match=message):
        ilsqr(*(given | change).values(), **parameters)
