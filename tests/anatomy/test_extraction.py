"""Brain extraction: the brain of a simulated head, at any voxel size, and refusals."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from qsm_dask.anatomy.extraction import bet, deepbet

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


class Network:
    """In the place of deepbet: it takes what is bright, and keeps what it was shown."""

    shown = None

    def __init__(self, *, no_gpu):
        assert no_gpu

    def run_model(self, image):
        Network.shown = image
        return image / image.max()

    def postprocess(self, found):
        return found


@pytest.fixture
def network(monkeypatch):
    threads = [3]
    torch = SimpleNamespace(get_num_threads=lambda: threads[-1], set_num_threads=threads.append)
    monkeypatch.setitem(sys.modules, "deepbet", SimpleNamespace(BrainExtraction=Network))
    monkeypatch.setitem(sys.modules, "torch", torch)
    return threads


def test_the_network_sees_heads_upright_and_the_mask_lies_as_the_scan(network):
    """Axes stored as up, left, front: the network is shown right, front, up, and the mask comes back."""
    upright = np.random.default_rng(0).random((6, 7, 8), dtype=np.float32)
    affine = np.array([[0.1, -2.0, 0.0, 5], [0.0, 0.1, 3.0, 1], [1.0, 0.1, 0.1, 2], [0, 0, 0, 1]])
    stored = np.ascontiguousarray(upright[::-1].transpose(2, 0, 1))
    found = deepbet(np.stack([stored, 0 * stored]), affine, threshold=0.6)
    np.testing.assert_array_equal(Network.shown, upright)
    np.testing.assert_array_equal(found, stored / stored.max() > 0.6)
    assert network == [3, 1, 3]  # one thread, and then as many as before


def test_what_the_network_cannot_be_shown_is_refused(network, monkeypatch):
    magnitude, _ = head((24, 28, 20))
    with pytest.raises(ValueError, match="echo is 2: the scan has 1"):
        deepbet(magnitude, np.eye(4), echo=2)
    with pytest.raises(ValueError, match="threshold is 1"):
        deepbet(magnitude, np.eye(4), threshold=1.0)
    with pytest.raises(ValueError, match="magnitude of echo 1 is zero throughout"):
        deepbet(np.zeros_like(magnitude), np.eye(4))
    monkeypatch.setitem(sys.modules, "deepbet", None)
    with pytest.raises(ValueError, match=r"qsm-dask\[deepbet\]"):
        deepbet(magnitude, np.eye(4))


def test_the_network_itself_finds_the_same_brain_twice_however_it_is_stored():
    pytest.importorskip("deepbet", reason="the extra deepbet is not installed")
    magnitude, brain = head()
    affine = np.diag([*VOXEL, 1.0])
    one = deepbet(magnitude, affine)
    assert 2 * (one & brain).sum() / (one.sum() + brain.sum()) > 0.8
    mirrored = np.diag([-1.0, 1.0, 1.0, 1.0]) @ affine
    np.testing.assert_array_equal(deepbet(magnitude[:, ::-1], mirrored)[::-1], one)
