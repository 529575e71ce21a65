"""Operators of second order and the transposes that solvers apply for them: (K x) . y is x . (K' y)."""

import numpy as np
import pytest

from qsm_dask.kernels import fourier
from qsm_dask.kernels.inversion import primal_dual, second_order, whqsm
from qsm_dask.kernels.inversion.admm import symbols
from tests.kernels.analytic import OBLIQUE

SHAPES = [((8, 10, 9), (1.0, 1.2, 2.5)), ((9, 6, 8), (2.0, 1.6, 0.7))]
TWICE = np.array([1, 1, 1, 2, 2, 2.0])[:, None, None, None]
"""A symmetric tensor holds what lies off its diagonal twice."""


def random(*shape, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def dot(one, other, weight=1.0):
    return float((weight * one.astype(np.float64) * other).sum())


def assert_adjoint(forwards, backwards):
    """Pairs (K x, y) and (x, K' y), each of which is summed."""
    left = sum(dot(*pair) for pair in forwards)
    right = sum(dot(*pair) for pair in backwards)
    scale = sum(np.linalg.norm(a.astype(np.float64)) * np.linalg.norm(b.astype(np.float64)) for a, b, *_ in forwards)
    assert left == pytest.approx(right, abs=1e-6 * scale)
    assert abs(left) > 1e-4 * scale  # not orthogonal by chance


@pytest.mark.parametrize(("shape", "voxel_size"), SHAPES)
def test_slopes_and_symmetrised_gradient_of_fansi(shape, voxel_size):
    """E chi - w and F w, periodic, against E'p and F'q - p."""
    per_mm = (1 / np.array(voxel_size)).astype(np.float32)
    chi, w = random(*shape, seed=0), random(3, *shape, seed=1)
    p, q = random(3, *shape, seed=2), random(6, *shape, seed=3)
    nothing, one = np.zeros(shape, np.float32), np.float32(1.0)
    slopes, bends = np.zeros_like(p), np.zeros_like(q)
    second_order._shrink_first(chi, w, slopes, nothing.copy(), per_mm, one)
    second_order._shrink_second(w, bends, nothing.copy(), per_mm, one)
    flat, bent = np.empty_like(chi), np.empty_like(w)
    second_order._flatten(p, nothing, per_mm, flat)
    second_order._bend(p, nothing, q, nothing, per_mm, one, one, bent)
    assert_adjoint([(slopes, p), (bends, q, TWICE)], [(chi, flat), (w, bent)])


@pytest.mark.parametrize(("shape", "voxel_size"), SHAPES)
def test_operator_of_the_single_step_inversion(shape, voxel_size):
    """Box chi + lap psi, grad chi - w and the symmetrised gradient of w, with masks, against what primals move by."""
    rng = np.random.default_rng(4)
    inside = np.zeros(shape, bool)
    inside[1:-1, 1:-1, 1:-1] = rng.random(tuple(n - 2 for n in shape)) < 0.9
    known = inside & (rng.random(shape) < 0.7)
    problem = primal_dual.Problem(
        np.zeros(shape, np.float32),
        primal_dual.flags_of(inside, known),
        primal_dual.dipole_stencil(voxel_size, tuple(OBLIQUE)),
        1 / np.array(voxel_size),
        1e9,
        1e9,
    )
    box, per = problem.box.astype(np.float32), problem.per_length.astype(np.float32)
    unit = np.ones(6, np.float32)
    border = np.zeros(shape, bool)
    border[1:-1, 1:-1, 1:-1] = True
    rows = border & problem.flags.any(axis=2, keepdims=True)
    primal = [random(*shape, seed=5) * rows, random(*shape, seed=6) * rows, random(3, *shape, seed=7) * rows]
    zeros = primal_dual.State.zeros(shape)
    limits = np.array([1e9, 1e9], np.float32)
    primal_dual._ascend(*primal, zeros.v, zeros.p, zeros.q, problem.data, problem.flags, box, per, unit, limits)
    images = zeros.v, zeros.p, zeros.q
    # Duals live where the operator's images can: each edge, corner and known voxel.
    edges = np.stack([inside & np.roll(inside, -1, axis) for axis in range(3)])
    backed = inside & np.logical_and.reduce([np.roll(inside, 1, axis) for axis in range(3)])
    dual = [random(*shape, seed=8) * known, random(3, *shape, seed=9) * edges, random(6, *shape, seed=10) * backed]
    still = primal_dual.State.zeros(shape)
    primal_dual._descend(
        still.chi,
        still.psi,
        still.w,
        still.chi_ahead,
        still.psi_ahead,
        still.w_ahead,
        *dual,
        problem.flags,
        box,
        per,
        unit,
    )
    # From zero with steps of one, primals move to minus the transpose, and psi half as far.
    moved = -still.chi, -2 * still.psi, -still.w
    weights = (1.0, 1.0, TWICE)
    assert_adjoint(list(zip(images, dual, weights, strict=True)), list(zip(primal, moved, strict=True)))


@pytest.mark.parametrize(("shape", "voxel_size"), SHAPES)
def test_laplacian_of_the_harmonic_rest(shape, voxel_size):
    """That of the seven-point stencil, periodic, and its own adjoint as the step of `whqsm` applies it."""
    symbol = symbols(shape, voxel_size)

    def step(field, laplacian, penalty, harmonic_rho):
        """The rest and its Laplacian, without sources."""
        spectra = [fourier.forward(volume.copy()) for volume in (np.zeros_like(field), field, laplacian)]
        dipole = np.zeros(spectra[0].shape, np.float32)
        numbers = (np.float32(value) for value in (1.0, penalty, harmonic_rho))
        whqsm._update(*spectra, dipole, *symbol, *numbers)
        return tuple(fourier.inverse(spectrum, shape) for spectrum in spectra[1:])

    one, other = random(*shape, seed=11), random(*shape, seed=12)
    nothing = np.zeros(shape, np.float32)
    rest, laplacian = step(one, nothing, 1.0, 0.0)
    np.testing.assert_allclose(rest, one, atol=1e-5)
    expected = sum(
        (np.roll(one, -1, a) - 2.0 * one + np.roll(one, 1, a)) / size**2 for a, size in enumerate(voxel_size)
    )
    np.testing.assert_allclose(laplacian, expected, atol=1e-5 * np.abs(expected).max())
    # A field that is given a million times its weight hardly follows: h is the transpose of lap over the penalty.
    transposed = step(nothing, other, 1e8, 1.0)[0] * np.float32(1e8)
    assert_adjoint([(laplacian, other)], [(one, transposed)])
