"""Brain extraction: the brain of a simulated head, at any voxel size, and refusals."""

import sys

import numpy as np
import pytest

from qsm_dask.anatomy.extraction import bet

VOXEL = (4.0, 4.0, 5.0)


def head(shape=(48, 56, 38)):
    """A bright brain in a dark skull in a bright scalp, the neck cut by the image's lower face."""
    x, y, z = ((np.arange(n) - (n - 1) / 2) * size for n, size in zip(shape, VOXEL, strict=True))
    radius = np.sqrt((x[:, None, None] / 66) ** 2 + (y[None, :, None] / 82) ** 2 + (z[None, None, :] / 62) ** 2)
    image = np.where(radius < 1, 100.0, np.where(radius < 1.1, 15.0, np.where(radius < 1.25, 90.0, 0.0)))
    image = image + np.random.default_rng(0).random(shape)
    return image.astype(np.float32)[None], radius < 1


def test_the_brain_is_found_without_skull_and_scalp(capfd):
    magnitude, brain = head()
    found = bet(magnitude, VOXEL, resolution_mm=4.0, iterations=300)
    assert 2 * (found & brain).sum() / (found.sum() + brain.sum()) > 0.88
    assert capfd.readouterr().out == ""


def test_the_same_twice():
    magnitude, _ = head()
    one, other = (bet(magnitude, VOXEL, resolution_mm=6.0, iterations=10) for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_what_cannot_be_extracted_is_refused(monkeypatch):
    magnitude, _ = head((24, 28, 20))
    with pytest.raises(ValueError, match="zero throughout"):
        bet(np.zeros_like(magnitude), VOXEL)
    with pytest.raises(ValueError, match="fraction is 0"):
        bet(magnitude, VOXEL, fraction=0.0)
    monkeypatch.setitem(sys.modules, "brainextractor", None)
    with pytest.raises(ValueError, match=r"qsm-dask\[anatomy\]"):
        bet(magnitude, VOXEL)
