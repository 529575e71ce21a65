"""SHARP, RESHARP and iterative SMV: harmonic fields, local sources, operators and plain solvers in float64."""

import numpy as np
import pytest

from qsm_dask.kernels import fourier
from qsm_dask.kernels.background.fitted import Means, ismv, resharp
from qsm_dask.kernels.background.smv import sharp
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
from tests.kernels.test_vsharp import full_sphere, plain_vsharp

METHODS = [sharp, resharp, ismv]
SHAPE, VOXEL_SIZE = (27, 29, 17), (2.0, 1.8, 3.1)


def total():
    _, field, mask = head(SHAPE, VOXEL_SIZE)
    x, y, z = positions(SHAPE, VOXEL_SIZE)
    return field + 0.05 * x / 30 + 0.1 * (2 * z**2 - x**2 - y**2) / 1000, mask


@pytest.mark.parametrize("method", METHODS)
def test_harmonic_field_vanishes(method):
    shape, voxel_size = (36, 34, 20), (2.0, 2.0, 3.5)
    x, y, z = positions(shape, voxel_size)
    background = 0.01 * x - 0.02 * z + (2 * z**2 - x**2 - y**2 + 3 * x * y) / 2000
    mask = ellipsoid(shape, voxel_size, (30, 28, 28))
    local, kept, *_ = method(background.astype(np.float32), mask, voxel_size)
    assert np.abs(local[kept]).max() < 2e-4 * np.abs(background[mask]).max()


@pytest.mark.parametrize("b0_dir", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
@pytest.mark.parametrize("method", METHODS)
def test_inner_source_stays_and_an_outer_one_goes(method, b0_dir):
    shape, voxel_size = (60, 48, 36), (1.6, 2.0, 2.7)
    mask = ellipsoid(shape, voxel_size, (36, 38, 34))
    middle = (np.array(shape) - 1) / 2
    background, _ = dipole_field(shape, voxel_size, b0_dir, middle + np.array([10, 60, 8]) / voxel_size, 10.0, 9.4)
    inner, r = dipole_field(shape, voxel_size, b0_dir, middle, 4.0, 0.5)
    inner = np.where(r < 4.0, 0.0, inner)
    left, kept, *_ = method(background.astype(np.float32), mask, voxel_size)
    assert left[kept].std() < 0.01 * background[mask].std()
    both = method((inner + background).astype(np.float32), mask, voxel_size)[0]
    near = r < 12.0
    assert np.polyfit(inner[near], both[near], 1)[0] == pytest.approx(1.0, abs=0.15)
    assert np.corrcoef(inner[near], both[near])[0, 1] > 0.98


def test_means_are_symmetric_and_positive():
    _, mask = total()
    means = Means(mask, VOXEL_SIZE, 5.0)
    one, other = np.random.default_rng(0).standard_normal((2, *means.shape)).astype(np.float32)
    assert np.vdot(means.subtract(one), other) == pytest.approx(np.vdot(one, means.subtract(other)), rel=1e-4)
    kept = means.restrict(one)
    assert np.vdot(kept, means.subtract(kept)) > 0


def test_sharp_equals_plain_float64():
    field, mask = total()
    truth, kept = plain_vsharp(field, mask, VOXEL_SIZE, [6.0], 0.05)
    local, eroded = sharp(field.astype(np.float32), mask, VOXEL_SIZE)
    np.testing.assert_array_equal(eroded, kept)
    assert relative_error(local, truth) < 1e-3


def test_ismv_is_the_fixed_point_of_repeated_means():
    field, mask = total()
    local, kept, solved = ismv(field.astype(np.float32), mask, VOXEL_SIZE, tolerance=1e-6, max_iterations=300)
    shape = fourier.padded_shape(SHAPE, VOXEL_SIZE, fourier.MARGIN_MM)
    mean = np.fft.fftn(full_sphere(shape, VOXEL_SIZE, 6.0))
    background, inside = embed(field * mask, shape), embed(kept, shape) > 0
    for _ in range(2000):
        background = np.where(inside, convolve(background, mean), background)
    truth = (field - background[tuple(slice(n) for n in SHAPE)]) * kept
    assert solved.converged
    assert relative_error(local, truth) < 1e-3


def test_resharp_solves_its_normal_equations():
    field, mask = total()
    local, kept, solved = resharp(field.astype(np.float32), mask, VOXEL_SIZE, tolerance=1e-6, max_iterations=500)
    shape = fourier.padded_shape(SHAPE, VOXEL_SIZE, fourier.MARGIN_MM)
    subtract, inside = 1 - np.fft.fftn(full_sphere(shape, VOXEL_SIZE, 6.0)), embed(kept, shape)

    def normal(x):
        return convolve(inside * convolve(x, subtract), subtract) + 1e-4 * x

    right = convolve(inside * convolve(embed(field * mask, shape), subtract), subtract)
    x, rest = np.zeros(shape), right
    direction, norm = rest, np.sum(rest**2)
    for _ in range(600):
        image = normal(direction)
        step = norm / np.sum(direction * image)
        x, rest = x + step * direction, rest - step * image
        before, norm = norm, np.sum(rest**2)
        direction = rest + norm / before * direction
    assert solved.converged
    assert relative_error(local, x[tuple(slice(n) for n in SHAPE)] * kept) < 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_values_outside_the_mask_are_never_read(method):
    field, mask = total()
    first, second = (method(f, mask, VOXEL_SIZE)[0] for f in (field, np.where(mask, field, np.nan)))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("method", METHODS)
def test_mask_loses_the_sphere_at_the_slab_edge_in_both_components(method):
    mask = np.ones((20, 41, 20), bool)
    mask[:, 20] = False
    kept = method(np.zeros(mask.shape), mask, (2, 2, 2), radius_mm=6.0)[1]
    assert kept.sum() == 2 * 14**3


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": np.zeros((12, 12, 12), bool)}, "empty"),
        ({"mask": np.ones((12, 12, 11), bool)}, "shape"),
        ({"total_field": np.full((12, 12, 12), np.nan)}, "NaN"),
        ({"voxel_size": (1, -1, 1)}, "voxel_size"),
        ({"radius_mm": 0.5}, "radius_mm"),
        ({"radius_mm": 8.0}, "too thin"),
    ],
)
def test_refuses(method, change, message):
    arguments = {"total_field": np.zeros((12, 12, 12)), "mask": np.ones((12, 12, 12), bool), "voxel_size": (1, 1, 1)}
    quantities = [change.get(name, value) for name, value in arguments.items()]
    parameters = {name: value for name, value in change.items() if name not in arguments}
    with pytest.raises(ValueError, match=message):
        method(*quantities, **parameters)
