"""Slopes of maps: edges by hand, weights and curvature against NumPy in float64."""

import numpy as np
import pytest

from qsm_dask.kernels.slopes import curvature, find_edges, per_mm2, reweigh


@pytest.mark.parametrize("shape", [(8, 10, 12), (7, 9, 5)], ids=["even", "odd"])
def test_curvature_is_the_adjoint_of_the_weighted_gradient(shape):
    size = (1.0, 1.5, 3.0)
    rng = np.random.default_rng(0)
    x, weights = rng.standard_normal(shape), rng.random((3, *shape))
    slopes = [weights[a] * (np.roll(x, -1, a) - x) / v for a, v in enumerate(size)]
    expected = sum((np.roll(g, 1, a) - g) / v for a, (g, v) in enumerate(zip(slopes, size, strict=True)))
    out = np.empty(shape, np.float32)
    curvature(x.astype(np.float32), weights.astype(np.float32), per_mm2(size), out)
    np.testing.assert_allclose(out, expected, atol=1e-4)


def test_edges_are_the_surface_of_the_mask_and_the_strongest_slopes_inside():
    """A step of 1 between x = 2 and 3, a ramp along z that is weaker than it; the mask leaves out x = 0 and y = 3."""
    image = np.zeros((5, 4, 3), np.float32)
    image[3:] = 1
    image += np.float32(0.01) * np.arange(3, dtype=np.float32)
    mask = np.zeros((5, 4, 3), bool)
    mask[1:, :3] = True
    share = 9 / (3 * 9 + 4 * 2 * 3 + 4 * 3 * 2)
    edges = find_edges(image, mask, (7, 6, 4), (1.0, 1.0, 1.0), share)
    expected = np.zeros((7, 6, 4), np.uint8)
    expected[[0, 2, 4], :3, :3] |= 1
    expected[1:5, [2, 5], :3] |= 2
    expected[1:5, :3, [2, 3]] |= 4
    np.testing.assert_array_equal(edges, expected)
    expected[2, :3, :3] &= 6
    np.testing.assert_array_equal(find_edges(None, mask, (7, 6, 4), (1.0, 1.0, 1.0), share), expected)


@pytest.mark.parametrize("shape", [(8, 10, 12), (7, 9, 5)], ids=["even", "odd"])
def test_weighted_squares_are_absolute_slopes_away_from_edges(shape):
    size, flat = (1.0, 1.5, 3.0), 0.01
    rng = np.random.default_rng(1)
    x, edges = rng.standard_normal(shape), rng.integers(0, 8, shape).astype(np.uint8)
    data = rng.random(tuple(n - 2 for n in shape)) > 0.5
    weights = np.full((3, *shape), np.nan, np.float32)
    mean = reweigh(x.astype(np.float32), edges, data, per_mm2(size), np.float32(flat), weights)
    slopes = np.stack([(np.roll(x, -1, a) - x) / v for a, v in enumerate(size)])
    free = np.stack([edges >> a & 1 == 0 for a in range(3)])
    np.testing.assert_allclose(weights, free / np.sqrt(slopes**2 + flat), rtol=1e-5)
    corner = tuple(slice(n) for n in data.shape)
    assert mean == pytest.approx(weights[(slice(None), *corner)][:, data].mean(), rel=0.02)
