"""Depth inside a mask against SciPy's exact transform."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from qsm_dask.kernels.distance import deeper, depth_squared


@given(
    st.tuples(*[st.integers(1, 12)] * 3),
    st.tuples(*[st.sampled_from([0.5, 0.8, 1.0, 3.0])] * 3),
    st.integers(0, 2**31),
    st.floats(0.3, 0.95),
)
def test_depth_is_exact_up_to_its_limit(shape, voxel_size, seed, share):
    mask = np.random.default_rng(seed).random(shape) < share
    mask[0, 0, 0] = True
    limit = 4.0
    surrounded = np.pad(mask, 1)
    truth = distance_transform_edt(surrounded, sampling=voxel_size)[1:-1, 1:-1, 1:-1]
    squared = depth_squared(mask, voxel_size, limit)
    near = truth <= limit
    np.testing.assert_allclose(squared[near], truth[near] ** 2, rtol=1e-6)
    assert np.all(squared[~near] > limit**2)


@pytest.mark.parametrize("size", [0.1, 0.3, 0.7, 1.0])
def test_a_sphere_that_touches_the_outside_does_not_fit(size):
    mask = np.zeros((11, 11, 11), bool)
    mask[1:10, 1:10, 1:10] = True
    squared = depth_squared(mask, (size,) * 3, 5 * size)
    for voxels in (1, 2, 3, 4):
        kept = np.zeros_like(mask)
        kept[1 + voxels : 10 - voxels, 1 + voxels : 10 - voxels, 1 + voxels : 10 - voxels] = True
        np.testing.assert_array_equal(deeper(squared, voxels * size), kept)
