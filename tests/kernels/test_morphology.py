"""Erosion and dilation by bits, against exact distances."""

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from qsm_dask.kernels.morphology import dilated, eroded


@pytest.mark.parametrize("radius", [0.0, 0.9, 2.0, 5.3])
@pytest.mark.parametrize("size", [(1.0, 1.0, 1.0), (0.7, 1.1, 2.3), (2.0, 2.0, 0.4)])
@pytest.mark.parametrize("shape", [(9, 12, 63), (7, 5, 64), (5, 6, 150), (1, 4, 3)])
def test_a_voxel_is_reached_within_the_radius_and_faces_go_on(shape, size, radius):
    mask = np.random.default_rng(5).random(shape) < 0.02
    mask[0, -1, -1] = True
    margins = [(int(radius / s) + 1,) * 2 for s in size]
    inner = tuple(slice(m, m + n) for (m, _), n in zip(margins, shape, strict=True))
    distance = distance_transform_edt(~np.pad(mask, margins, mode="edge"), sampling=size)[inner]
    np.testing.assert_array_equal(dilated(mask, size, radius), distance <= radius * (1 + 1e-6))
    np.testing.assert_array_equal(eroded(~mask, size, radius), distance > radius * (1 + 1e-6))


def test_nothing_grows_from_nothing_and_everything_stays():
    mask = np.zeros((4, 5, 70), bool)
    assert not dilated(mask, (1, 1, 1), 3.0).any()
    assert eroded(~mask, (1, 1, 1), 3.0).all()
