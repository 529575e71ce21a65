"""V-SHARP: the mean value property, harmonic fields, local sources and a plain float64 V-SHARP."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from qsm_dask.kernels import fourier
from qsm_dask.kernels.background import smv
from qsm_dask.kernels.background.smv import vsharp
from tests.kernels.analytic import (
    AXIAL,
    OBLIQUE,
    convolve,
    dipole_field,
    ellipsoid,
    embed,
    head,
    positions,
    relative_error,
)
from tests.kernels.plain_slow import ABSOLUTE, without_slow

ANISOTROPIC = (1.0, 1.2, 2.5)


def full_sphere(shape, voxel_size, radius):
    """A sphere on the full grid in float64, in the way the module states, built without octants."""
    n = np.array([int(radius / v + 1e-6) for v in voxel_size])
    weights = np.zeros(shape)
    offsets = list(itertools.product(*(range(-k, k + 1) for k in n)))
    inside = [o for o in offsets if np.sum((np.array(o) * voxel_size) ** 2) <= radius**2 * (1 + 1e-5)]
    squares = (np.array(inside) * voxel_size) ** 2
    # Lagrange conditions of the smallest relative change that makes the weights' sum one and their moments equal.
    terms = np.column_stack([np.ones(len(inside)), squares])
    wanted = np.array([1.0, *np.full(3, squares.mean())])
    factors = terms @ np.linalg.solve(terms.T @ terms / len(inside), wanted)
    for offset, factor in zip(inside, factors, strict=True):
        weights[offset] = factor / len(inside)
    return weights


def plain_vsharp(field, mask, voxel_size, radii, threshold):
    """V-SHARP in float64 with complex transforms, in the smallest box that holds the mask."""
    box = tuple(slice(places.min(), places.max() + 1) for places in np.nonzero(mask))
    local, kept = np.zeros(mask.shape), np.zeros(mask.shape, bool)
    local[box], kept[box] = plain_vsharp_in_box(field[box], mask[box], voxel_size, radii, threshold)
    return local, kept


def plain_vsharp_in_box(field, mask, voxel_size, radii, threshold):
    shape = fourier.padded_shape(mask.shape, voxel_size, fourier.MARGIN_MM)
    depth = distance_transform_edt(np.pad(mask, 1), sampling=voxel_size)[1:-1, 1:-1, 1:-1]
    padded = embed(field * mask, shape)
    filtered, done = np.zeros(shape), np.zeros(mask.shape, bool)
    for radius in radii:
        fits = (depth > radius * (1 + 1e-6)) & ~done
        spectrum = 1 - np.fft.fftn(full_sphere(shape, voxel_size, radius))
        filtered += embed(fits, shape) * convolve(padded, spectrum)
        done |= fits
    largest = 1 - np.fft.fftn(full_sphere(shape, voxel_size, radii[0])).real
    safe = np.where(np.abs(largest) >= threshold, largest, np.inf)
    return convolve(filtered, 1 / safe)[tuple(slice(n) for n in mask.shape)] * done, done


@pytest.mark.parametrize("shape", [(28, 30, 32), (27, 25, 15)], ids=["even", "odd"])
@pytest.mark.parametrize("radius", [3.0, 6.0])
def test_spectrum_of_the_sphere_is_that_of_its_voxels(shape, radius):
    ones = np.ones(fourier.half_shape(shape), np.complex64)
    product = np.empty_like(ones)
    smv.weigh(ones, product, smv.octant(shape, ANISOTROPIC, radius))
    truth = 1 - np.fft.rfftn(full_sphere(shape, ANISOTROPIC, radius))
    np.testing.assert_allclose(product, truth, atol=1e-6)


@pytest.mark.parametrize("voxel_size", [(1.0, 1.0, 1.0), (0.8, 0.8, 2.0), (0.5, 0.5, 3.0)])
@pytest.mark.parametrize("radius", [6.0, 12.0])
def test_high_frequencies_pass_the_filter_unchanged(voxel_size, radius):
    """A sphere averages what is shorter than it; a spectrum far from zero there would ring after deconvolution."""
    shape = (60, 60, 30)
    ones = np.ones(fourier.half_shape(shape), np.complex64)
    product = np.empty_like(ones)
    smv.weigh(ones, product, smv.octant(shape, voxel_size, radius))
    x, y, z = np.meshgrid(*fourier.frequencies(shape, voxel_size), indexing="ij", sparse=True)
    short = np.sqrt(x**2 + y**2 + z**2) * radius > 1.0
    assert np.abs(product[short] - 1.0).max() < 0.5  # deconvolution at most doubles it


@pytest.mark.parametrize("voxel_size", [(1.0, 1.0, 1.0), ANISOTROPIC, (0.5, 0.5, 3.0)])
@pytest.mark.parametrize("radius", [3.0, 7.0])
def test_harmonic_polynomials_equal_their_mean_over_the_sphere(voxel_size, radius):
    n = [int(radius / v + 1e-6) for v in voxel_size]
    shape = tuple(2 * k + 1 for k in n)
    weights = np.roll(full_sphere(shape, voxel_size, radius), n, axis=(0, 1, 2))
    octant = smv._sphere(voxel_size, radius)
    assert octant.sum() == pytest.approx(1.0)
    x, y, z = positions(shape, voxel_size)
    for polynomial in (x + 2 * y - z, x**2 - y**2, 2 * z**2 - x**2 - y**2, x * y + y * z, x**3 - 3 * x * y**2):
        assert np.sum(weights * polynomial) == pytest.approx(0.0, abs=1e-9)


def test_harmonic_field_of_second_degree_vanishes():
    shape, voxel_size = (36, 34, 20), (2.0, 2.0, 3.5)
    x, y, z = positions(shape, voxel_size)
    background = 0.01 * x - 0.02 * z + (2 * z**2 - x**2 - y**2 + 3 * x * y) / 2000
    mask = ellipsoid(shape, voxel_size, (30, 28, 28))
    local, kept = vsharp(background.astype(np.float32), mask, voxel_size)
    assert np.abs(local[kept]).max() < 1e-5 * np.abs(background[mask]).max()


@pytest.mark.parametrize("b0_dir", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
@pytest.mark.parametrize("voxel_size", [(2.0, 2.0, 2.0), (1.6, 2.0, 2.7)])
def test_field_of_an_outer_dipole_is_removed_and_that_of_an_inner_source_stays(voxel_size, b0_dir):
    shape = tuple(round(96 / v) for v in voxel_size)
    mask = ellipsoid(shape, voxel_size, (36, 38, 34))
    middle = (np.array(shape) - 1) / 2
    outer = middle + np.array([10.0, 60.0, 8.0]) / voxel_size
    background, _ = dipole_field(shape, voxel_size, b0_dir, outer, 10.0, 9.4)
    inner, r = dipole_field(shape, voxel_size, b0_dir, middle, 4.0, 0.5)
    inner = np.where(r < 4.0, 0.0, inner)
    core = ellipsoid(shape, voxel_size, (30, 32, 28))

    left, kept = vsharp(background.astype(np.float32), mask, voxel_size)
    assert core[~kept].sum() == 0
    assert left[core].std() < 0.005 * background[mask].std()

    both, _ = vsharp((inner + background).astype(np.float32), mask, voxel_size)
    near = r < 14.0
    slope = np.polyfit(inner[near], both[near], 1)[0]
    assert slope == pytest.approx(1.0, abs=0.05)
    assert np.corrcoef(inner[near], both[near])[0, 1] > 0.98


@pytest.mark.parametrize(
    ("shape", "voxel_size"), [((30, 32, 28), (2.0, 2.0, 2.0)), ((27, 29, 17), (2.0, 1.8, 3.1))], ids=["even", "odd"]
)
def test_float32_octants_equal_plain_float64(shape, voxel_size):
    _, field, mask = head(shape, voxel_size)
    x, y, z = positions(shape, voxel_size)
    total = field + 0.05 * x / 30 + 0.1 * (2 * z**2 - x**2 - y**2) / 1000
    radii = np.linspace(9.0, max(voxel_size), int(np.ceil((9.0 - max(voxel_size)) / 2.0 - 1e-9)) + 1)
    truth, kept = plain_vsharp(total, mask, voxel_size, radii, 0.08)
    refined = without_slow(truth, kept, voxel_size, kept, **ABSOLUTE)
    assert relative_error(refined, truth) > 0.1
    for refine, expected in ((False, truth), (True, refined)):
        local, eroded = vsharp(total.astype(np.float32), mask, voxel_size, radius_mm=9.0, refine=refine)
        assert local.dtype == np.float32
        np.testing.assert_array_equal(eroded, kept)
        assert relative_error(local, expected) < 1e-3


@given(st.tuples(*[st.integers(9, 13)] * 3), st.integers(0, 2**31), st.floats(-2, 2))
@settings(max_examples=15)
def test_vsharp_is_linear(shape, seed, factor):
    first, second = np.random.default_rng(seed).standard_normal((2, *shape)).astype(np.float32)
    mask = np.ones(shape, bool)
    a, b, both = (
        vsharp(f, mask, (2, 2, 2), radius_mm=6.0, refine=False)[0]
        for f in (first, second, first + np.float32(factor) * second)
    )
    np.testing.assert_allclose(both, a + np.float32(factor) * b, atol=2e-4)


def test_kept_mask_loses_exactly_the_smallest_sphere_also_at_the_slab_edge():
    mask = np.ones((20, 18, 16), bool)
    _, kept = vsharp(np.zeros(mask.shape), mask, (2.0, 2.0, 2.0))
    inner = np.zeros_like(mask)
    inner[1:-1, 1:-1, 1:-1] = True
    np.testing.assert_array_equal(kept, inner)


def test_a_slab_that_fills_its_array_gives_the_same_field_as_one_amid_zeros():
    _, field, _ = head()
    slab = field[8:32, 8:36, 8:28]
    mask = np.ones(slab.shape, bool)
    local, kept = vsharp(slab, mask, (2, 2, 2))
    shifted = tuple((12, 14) for _ in range(3))
    amid, amid_kept = vsharp(np.pad(slab, shifted), np.pad(mask, shifted), (2, 2, 2))
    inside = tuple(slice(12, 12 + n) for n in slab.shape)
    np.testing.assert_array_equal(kept, amid_kept[inside])
    # The lowest frequencies that are restored lie at other samples of the larger grid.
    assert np.linalg.norm(local - amid[inside]) < 0.1 * np.linalg.norm(local)


def test_values_outside_the_mask_are_never_read():
    _, field, mask = head((24, 22, 20), (3.0, 3.0, 3.0))
    local, _ = vsharp(field, mask, (3, 3, 3))
    again, _ = vsharp(np.where(mask, field, np.nan), mask, (3, 3, 3))
    np.testing.assert_array_equal(local, again)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": np.zeros((12, 12, 12), bool)}, "empty"),
        ({"mask": np.ones((12, 12, 11), bool)}, "shape"),
        ({"total_field": np.full((12, 12, 12), np.nan)}, "NaN"),
        ({"voxel_size": (1, -1, 1)}, "voxel_size"),
        ({"radius_mm": 0.5}, "radius_mm"),
        ({"radius_min_mm": 20.0}, "smallest sphere"),
        ({"radius_step_mm": 0.04}, r"more than 254 spheres from 1 to 12 mm; take steps of 0\.044 mm or more"),
        ({"threshold": 0.0}, "threshold"),
        ({"mask": np.arange(12**3).reshape(12, 12, 12) % 12 == 5}, "too thin"),
    ],
)
def test_vsharp_refuses(change, message):
    arguments = {"total_field": np.zeros((12, 12, 12)), "mask": np.ones((12, 12, 12), bool), "voxel_size": (1, 1, 1)}
    quantities = [change.get(name, value) for name, value in arguments.items()]
    parameters = {name: value for name, value in change.items() if name not in arguments}
    with pytest.raises(ValueError, match=message):
        vsharp(*quantities, **parameters)
