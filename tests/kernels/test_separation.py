"""Source separation: known sources, a plain float64 version, symmetries, and what is refused."""

import numpy as np
import pytest

from qsm_dask.kernels import fourier, separation
from tests.kernels.analytic import (
    AXIAL,
    OBLIQUE,
    convolve,
    ellipsoid,
    embed,
    full_dipole,
    relative_error,
)

ODD = {"shape": (29, 34, 23), "voxel_size": (2.4, 2.0, 3.1), "b0_dir": OBLIQUE}
EVEN = {"shape": (32, 32, 28), "voxel_size": (2.0, 2.0, 2.0), "b0_dir": AXIAL}


def sources(shape, voxel_size, b0_dir, *, full=False):
    """Overlapping para- and diamagnetic ellipsoids in a little of both; their field and their mask."""
    size = np.array(shape) * np.array(voxel_size)
    mask = np.ones(shape, bool) if full else ellipsoid(shape, voxel_size, 0.42 * size)
    middle = (np.array(shape) - 1) / 2
    para = 0.02 + 0.1 * ellipsoid(shape, voxel_size, 0.14 * size, middle + 0.08 * np.array(shape))
    dia = 0.03 + 0.06 * ellipsoid(shape, voxel_size, 0.16 * size, middle - 0.02 * np.array(shape))
    para, dia = para * mask, dia * mask
    double = tuple(2 * n for n in shape)
    field = convolve(embed(para - dia, double), full_dipole(double, voxel_size, b0_dir))
    return para, dia, field[tuple(slice(n) for n in shape)], mask


def separate(field, rate, mask, case, b0=3.0, method=separation.r2prime, **parameters):
    arrays = field.astype(np.float32), rate.astype(np.float32)
    return method(*arrays, mask, case["voxel_size"], case["b0_dir"], b0, **parameters)


@pytest.mark.parametrize("case", [ODD, EVEN], ids=["odd", "even"])
@pytest.mark.parametrize("full", [False, True], ids=["inside", "to-the-edge"])
def test_sources_that_overlap_are_told_apart(case, full):
    para, dia, field, mask = sources(**case, full=full)
    found_para, found_dia, solved = separate(field, 137 * (para + dia), mask, case)
    assert solved.converged
    assert_told_apart(found_para, found_dia, para, dia)
    assert relative_error(found_para, para) < 0.2
    assert relative_error(found_dia, -dia) < 0.2
    assert found_para.min() >= 0 >= found_dia.max()
    assert not found_para[~mask].any()
    assert not found_dia[~mask].any()
    assert found_para.dtype == found_dia.dtype == np.float32
    # No inversion of the field finds a mean: it comes from the rate.
    assert (found_para - found_dia)[mask].mean() == pytest.approx((para + dia)[mask].mean(), rel=0.05)


def assert_told_apart(found_para, found_dia, para, dia):
    """What is found in each ellipsoid, where the other lies and where it does not."""
    for strong in (para > 0.1, (para > 0.1) & (dia < 0.05)):
        assert found_para[strong].mean() == pytest.approx(0.12, rel=0.1)
    for strong in (dia > 0.05, (dia > 0.05) & (para < 0.1)):
        assert found_dia[strong].mean() == pytest.approx(-0.09, rel=0.15)


def test_constants_grow_with_the_field_strength():
    """Unequal ones too: 137 and 60 at 3 T are 320 and 140 at 7 T."""
    para, dia, field, mask = sources(**EVEN)
    rate = 7 / 3 * (137 * para + 60 * dia)
    found_para, found_dia, _ = separate(field, rate, mask, EVEN, b0=7.0, dia_per_s_ppm=60.0)
    assert_told_apart(found_para, found_dia, para, dia)


def test_r2star_is_exact_where_r2_is_half_of_it():
    para, dia, field, mask = sources(**ODD)
    rate = 2 * 137 * (para + dia)
    found = separate(field, rate, mask, ODD, method=separation.r2star)
    expected = separate(field, rate / 2, mask, ODD)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-6)
    np.testing.assert_allclose(found[1], expected[1], atol=1e-6)


def test_r2_that_is_not_half_adds_to_both_what_the_documentation_says():
    """R2 too high by 1.37 /s in R2' is 5 ppb of each."""
    para, dia, field, mask = sources(**EVEN)
    one = separate(field, 137 * (para + dia), mask, EVEN)
    other = separate(field, 137 * (para + dia) + 1.37, mask, EVEN)
    assert (other[0] - one[0])[mask].mean() == pytest.approx(0.005, rel=0.03)
    assert (other[1] - one[1])[mask].mean() == pytest.approx(-0.005, rel=0.03)


def test_a_field_turned_round_swaps_the_sources():
    para, dia, field, mask = sources(**ODD)
    rate = 137 * (para + dia)
    one, other = separate(field, rate, mask, ODD), separate(-field, rate, mask, ODD)
    np.testing.assert_allclose(one[0], -other[1], atol=1e-6)
    np.testing.assert_allclose(one[1], -other[0], atol=1e-6)


