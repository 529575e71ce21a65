"""The cheap Gaussian against SciPy's exact one."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from qsm_dask.kernels.smoothing import gaussian


@pytest.mark.parametrize("sigma", [0.9, 1.0, 2.7, 7.0, 19.3])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_variance_is_exact_and_shape_is_close(sigma, axis):
    shape = [7, 7, 7]
    shape[axis] = 301
    volume = np.zeros(shape, np.float32)
    volume[tuple(n // 2 for n in shape)] = 1
    widths = tuple(sigma if a == axis else 0.0 for a in range(3))
    truth = gaussian_filter(volume.astype(np.float64), widths, mode="constant", truncate=8)
    gaussian(volume, widths)
    line = volume.sum(axis=tuple(a for a in range(3) if a != axis), dtype=np.float64)
    positions = np.arange(301) - 150
    assert line.sum() == pytest.approx(1, abs=1e-6)
    assert (line * positions**2).sum() == pytest.approx(sigma**2, rel=1e-4)
    assert np.abs(volume - truth).max() < 0.06 * truth.max()


def test_what_lies_outside_is_zero():
    volume = np.ones((50, 9, 8), np.float32)
    truth = gaussian_filter(np.ones((50, 9, 8)), (3, 0, 0), mode="constant")
    gaussian(volume, (3.0, 0.0, 0.0))
    assert np.abs(volume - truth).max() < 0.03


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 5, 3)])
def test_images_smaller_than_the_filter(shape):
    volume = np.full(shape, 2.0, np.float32)
    gaussian(volume, (6.0, 6.0, 6.0))
    assert np.all(np.isfinite(volume))
    assert np.all((volume > 0) & (volume < 2))
