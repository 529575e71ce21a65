"""Total field inversion: the field on the surface, harmonic fields, a plain solver in float64."""

import numpy as np
import pytest
from scipy import ndimage

from qsm_dask.kernels import fourier
from qsm_dask.kernels.background.lbv import enclosed, lbv
from qsm_dask.kernels.background.tfi import SourceFit, tfi
from tests.kernels.analytic import (
    AXIAL,
    OBLIQUE,
    convolve,
    dipole_field,
    ellipsoid,
    embed,
    full_dipole,
    head,
    positions,
    relative_error,
)
from tests.kernels.test_lbv import stencil


def background(shape, voxel_size):
    x, y, z = positions(shape, voxel_size)
    return 0.002 * x + (2 * z**2 - x**2 - y**2 + x * y) / 5000


@pytest.mark.parametrize("voxel_size", [(2.0, 2.0, 2.0), (1.0, 1.3, 2.9)])
def test_harmonic_fields_vanish(voxel_size):
    shape = (26, 27, 17)
    field = 1.0 + background(shape, voxel_size)
    mask = ellipsoid(shape, voxel_size, np.array(shape) * voxel_size * 0.45)
    local, kept, _ = tfi(field.astype(np.float32), mask, voxel_size, OBLIQUE)
    assert np.abs(local[kept]).max() < 2e-4 * np.abs(field[mask]).max()


@pytest.mark.parametrize("b0_dir", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
@pytest.mark.parametrize("voxel_size", [(2.0, 2.0, 2.0), (1.6, 2.0, 2.7)])
def test_less_of_the_field_of_inner_sources_is_taken_for_background_than_by_boundary_values(voxel_size, b0_dir):
    """Sources everywhere, up to the surface: a boundary value method takes much of their field for background.

    They have no tissues between which a trend could be told: it is left in.
    """
    shape = tuple(round(72 / v) for v in voxel_size)
    mask = ellipsoid(shape, voxel_size, (30, 32, 28))
    middle = (np.array(shape) - 1) / 2
    outer, _ = dipole_field(shape, voxel_size, b0_dir, middle + np.array([10.0, 60.0, 8.0]) / voxel_size, 10, 9.4)
    noise = np.random.default_rng(0).standard_normal(shape)
    chi = 0.1 * mask * ndimage.gaussian_filter(noise, 3.0 / np.array(voxel_size))
    double = tuple(2 * n for n in shape)
    truth = convolve(embed(chi, double), full_dipole(double, voxel_size, b0_dir))[tuple(slice(n) for n in shape)]
    total = (truth + outer).astype(np.float32)
    local, kept, solved = tfi(total, mask, voxel_size, b0_dir, detrend=False)
    of_surface, *_ = lbv(total, mask, voxel_size, peel=0)
    assert solved.converged
    deep = ellipsoid(shape, voxel_size, (24, 26, 22))
    assert kept[deep].all()
    assert relative_error(local[deep], truth[deep]) < 0.9 * relative_error(of_surface[deep], truth[deep])


def test_operator_is_symmetric_and_positive():
    shape = (20, 23, 15)
    mask = np.pad(ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(shape), 2) > -0.02, 1)
    fit = SourceFit(mask, enclosed(mask), (1.0, 1.3, 2.0), tuple(OBLIQUE))
    one, other = np.random.default_rng(1).standard_normal((2, *mask.shape)).astype(np.float32) * mask
    of_one, of_other = (fit.transpose(fit.residue(fit.field(x))).astype(np.float64) for x in (one, other))
    scale = np.linalg.norm(of_one) * np.linalg.norm(other)
    assert np.vdot(of_one, other) == pytest.approx(np.vdot(one, of_other), abs=1e-3 * scale)
    assert np.vdot(of_one, one) > 0


