"""Grids, transforms and the cache of spectra."""

import re
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
from hypothesis import given
from hypothesis import strategies as st

import qsm_dask
from qsm_dask.kernels import fourier
from qsm_dask.kernels.dipole import dipole_spectrum

lengths = st.integers(4, 13)


@given(
    st.tuples(*[st.integers(1, 300)] * 3),
    st.tuples(*[st.floats(0.3, 4.0)] * 3),
    st.floats(0, 40, allow_subnormal=False),
)
def test_padded_grids_hold_the_margin_and_have_fast_lengths(shape, voxel_size, margin):
    padded = fourier.padded_shape(shape, voxel_size, margin)
    for n, size, length in zip(shape, voxel_size, padded, strict=True):
        assert (length - n) * size >= margin - 1e-9
        assert (2 * 3 * 5) ** 10 % length == 0


@given(st.tuples(lengths, lengths, lengths), st.integers(0, 2**31))
def test_inverse_undoes_forward(shape, seed):
    volume = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    spectrum = fourier.forward(volume)
    assert spectrum.dtype == np.complex64
    assert spectrum.shape == fourier.half_shape(shape)
    reference = scipy.fft.rfftn(volume.astype(np.float64))
    np.testing.assert_allclose(spectrum, reference, atol=1e-5 * np.abs(reference).max())
    back = fourier.inverse(spectrum, shape)
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, volume, atol=1e-5)


@given(st.tuples(lengths, lengths, lengths), st.integers(0, 2**31))
def test_inverse_undoes_the_cosine_transform(shape, seed):
    volume = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    transformed = fourier.cosine(volume.copy())
    assert transformed.dtype == np.float32
    assert transformed[0, 0, 0] == pytest.approx(8 * volume.sum(dtype=np.float64), abs=1e-2)
    np.testing.assert_allclose(fourier.inverse_cosine(transformed), volume, atol=1e-5)


def test_transforms_and_their_sizes_are_chosen_in_one_place():
    package = Path(qsm_dask.__file__).parent
    elsewhere = [
        f"{path.relative_to(package)}: {used}"
        for path in package.rglob("*.py")
        for used in re.findall(r"(?:scipy|np|numpy)\.fft\.(\w+)", path.read_text(encoding="utf-8"))
        if path != package / "kernels" / "fourier.py" and used not in ("get_workers", "set_workers")
    ]
    assert elsewhere == []


def test_pad_and_crop_take_only_what_is_inside_the_mask():
    volume = np.arange(24.0).reshape(2, 3, 4)
    volume[0, 0, 0] = np.nan
    mask = volume > 5
    padded = fourier.pad(volume, mask, (3, 4, 5))
    assert padded.dtype == np.float32
    assert padded.sum() == volume[mask].sum()
    np.testing.assert_array_equal(fourier.crop(padded, mask), np.where(mask, volume, 0))


def test_frequencies_are_cycles_per_mm():
    kx, ky, kz = fourier.frequencies((4, 5, 6), (0.5, 1.0, 2.0))
    np.testing.assert_allclose(kx, [0, 0.5, -1.0, -0.5])
    np.testing.assert_allclose(ky, [0, 0.2, 0.4, -0.4, -0.2])
    np.testing.assert_allclose(kz, [0, 1 / 12, 2 / 12, 3 / 12])


def test_cache_is_bounded_and_drops_what_was_used_longest_ago():
    cache = fourier.SpectrumCache(8000)
    made = []

    def compute(name):
        made.append(name)
        return np.full(1000, len(made), np.float32)

    for name in ("a", "b", "a", "c", "a", "b"):
        cache.get(name, lambda name=name: compute(name))
        assert cache.nbytes <= 8000
    assert made == ["a", "b", "c", "b"]
    assert cache.get("large", lambda: np.zeros(1001)).nbytes == 8008  # larger than the limit: given, not kept
    assert cache.nbytes == 8000
    cache.get("small", lambda: np.zeros(1, np.float32))
    assert cache.nbytes == 4004


def test_cached_spectra_cannot_be_written_to_and_have_the_same_bits_without_a_cache(monkeypatch):
    arguments = ((6, 7, 8), (1.0, 1.2, 2.0), (0.0, 0.6, 0.8))
    kept = dipole_spectrum(*arguments)
    assert dipole_spectrum(*arguments) is kept
    with pytest.raises(ValueError, match="read-only"):
        kept[0, 0, 0] = 1
    monkeypatch.setattr(fourier, "spectra", fourier.SpectrumCache(0))
    again = dipole_spectrum(*arguments)
    assert again is not kept
    assert again.tobytes() == kept.tobytes()
    with pytest.raises(ValueError, match="read-only"):
        again[0, 0, 0] = 1


def test_smallest_box_holds_the_mask_and_what_is_put_back_lies_in_it():
    mask = np.zeros((5, 6, 7), bool)
    mask[1, 2, 3] = mask[3, 2, 6] = True
    box = fourier.smallest_box(mask)
    assert box == (slice(1, 4), slice(2, 3), slice(3, 7))
    back = fourier.uncrop(np.ones((3, 1, 4), np.float32), box, mask.shape)
    assert back.shape == mask.shape
    assert back.sum() == back[box].sum() == 12