def plain(field, rate, mask, voxel_size, b0_dir, *, iterations, weight=1e-4, relaxation_weight=0.01, bound=0.01):
    """The same minimisation in float64 on full spectra, every split variable kept."""
    shape = fourier.padded_shape(mask.shape, voxel_size, fourier.MARGIN_MM)
    kernel = full_dipole(shape, voxel_size, b0_dir)
    rho = 100 * weight * np.prod(voxel_size) ** (1 / 3)
    room = tuple(slice(n) for n in mask.shape)

    def gradient(x):
        return np.stack([(np.roll(x, -1, a) - x) / v for a, v in enumerate(voxel_size)])

    def adjoint(g):
        return sum((np.roll(g[a], 1, a) - g[a]) / v for a, v in enumerate(voxel_size))

    delta = np.zeros(shape)
    delta[0, 0, 0] = 1
    smooth = rho * np.fft.fftn(adjoint(gradient(delta))).real + bound
    known, decay = embed(field * mask, shape), np.fft.fftn(embed(rate * mask, shape)) / 137
    x, u, v = np.zeros((2, *shape)), np.zeros((2, 3, *shape)), np.zeros((2, *shape))
    for done in range(iterations):
        right = np.empty((2, *shape), complex)
        for n in range(2):
            total = gradient(x[n]) + u[n]
            z = total * np.maximum(0, 1 - weight / rho / np.maximum(np.sqrt((total**2).sum(axis=0)), 1e-30))
            u[n] = total - z
            split = np.maximum(x[n] + v[n], 0)
            v[n] = x[n] + v[n] - split
            right[n] = np.fft.fftn(rho * adjoint(z - u[n]) + bound * (split - v[n]))
        if done in {2, 4}:
            inside = np.zeros(shape)
            inside[room] = (x[0] - x[1])[room] * mask
            known = convolve(inside, kernel)
            known[room][mask] = field[mask]
        shift = kernel * np.fft.fftn(known)
        matrix = np.empty((*shape, 2, 2))
        matrix[..., 0, 0] = matrix[..., 1, 1] = kernel**2 + relaxation_weight + smooth
        matrix[..., 0, 1] = matrix[..., 1, 0] = relaxation_weight - kernel**2
        right += np.stack([relaxation_weight * decay + shift, relaxation_weight * decay - shift])
        solved = np.linalg.solve(matrix, np.moveaxis(right, 0, -1)[..., None])[..., 0]
        x = np.stack([np.fft.ifftn(solved[..., n]).real for n in range(2)])
    return np.maximum(x[0], 0)[room] * mask, -np.maximum(x[1], 0)[room] * mask


@pytest.mark.parametrize("case", [ODD, EVEN], ids=["odd", "even"])
def test_float32_on_half_spectra_is_the_plain_minimisation(case):
    para, dia, field, mask = sources(**case)
    rng = np.random.default_rng(0)
    field = field + 0.0005 * rng.standard_normal(field.shape)
    rate = np.maximum(137 * (para + dia) + rng.standard_normal(field.shape), 0)
    found = separate(field, rate, mask, case, tolerance=1e-9, max_iterations=8)
    truth = plain(field, rate, mask, case["voxel_size"], case["b0_dir"], iterations=8)
    assert found[2].iterations == 8
    assert relative_error(found[0], truth[0]) < 1e-3
    assert relative_error(found[1], truth[1]) < 1e-3


def test_faults_are_refused():
    _, _, field, mask = sources(**EVEN)
    rate = np.ones(field.shape)
    bad = rate.copy()
    bad[mask] = np.nan
    cases = [
        ((field, bad, mask), {}, "r2prime is NaN"),
        ((field, -rate, mask), {}, "r2prime is negative in some voxels"),
        ((field, rate[1:], mask), {}, "r2prime has shape"),
        ((field * np.nan, rate, mask), {}, "local_field is NaN"),
        ((field, rate, ~np.ones_like(mask)), {}, "mask is empty"),
        ((field, rate, mask), {"para_per_s_ppm": 0.0}, "para_per_s_ppm is 0"),
        ((field, rate, mask), {"relaxation_weight": -1.0}, "relaxation_weight is -1"),
    ]
    for arguments, parameters, message in cases:
        with pytest.raises(ValueError, match=message):
            separate(*arguments, EVEN, **parameters)
    with pytest.raises(ValueError, match="b0 is 0"):
        separate(field, rate, mask, EVEN, b0=0.0)


def test_what_lies_outside_the_mask_is_never_read():
    para, dia, field, mask = sources(**ODD)
    rate = 137 * (para + dia)
    clean = separate(field * mask, rate, mask, ODD)
    field[~mask], rate[~mask] = np.nan, np.nan
    again = separate(field, rate, mask, ODD)
    np.testing.assert_array_equal(clean[0], again[0])
    np.testing.assert_array_equal(clean[1], again[1])