@pytest.mark.parametrize("edge_steps", [0, 1])
def test_float32_equals_a_plain_solver_in_float64(edge_steps):
    """Dense normal equations of every operator in float64; the magnitude has one strong edge, between x = 5 and 6."""
    shape, voxel_size, weight = (13, 12, 11), (3.0, 3.0, 4.0), 0.01
    _, field, _ = head(shape, voxel_size, OBLIQUE)
    mask = ellipsoid(shape, voxel_size, np.array(shape) * voxel_size * 0.48)
    field = np.where(mask, field + background(shape, voxel_size), 0)
    framed = tuple(n + 2 for n in shape)
    grid = fourier.padded_shape(framed, voxel_size, fourier.MARGIN_MM)
    kernel, inside, kept = full_dipole(grid, voxel_size, OBLIQUE), np.argwhere(mask), enclosed(mask)
    corner = tuple(slice(n) for n in shape)
    fields = np.zeros((len(inside), len(inside)))
    for column, index in enumerate(inside):
        unit = np.zeros(shape)
        unit[tuple(index)] = 1.0
        fields[:, column] = convolve(embed(unit, grid), kernel)[corner][mask]
    extension = harmonic_removal(mask, voxel_size)
    left = extension @ fields
    sources = np.linalg.solve(left.T @ left + weight * np.eye(len(inside)), left.T @ (extension @ field[mask]))
    if edge_steps:
        slope = slopes_inside(mask, voxel_size)
        penalty = slope.T @ (1e-3 / np.sqrt((slope @ sources) ** 2 + 1e-6)[:, None] * slope)
        sources = np.linalg.solve(
            left.T @ left + penalty + 1e-5 * np.eye(len(inside)), left.T @ (extension @ field[mask])
        )
    truth = np.zeros(shape)
    truth[kept] = (fields @ sources)[kept[mask]] + extension @ (field[mask] - fields @ sources)
    magnitude = np.broadcast_to((np.arange(shape[0]) > 5)[:, None, None], (2, *shape)).astype(np.float32)
    parameters = {"weight": weight, "edge_weight": 1e-3, "edge_steps": edge_steps, "tolerance": 1e-4}
    local, _, solved = tfi(
        field.astype(np.float32), mask, voxel_size, OBLIQUE, magnitude, max_iterations=200, detrend=False, **parameters
    )
    assert local.dtype == np.float32
    assert solved.converged
    assert relative_error(local, truth) < 5e-3


def slopes_inside(mask, voxel_size):
    """The matrix of differences between neighbours of the mask, without those across the edge of the magnitude."""
    number = np.full([n + 1 for n in mask.shape], -1)
    number[:-1, :-1, :-1][mask] = np.arange(mask.sum())
    rows = []
    for index in np.argwhere(mask):
        for axis, size in enumerate(voxel_size):
            ahead = tuple(index + np.eye(3, dtype=int)[axis])
            if number[ahead] >= 0 and not (axis == 0 and index[0] == 5):
                row = np.zeros(mask.sum())
                row[number[ahead]], row[number[tuple(index)]] = 1 / size, -1 / size
                rows.append(row)
    return np.array(rows)


def harmonic_removal(mask, voxel_size):
    """The matrix of `plain_lbv`, from the mask to the voxels inside it."""
    number = np.full(mask.shape, -1)
    number[mask] = np.arange(mask.sum())
    rows = np.argwhere(enclosed(mask))
    laplacian = np.zeros((len(rows), mask.sum()))
    for row, index in enumerate(rows):
        for step, weight in stencil(voxel_size).items():
            laplacian[row, number[tuple(index + step)]] += weight
    return np.linalg.solve(laplacian[:, number[enclosed(mask)]], laplacian)


def test_two_components_and_a_mask_at_the_slab_edge():
    shape = (20, 36, 16)
    mask = ellipsoid(shape, (3, 3, 3), (24, 24, 60), (9, 8, 0)) | ellipsoid(shape, (3, 3, 3), (24, 24, 60), (9, 27, 15))
    local, kept, _ = tfi(background(shape, (3, 3, 3)).astype(np.float32), mask, (3, 3, 3), OBLIQUE)
    np.testing.assert_array_equal(kept, enclosed(mask))
    assert np.abs(local[mask]).max() < 1e-3 * np.abs(background(shape, (3, 3, 3))[mask]).max()


def test_values_outside_the_mask_are_never_read():
    _, field, mask = head((24, 22, 20), (3.0, 3.0, 3.0))
    local = tfi(field, mask, (3, 3, 3), AXIAL)[0]
    np.testing.assert_array_equal(local, tfi(np.where(mask, field, np.nan), mask, (3, 3, 3), AXIAL)[0])
    assert not local[~mask].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": np.zeros((12, 12, 12), bool)}, "empty"),
        ({"mask": np.ones((12, 12, 11), bool)}, "shape"),
        ({"mask": np.arange(12) == np.zeros((12, 12, 1))}, "too thin"),
        ({"total_field": np.full((12, 12, 12), np.nan)}, "NaN"),
        ({"voxel_size": (1, 0, 1)}, "voxel_size"),
        ({"b0_dir": (1, 1, 1)}, "b0_dir"),
        ({"weight": 0.0}, "weight"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"max_iterations": 0}, "max_iterations"),
        ({"edge_weight": 0.0}, "edge_weight"),
        ({"edge_fraction": 1.0}, "edge_fraction"),
        ({"edge_steps": -1}, "edge_steps"),
        ({"magnitude": np.ones((2, 12, 12, 11))}, "magnitude"),
    ],
)
def test_tfi_refuses(change, message):
    arguments = {
        "total_field": np.zeros((12, 12, 12)),
        "mask": np.ones((12, 12, 12), bool),
        "voxel_size": (1, 1, 1),
        "b0_dir": (0, 0, 1),
        "magnitude": None,
    }
    quantities = [change.get(name, value) for name, value in arguments.items()]
    parameters = {name: value for name, value in change.items() if name not in arguments}
    with pytest.raises(ValueError, match=message):
        tfi(*quantities, **parameters)
