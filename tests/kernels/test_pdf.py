"""PDF: outer dipoles, inner sources, its operator and a least squares fit in float64."""

import numpy as np
import pytest

from qsm_dask.kernels import fourier
from qsm_dask.kernels.background.pdf import DipoleFit, pdf
from qsm_dask.kernels.dipole import sampled_dipole_spectrum
from tests.kernels.analytic import AXIAL, OBLIQUE, dipole_field, ellipsoid, head, positions, relative_error


@pytest.mark.parametrize("shape", [(12, 10, 8), (11, 9, 7), (12, 9, 8)])
def test_sampled_kernel_is_the_field_of_one_voxel(shape):
    voxel_size = (1.0, 1.3, 2.1)
    kernel = fourier.inverse(sampled_dipole_spectrum(shape, voxel_size, OBLIQUE).astype(np.complex64), shape)
    middle = tuple(n // 2 for n in shape)
    # A sphere of the voxel's volume has its moment: chi/3 a^3 = chi V / (4 pi).
    radius = (np.prod(voxel_size) * 3 / (4 * np.pi)) ** (1 / 3)
    truth, _ = dipole_field(shape, voxel_size, OBLIQUE, middle, radius, 1.0)
    near = tuple(slice(c - 3, c + 4) for c in middle)
    truth[middle] = 0.0
    np.testing.assert_allclose(np.roll(kernel, middle, (0, 1, 2))[near], truth[near], atol=1e-6)


@pytest.mark.parametrize("shape", [(16, 18, 20), (15, 18, 25)], ids=["even", "odd"])
def test_transpose_is_adjoint_to_the_weighted_field(shape):
    rng = np.random.default_rng(0)
    sources, field, weights = rng.standard_normal((3, *shape)).astype(np.float32)
    mask = ellipsoid(shape, (1, 1, 1), (6, 7, 8))
    weights, sources = np.where(mask, weights**2 + 1, 0).astype(np.float32), sources * ~mask
    fit = DipoleFit(weights, sampled_dipole_spectrum(shape, (1.0, 1.2, 1.4), OBLIQUE))
    weighted = np.vdot(fit.field(sources) * weights, field)
    assert weighted == pytest.approx(np.vdot(sources, fit.transpose(field.copy())), rel=1e-4)


def plain_pdf(field, mask, voxel_size, b0_dir, noise, iterations):
    """Conjugate gradients in float64 with complex transforms, in the mask's own box."""
    whole, box = mask.shape, tuple(slice(w.min(), w.max() + 1) for w in np.where(mask))
    field, mask, noise = field[box], mask[box], noise[box]
    shape = fourier.padded_shape(mask.shape, voxel_size, fourier.SOURCES_MARGIN_MM)
    x, y, z = positions(shape, voxel_size, [0, 0, 0])
    x, y, z = (a - n * v * (a > n * v / 2) for a, n, v in zip((x, y, z), shape, voxel_size, strict=True))
    r = np.sqrt(x**2 + y**2 + z**2)
    r[0, 0, 0] = np.inf
    kernel = (
        np.prod(voxel_size) / (4 * np.pi * r**3) * (3 * ((b0_dir[0] * x + b0_dir[1] * y + b0_dir[2] * z) / r) ** 2 - 1)
    )
    spectrum = np.fft.fftn(kernel).real
    inside, weights, data = np.zeros((3, *shape))
    corner = tuple(slice(n) for n in mask.shape)
    inside[corner], data[corner] = mask, field * mask
    weights[corner] = np.where(mask, (np.median(noise[mask]) / noise) ** 2, 0)

    def convolve(volume):
        return np.fft.ifftn(np.fft.fftn(volume) * spectrum).real

    x = np.zeros(shape)
    rest = (1 - inside) * convolve(weights * data)
    direction, norm = rest, np.sum(rest**2)
    for _ in range(iterations):
        image = (1 - inside) * convolve(weights * convolve(direction))
        step = norm / np.sum(direction * image)
        x, rest = x + step * direction, rest - step * image
        before, norm = norm, np.sum(rest**2)
        direction = rest + norm / before * direction
    local = np.zeros(whole)
    local[box] = (data - convolve(x))[corner] * mask
    return local


def test_float32_equals_plain_float64():
    shape, voxel_size = (20, 23, 17), (3.0, 3.0, 4.0)
    _, field, mask = head(shape, voxel_size, OBLIQUE)
    x, _, z = positions(shape, voxel_size)
    field = field + 0.01 * x + (z**2 - x**2) / 5000
    noise = 1.0 + 0.5 * np.random.default_rng(1).random(shape)
    truth = plain_pdf(field, mask, voxel_size, OBLIQUE, noise, 8)
    local, kept, solved = pdf(
        field.astype(np.float32), mask, voxel_size, OBLIQUE, noise.astype(np.float32), tolerance=1e-9, max_iterations=8
    )
    assert local.dtype == np.float32
    assert solved.iterations == 8
    assert not solved.converged
    np.testing.assert_array_equal(kept, mask)
    assert relative_error(local, truth) < 1e-3


@pytest.mark.parametrize("b0_dir", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
@pytest.mark.parametrize("voxel_size", [(3.0, 3.0, 3.0), (2.4, 3.0, 4.1)])
def test_field_of_an_outer_dipole_is_removed_and_that_of_an_inner_source_stays(voxel_size, b0_dir):
    shape = tuple(round(96 / v) for v in voxel_size)
    mask = ellipsoid(shape, voxel_size, (36, 38, 34))
    middle = (np.array(shape) - 1) / 2
    outer = np.round(middle + np.array([10.0, 44.0, 8.0]) / voxel_size)
    background, _ = dipole_field(shape, voxel_size, b0_dir, outer, 10, 0.5)
    inner, r = dipole_field(shape, voxel_size, b0_dir, middle, 4.0, 0.5)
    inner = np.where(r < 4.0, 0.0, inner)
    left, _, solved = pdf(background.astype(np.float32), mask, voxel_size, b0_dir)
    assert solved.converged
    assert left[mask].std() < 0.05 * background[mask].std()
    left = pdf(background.astype(np.float32), mask, voxel_size, b0_dir, tolerance=3e-4)[0]
    assert left[mask].std() < 0.02 * background[mask].std()
    both, _, _ = pdf((inner + background).astype(np.float32), mask, voxel_size, b0_dir)
    near = r < 14.0
    assert np.polyfit(inner[near], both[near], 1)[0] == pytest.approx(1.0, abs=0.05)
    assert np.corrcoef(inner[near], both[near])[0, 1] > 0.98


def test_voxels_of_great_noise_do_not_spoil_the_others():
    _, field, mask = head((30, 32, 28), (3, 3, 3))
    x, y, z = positions((30, 32, 28), (3, 3, 3))
    total = (field + (2 * z**2 - x**2 - y**2) / 3000).astype(np.float32)
    bad = mask & (np.random.default_rng(0).random(mask.shape) < 0.02)
    noise = np.where(bad, 100.0, 1.0).astype(np.float32)
    spoilt = np.where(bad, total + 5, total).astype(np.float32)
    clean, told, untold = (
        pdf(f, mask, (3, 3, 3), AXIAL, n)[0] for f, n in ((total, None), (spoilt, noise), (spoilt, None))
    )
    good = mask & ~bad
    assert relative_error(told[good], clean[good]) < 0.5
    assert relative_error(untold[good], clean[good]) > 1.0


def test_equal_noise_is_as_none():
    _, field, mask = head((24, 22, 20), (3.0, 3.0, 3.0))
    given = pdf(field, mask, (3, 3, 3), AXIAL, np.full(mask.shape, 0.02))[0]
    np.testing.assert_allclose(given, pdf(field, mask, (3, 3, 3), AXIAL)[0], atol=1e-6)


def test_two_components_and_a_mask_at_the_slab_edge():
    shape = (24, 44, 20)
    mask = ellipsoid(shape, (3, 3, 3), (27, 27, 60), (11, 10, 0)) | ellipsoid(
        shape, (3, 3, 3), (27, 27, 60), (11, 32, 19)
    )
    background, _ = dipole_field(shape, (3, 3, 3), OBLIQUE, (26, 21, 10), 10, 1.0)
    local, kept, _ = pdf(background.astype(np.float32), mask, (3, 3, 3), OBLIQUE)
    np.testing.assert_array_equal(kept, mask)
    assert local[mask].std() < 0.03 * background[mask].std()


def test_values_outside_the_mask_are_never_read():
    _, field, mask = head((24, 22, 20), (3.0, 3.0, 3.0))
    noise = np.ones(mask.shape)
    local = pdf(field, mask, (3, 3, 3), AXIAL, noise)[0]
    again = pdf(np.where(mask, field, np.nan), mask, (3, 3, 3), AXIAL, np.where(mask, noise, np.nan))[0]
    np.testing.assert_array_equal(local, again)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": np.zeros((12, 12, 12), bool)}, "empty"),
        ({"mask": np.ones((12, 12, 11), bool)}, "shape"),
        ({"total_field": np.full((12, 12, 12), np.nan)}, "NaN"),
        ({"voxel_size": (1, 0, 1)}, "voxel_size"),
        ({"b0_dir": (1, 1, 1)}, "b0_dir"),
        ({"field_noise": np.ones((12, 12, 11))}, "field_noise"),
        ({"field_noise": np.zeros((12, 12, 12))}, "positive"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"max_iterations": 0}, "max_iterations"),
    ],
)
def test_pdf_refuses(change, message):
    arguments = {
        "total_field": np.zeros((12, 12, 12)),
        "mask": np.ones((12, 12, 12), bool),
        "voxel_size": (1, 1, 1),
        "b0_dir": AXIAL,
        "field_noise": None,
    }
    quantities = [change.get(name, value) for name, value in arguments.items()]
    parameters = {name: value for name, value in change.items() if name not in arguments}
    with pytest.raises(ValueError, match=message):
        pdf(*quantities, **parameters)
