"""Laplacian unwrapping: what it keeps, what it loses."""

import numpy as np
import pytest
import scipy.fft
from scipy.ndimage import binary_erosion, laplace

from qsm_dask.kernels.unwrap.laplacian import laplacian
from tests.kernels.fields import ball, smooth, wrap


@pytest.mark.parametrize("shape", [(24, 20, 16), (23, 19, 17), (13, 1, 29)])
@pytest.mark.parametrize("voxel_size", [(1.0, 1.0, 1.0), (0.7, 1.1, 3.0)])
def test_a_mask_that_fills_the_image_loses_only_the_mean(shape, voxel_size):
    truth = np.stack([smooth(shape, seed, 1.5) for seed in (0, 1)])
    unwrapped = laplacian(wrap(truth), np.ones(shape, bool), voxel_size)
    truth -= truth.mean(axis=(1, 2, 3), keepdims=True)
    assert np.abs(unwrapped - truth).max() < 1e-3 * np.abs(truth).max()


def test_sources_in_the_mask_keep_their_laplacian():
    """In voxels with six neighbours in the mask, against the true phase; noise outside does not matter."""
    shape, voxel_size = (30, 28, 26), (1.0, 1.3, 2.0)
    truth = smooth(shape, 4, 1.2)
    mask = ball(shape, (14, 13, 12), 10)
    phase = wrap(truth)
    phase[~mask] = np.random.default_rng(0).uniform(-3, 3, np.count_nonzero(~mask))
    unwrapped = laplacian(phase[None], mask, voxel_size)[0]
    inner = binary_erosion(mask)

    def curvature(field):
        steps = [np.diff(field, axis=axis) / voxel_size[axis] ** 2 for axis in range(3)]
        return sum(np.diff(step, axis=axis, prepend=0, append=0) for axis, step in enumerate(steps))

    error = (curvature(unwrapped.astype(np.float64)) - curvature(truth))[inner]
    assert np.abs(error).max() < 1e-3 * np.abs(curvature(truth)[inner]).max()
    assert np.all(unwrapped[~mask] == 0)
    assert abs(unwrapped[mask].mean()) < 1e-5


def test_a_harmonic_field_is_partly_lost():
    """A ramp, as sources far away make it, comes out flatter in a ball: this is no exact unwrapping."""
    shape = (30, 30, 30)
    ramp = np.broadcast_to(0.5 * np.arange(30.0)[:, None, None], shape)
    mask = ball(shape, (15, 15, 15), 9)
    padded = np.zeros(shape, bool)
    padded[2, 2, 2] = padded[27, 27, 27] = True
    unwrapped = laplacian(wrap(ramp)[None], mask | padded, (1, 1, 1))[0]
    slope = np.polyfit(np.arange(9, 22), unwrapped[9:22, 15, 15], 1)[0]
    assert 0.2 < slope < 0.4
    assert np.abs(laplace(unwrapped.astype(np.float64))[binary_erosion(mask)]).max() < 1e-4


def test_single_precision_suffices():
    """A second solution in double precision on the whole matrix, from the same equation."""
    shape = (40, 36, 30)
    truth = smooth(shape, 2, 2.0)
    mask = np.ones(shape, bool)
    flux = np.zeros(shape)
    for axis in range(3):
        step = np.diff(wrap(truth).astype(np.float64), axis=axis)
        step -= 2 * np.pi * np.round(step / (2 * np.pi))
        flux += np.diff(step, axis=axis, prepend=0, append=0)
    symbols = [-4 * np.sin(np.pi * np.arange(n) / (2 * n)) ** 2 for n in shape]
    symbol = symbols[0][:, None, None] + symbols[1][:, None] + symbols[2]
    symbol[0, 0, 0] = 1
    spectrum = scipy.fft.dctn(flux) / symbol
    spectrum[0, 0, 0] = 0
    double = scipy.fft.idctn(spectrum)
    assert np.abs(laplacian(wrap(truth)[None], mask, (1, 1, 1))[0] - double).max() < 1e-3 * np.abs(double).max()


def test_faults_are_refused():
    phase, mask = np.zeros((1, 4, 4, 4), np.float32), np.ones((4, 4, 4), bool)
    broken = phase.copy()
    broken[0, 1, 1, 1] = np.inf
    for arguments, message in [
        ((broken, mask, (1, 1, 1)), "NaN or infinite in 1 voxels of the mask"),
        ((phase, mask & False, (1, 1, 1)), "mask is empty"),
        ((phase, np.ones((3, 4, 4), bool), (1, 1, 1)), "resample"),
        ((phase, mask, (1, 0, 1)), "voxel_size"),
        ((phase[0], mask, (1, 1, 1)), "single echo"),
    ]:
        with pytest.raises(ValueError, match=message):
            laplacian(*arguments)
