"""The slowest part of the background: polynomials vanish, other fields stay, each component for itself."""

import numpy as np
import pytest

from qsm_dask.kernels.background.slow import remove_slow
from tests.kernels.analytic import ellipsoid, positions


def polynomial(shape, voxel_size):
    x, y, z = positions(shape, voxel_size)
    return 3.0 + 0.1 * x - 0.2 * z + (2 * z**2 - x**2 - y**2 + 3 * x * y - 2 * (x**2 - y**2)) / 200 + y * z / 300


@pytest.mark.parametrize(("shape", "voxel_size"), [((24, 27, 19), (2.0, 2.0, 2.0)), ((41, 30, 14), (1.0, 1.3, 2.9))])
def test_polynomials_vanish_beside_a_strong_source_that_stays(shape, voxel_size):
    mask = ellipsoid(shape, voxel_size, np.array(shape) * voxel_size * 0.45)
    source = np.zeros(shape)
    source[tuple(slice(n // 2 - 2, n // 2 + 2) for n in shape)] = 50.0
    noise = 0.01 * np.random.default_rng(1).standard_normal(shape)
    local = np.where(mask, polynomial(shape, voxel_size) + source + noise, 0.0).astype(np.float32)
    remove_slow(local, mask, voxel_size)
    assert np.abs(local - source - noise)[mask].max() < 0.01
    assert not local[~mask].any()


def test_components_are_fitted_each_for_itself_and_small_ones_stay():
    shape, size = (30, 60, 30), (1.0, 1.0, 1.0)
    large, other, small = (ellipsoid(shape, size, (r, r, r), (14, c, 14)) for r, c in ((12, 14), (9, 38), (4, 54)))
    field = polynomial(shape, size)
    local = np.where(large, field, np.where(other, -2.0 * field, np.where(small, field, 0.0))).astype(np.float32)
    remove_slow(local, large | other | small, size)
    assert np.abs(local[large | other]).max() < 1e-3
    np.testing.assert_allclose(local[small], field[small], rtol=1e-6)
