"""Dipole inversions: identities, linearity, plain float64 versions of each, and what they refuse."""

import numpy as np
import pytest
import scipy.fft
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import lsmr

from qsm_dask.kernels import fourier
from qsm_dask.kernels.dipole import dipole_spectrum
from qsm_dask.kernels.inversion import admm
from qsm_dask.kernels.inversion import rts as rts_module
from qsm_dask.kernels.inversion.direct import divide, tkd, tsvd
from qsm_dask.kernels.inversion.rts import rts
from qsm_dask.kernels.inversion.star import star
from qsm_dask.kernels.inversion.tv import tv
from tests.kernels.analytic import AXIAL, OBLIQUE, convolve, ellipsoid, embed, full_dipole, head, relative_error

STRONG = 0.03
SMALL = {"shape": (23, 26, 15), "voxel_size": (2.4, 2.0, 3.5), "b0_dir": OBLIQUE}


def crop(volume, mask):
    return volume[tuple(slice(n) for n in mask.shape)] * mask


def thresholded(kernel, threshold):
    return np.where(kernel == 0, 0, 1 / np.copysign(np.maximum(np.abs(kernel), threshold), np.where(kernel, kernel, 1)))


def plain_admm(fidelity, target, start, voxel_size, extend, *, weight, rho, iterations, adaptive):
    """Textbook ADMM for fidelity * |x - target|^2 / 2 in k-space plus isotropic total variation.

    `extend` gives a new target from x after the second and the fourth iteration.
    """

    def gradient(x):
        return np.stack([(np.roll(x, -1, a) - x) / v for a, v in enumerate(voxel_size)])

    def adjoint(g):
        return sum((np.roll(g[a], 1, a) - g[a]) / v for a, v in enumerate(voxel_size))

    delta = np.zeros_like(start)
    delta[0, 0, 0] = 1
    laplacian = np.fft.fftn(adjoint(gradient(delta))).real
    x, u, z, before = start, np.zeros((3, *start.shape)), None, np.inf
    for done in range(iterations):
        total = gradient(x) + u
        norm = np.sqrt((total**2).sum(axis=0))
        z = total * np.maximum(0, 1 - weight / rho / np.maximum(norm, 1e-30))
        u = total - z
        if done in {2, 4}:
            target = extend(x)
        right = fidelity * target + rho * np.fft.fftn(adjoint(z - u))
        symbol = fidelity + rho * laplacian
        symbol[0, 0, 0], right[0, 0, 0] = 1, 0
        residual = np.linalg.norm(gradient(x) - z)
        x = np.fft.ifftn(right / symbol).real
        if adaptive and residual > 0.7 * before:
            rho, u = rho * 5, u / 5
        before = residual
    return x


def plain_tkd(field, mask, voxel_size, b0_dir, threshold):
    """With the field extended once."""
    shape = fourier.padded_shape(mask.shape, voxel_size, fourier.MARGIN_MM)
    kernel = full_dipole(shape, voxel_size, b0_dir)
    inverse = thresholded(kernel, threshold)
    inverse = inverse / np.mean(kernel * inverse)
    first = convolve(embed(field * mask, shape), inverse)
    return crop(convolve(extended(field, mask, kernel, first), inverse), mask)


def plain_tv(field, mask, voxel_size, b0_dir, iterations, weight=8e-5):
    shape = fourier.padded_shape(mask.shape, voxel_size, fourier.MARGIN_MM)
    kernel = full_dipole(shape, voxel_size, b0_dir)

    def target(data):
        return np.where(kernel == 0, 0, np.fft.fftn(data) / np.where(kernel == 0, 1, kernel))

    def extend(x):
        return target(extended(field, mask, kernel, x))

    options = {
        "weight": weight,
        "rho": 100 * weight * np.prod(voxel_size) ** (1 / 3),
        "iterations": iterations,
        "adaptive": False,
    }
    data = embed(field * mask, shape)
    return crop(plain_admm(kernel**2, target(data), np.zeros(shape), voxel_size, extend, **options), mask)


def plain_star(field, mask, voxel_size, b0_dir, iterations, weight, strong_ppm):
    """Two runs of `plain_tv`, the second with what strong sources leave of the field."""
    kernel = full_dipole(fourier.padded_shape(mask.shape, voxel_size, fourier.MARGIN_MM), voxel_size, b0_dir)
    first = plain_tv(field, mask, voxel_size, b0_dir, iterations, weight)
    strong = np.where(np.abs(first - first[mask].mean()) >= strong_ppm, first, 0) * mask
    assert strong.any()
    rest = field - crop(convolve(embed(strong, kernel.shape), kernel), mask)
    return strong + plain_tv(rest, mask, voxel_size, b0_dir, iterations)


def plain_rts(field, mask, voxel_size, b0_dir, iterations):
    shape = fourier.padded_shape(mask.shape, voxel_size, fourier.MARGIN_MM)
    kernel = full_dipole(shape, voxel_size, b0_dir)
    known = np.abs(kernel) > 0.12

    def target(data):
        return krylov(np.fft.fftn(data), kernel, 12) * known

    def extend(x):
        return target(extended(field, mask, kernel, x))

    first = target(embed(field * mask, shape))
    start = np.fft.ifftn(first).real
    slopes = [(np.roll(start, -1, a) - start) / v for a, v in enumerate(voxel_size)]
    rho = 0.1 / np.sqrt(np.mean(np.sum(np.square(slopes), axis=0)))
    options = {"weight": 1.0, "rho": rho, "iterations": iterations, "adaptive": True}
    return crop(plain_admm(1e12 * known, first, start, voxel_size, extend, **options), mask)


def extended(field, mask, kernel, x):
    """The field inside the mask, and outside it that of the part of x inside."""
    inside = embed(mask, x.shape).astype(bool)
    return np.where(inside, embed(field, x.shape), convolve(x * inside, kernel))


def krylov(data, kernel, iterations):
    """SciPy's LSMR on the diagonal operator, real and imaginary parts side by side."""
    from scipy.sparse import diags_array

    diagonal = diags_array(np.concatenate([kernel.ravel(), kernel.ravel()]))
    right = np.concatenate([data.real.ravel(), data.imag.ravel()])
    x = lsmr(diagonal, right, atol=0, btol=0, conlim=0, maxiter=iterations)[0]
    real, imaginary = np.split(x, 2)
    return (real + 1j * imaginary).reshape(kernel.shape)


@pytest.mark.parametrize("shape", [(12, 14, 16), (11, 13, 15)], ids=["even", "odd"])
@pytest.mark.parametrize("b0_dir", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
def test_division_undoes_the_forward_model_where_it_is_well_conditioned(shape, b0_dir):
    dipole = dipole_spectrum(shape, (1, 1.5, 2), b0_dir)
    spectrum = fourier.forward(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    product = spectrum * dipole
    centre = divide(product, dipole, np.float32(0.15), shape[2] % 2 == 0)
    good = np.abs(dipole) >= 0.15
    np.testing.assert_allclose(product[good], spectrum[good], rtol=1e-4, atol=1e-4)
    full = full_dipole(shape, (1, 1.5, 2), b0_dir)
    assert centre == pytest.approx(np.mean(full * thresholded(full, 0.15)), abs=1e-5)


@given(st.tuples(*[st.integers(5, 10)] * 3), st.integers(0, 2**31), st.floats(-3, 3))
@settings(max_examples=15)
def test_tkd_is_linear_and_its_own_adjoint(shape, seed, factor):
    rng = np.random.default_rng(seed)
    first, second = rng.standard_normal((2, *shape)).astype(np.float32)
    mask = rng.random(shape) < 0.7
    mask[0] = True
    one, two, both = (
        tkd(f, mask, (1, 2, 1.5), OBLIQUE, extensions=0) for f in (first, second, first + np.float32(factor) * second)
    )
    np.testing.assert_allclose(both, one + np.float32(factor) * two, atol=1e-3)
    assert np.vdot(one, second) == pytest.approx(np.vdot(first, two), abs=1e-3 * first.size**0.5)


@pytest.mark.parametrize("shape", [(8, 10, 12), (7, 9, 5)], ids=["even", "odd"])
def test_symbol_is_that_of_the_stencil(shape):
    size = (1.0, 1.5, 3.0)
    x = np.random.default_rng(1).standard_normal(shape)
    stencil = sum((2 * x - np.roll(x, 1, a) - np.roll(x, -1, a)) / v**2 for a, v in enumerate(size))
    lx, ly, lz = admm.symbols(shape, size)
    symbol = lx[:, None, None] + ly[:, None] + lz
    np.testing.assert_allclose(scipy.fft.irfftn(scipy.fft.rfftn(x) * symbol, s=shape), stencil, atol=1e-5)


@pytest.mark.parametrize("shape", [(8, 10, 12), (7, 9, 5)], ids=["even", "odd"])
def test_one_pass_is_shrinkage_and_the_adjoint_of_the_gradient(shape):
    size, limit, rescale = (1.0, 1.5, 3.0), 0.4, 0.5
    rng = np.random.default_rng(2)
    x, previous = rng.standard_normal((2, *shape)).astype(np.float32)
    dual = rng.standard_normal((3, *shape)).astype(np.float32)
    gradient = np.stack([(np.roll(x, -1, a) - x) / v for a, v in enumerate(size)])
    total = gradient + rescale * dual
    norm = np.sqrt((total**2).sum(axis=0))
    z = total * np.maximum(0, 1 - limit / norm)
    u = total - z
    divergence = sum((np.roll((z - u)[a], 1, a) - (z - u)[a]) / v for a, v in enumerate(size))
    change = ((x - previous) ** 2).sum()
    sums = np.empty((shape[0], 3))
    per_mm = (1 / np.array(size)).astype(np.float32)
    admm.shrink(x, previous, dual, per_mm, np.float32(limit), np.float32(rescale), sums)
    np.testing.assert_allclose(dual, u, atol=1e-5)
    np.testing.assert_allclose(previous, divergence, atol=1e-5)
    expected = [change, (x**2).sum(), ((gradient - z) ** 2).sum()]
    np.testing.assert_allclose(sums.sum(axis=0), expected, rtol=1e-5)


def test_krylov_step_without_vectors_is_lsmr():
    shape = (12, 15, 10)
    _, field, _ = head(shape, (4, 4, 5), OBLIQUE, noise=0.001)
    kernel = full_dipole(shape, (4, 4, 5), OBLIQUE)
    dipole = dipole_spectrum(shape, (4, 4, 5), OBLIQUE)
    for iterations in (1, 3, 8):
        data = fourier.forward(field.astype(np.float32))
        power = np.zeros(rts_module._BINS)
        rts_module._histogram(data, dipole, True, power)
        np.testing.assert_allclose(power.sum(), (np.abs(np.fft.fftn(field)) ** 2).sum(), rtol=1e-5)
        rts_module._keep_conditioned(data, dipole, rts_module._lsmr(power, iterations), np.float32(0.15))
        truth = (krylov(np.fft.fftn(field), kernel, iterations) * (np.abs(kernel) > 0.15))[..., : dipole.shape[2]]
        assert relative_error(np.abs(data - truth).ravel() + np.abs(truth).ravel(), np.abs(truth).ravel()) < 1e-3


@pytest.mark.parametrize("case", [{"shape": (24, 26, 20), "voxel_size": (2.5, 2.5, 2.5)}, SMALL], ids=["even", "odd"])
@pytest.mark.parametrize(
    ("kernel", "plain", "parameters"),
    [
        (tkd, lambda *a: plain_tkd(*a, 0.1), {}),
        (tv, lambda *a: plain_tv(*a, 9), {"max_iterations": 9, "tolerance": 1e-9}),
        (rts, lambda *a: plain_rts(*a, 7), {"max_iterations": 7, "tolerance": 1e-9}),
        (
            star,
            lambda *a: plain_star(*a, 9, 4e-4, STRONG),
            {"max_iterations": 9, "tolerance": 1e-9, "strong_ppm": STRONG},
        ),
    ],
    ids=["tkd", "tv", "rts", "star"],
)
def test_float32_equals_plain_float64(kernel, plain, parameters, case):
    b0_dir = case.get("b0_dir", AXIAL)
    _, field, mask = head(**case, noise=0.0005)
    result = kernel(field.astype(np.float32), mask, case["voxel_size"], b0_dir, **parameters)
    chi = result[0] if isinstance(result, tuple) else result
    assert chi.dtype == np.float32
    assert relative_error(chi, plain(field, mask, case["voxel_size"], b0_dir)) < 1e-3


@pytest.mark.parametrize("case", [{}, {"b0_dir": OBLIQUE, "voxel_size": (2.2, 1.9, 2.6)}], ids=["axial", "oblique"])
@pytest.mark.parametrize(("kernel", "bound"), [(tkd, 0.40), (rts, 0.25), (tv, 0.20), (star, 0.20)])
def test_sources_are_recovered(kernel, bound, case):
    chi, field, mask = head(**case, noise=0.0005)
    result = kernel(field, mask, case.get("voxel_size", (2, 2, 2)), case.get("b0_dir", AXIAL))
    estimate, solved = result if isinstance(result, tuple) else (result, None)
    assert solved is None or solved.converged
    assert not estimate[~mask].any()
    truth = chi[mask] - chi[mask].mean()
    assert relative_error(estimate[mask] - estimate[mask].mean(), truth) < bound
    assert np.polyfit(truth, estimate[mask], 1)[0] == pytest.approx(1.0, abs=0.12)


@pytest.mark.parametrize(("kernel", "most"), [(tkd, 1), (tsvd, 1), (rts, 2), (tv, 2)])
def test_extending_the_field_beyond_the_mask_recovers_sources_at_the_surface(kernel, most):
    shape, size = (40, 44, 36), (2, 2, 2)
    mask = ellipsoid(shape, size, (29, 32, 26))
    chi = 0.1 * ellipsoid(shape, size, (6, 6, 6), (9, 21, 17)) - 0.1 * ellipsoid(shape, size, (5, 7, 5), (19, 34, 18))
    double = tuple(2 * n for n in shape)
    field = crop(convolve(embed(chi * mask, double), full_dipole(double, size, OBLIQUE)), mask)
    truth = (chi * mask)[mask]
    errors = []
    for extensions in (0, most):
        result = kernel(field, mask, size, OBLIQUE, extensions=extensions)
        estimate = result[0] if isinstance(result, tuple) else result
        errors.append(relative_error(estimate[mask] - estimate[mask].mean(), truth - truth.mean()))
    # Division is not regularised: what the kernel loses is lost with either field, and most of its error.
    assert errors[1] < (0.95 if kernel in {tkd, tsvd} else 0.75) * errors[0]


@pytest.mark.parametrize("kernel", [rts, tv, star])
def test_a_mask_at_the_slab_edge_does_not_feel_the_other_side(kernel):
    _, field, mask = head()
    low = [int(n.min()) for n in np.nonzero(mask)]
    high = [int(n.max()) + 1 for n in np.nonzero(mask)]
    tight = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    whole, cropped = (kernel(f, m, (2, 2, 2), AXIAL) for f, m in ((field, mask), (field[tight], mask[tight])))
    inside = mask[tight]
    a, b = whole[0][tight][inside], cropped[0][inside]
    assert relative_error(b - b.mean(), a - a.mean()) < 0.07


@pytest.mark.parametrize("kernel", [tkd, rts, tv, star])
def test_no_field_gives_no_susceptibility(kernel):
    result = kernel(np.zeros((9, 8, 7)), np.ones((9, 8, 7), bool), (1, 1, 1), OBLIQUE)
    chi = result[0] if isinstance(result, tuple) else result
    assert not chi.any()
    assert not isinstance(result, tuple) or result[1].converged


@pytest.mark.parametrize("scale", [1e-3, 50.0])
def test_rts_scales_with_the_field(scale):
    _, field, mask = head((24, 22, 20), (3, 3, 3), noise=0.0005)
    one, solved = rts(field, mask, (3, 3, 3), AXIAL)
    other, also = rts(field * scale, mask, (3, 3, 3), AXIAL)
    assert solved.iterations == also.iterations
    assert relative_error(other / scale, one) < 1e-4


def test_without_strong_sources_star_is_tv_and_with_one_it_gives_its_whole_strength():
    shape, size = (40, 44, 36), (2, 2, 2)
    mask = ellipsoid(shape, size, (29, 32, 26))
    weak, blood = ellipsoid(shape, size, (6, 6, 6), (14, 22, 18)), ellipsoid(shape, size, (5, 5, 5), (27, 22, 18))
    double = tuple(2 * n for n in shape)
    kernel = full_dipole(double, size, OBLIQUE)
    quiet, loud = (crop(convolve(embed(chi, double), kernel), mask) for chi in (0.03 * weak, 0.03 * weak + 1.0 * blood))
    np.testing.assert_allclose(star(quiet, mask, size, OBLIQUE)[0], tv(quiet, mask, size, OBLIQUE)[0], atol=1e-5)
    rest = mask & ~ellipsoid(shape, size, (9, 9, 9), (27, 22, 18))
    noise = 0.003 * np.random.default_rng(0).standard_normal(shape)
    errors = []
    for kernel_of in (tv, star):
        chi, _ = kernel_of(loud + noise, mask, size, OBLIQUE)
        assert chi[blood].mean() - chi[rest].mean() == pytest.approx(1.0, abs=0.1)
        truth = 0.03 * weak[rest]
        errors.append(np.linalg.norm(chi[rest] - chi[rest].mean() - truth + truth.mean()))
    assert errors[1] < errors[0]


def test_rts_does_not_stop_before_the_splitting_has_begun():
    _, field, mask = head((24, 22, 20), (3, 3, 3), noise=0.0005)
    usual, _ = rts(field, mask, (3, 3, 3), AXIAL, extensions=0)
    late, solved = rts(field, mask, (3, 3, 3), AXIAL, extensions=0, rho=1e-4, max_iterations=40)
    assert solved.converged
    assert relative_error(late, usual) < 0.1


@pytest.mark.parametrize("kernel", [rts, tv, star])
def test_solved_tells_of_iterations_that_ran_out(kernel):
    _, field, mask = head((20, 20, 20), (4, 4, 4))
    _, solved = kernel(field, mask, (4, 4, 4), AXIAL, max_iterations=2, tolerance=1e-8)
    assert solved.iterations == (4 if kernel is star else 2)
    assert not solved.converged
    assert solved.residual > 1e-8


@pytest.mark.parametrize("kernel", [tkd, rts, tv, star])
def test_inputs_are_not_altered_and_values_outside_the_mask_are_not_read(kernel):
    _, field, mask = head((20, 18, 16), (4, 4, 4))
    marked = np.where(mask, field, np.nan).astype(np.float32)
    marked.flags.writeable = mask.flags.writeable = False
    first = kernel(field, mask, (4, 4, 4), AXIAL)
    second = kernel(marked, mask, (4, 4, 4), AXIAL)
    for a, b in (
        zip(np.atleast_1d(first), np.atleast_1d(second), strict=True) if kernel is tkd else [(first[0], second[0])]
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kernel", [tkd, rts, tv, star])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": np.zeros((6, 6, 6), bool)}, "empty"),
        ({"mask": np.ones((6, 5, 6), bool)}, "shape"),
        ({"local_field": np.full((6, 6, 6), np.inf)}, "NaN or infinite"),
        ({"local_field": np.zeros((6, 6, 6), complex)}, "complex"),
        ({"voxel_size": (1, 1, np.nan)}, "voxel_size"),
        ({"b0_dir": (1, 1, 1)}, "b0_dir"),
    ],
)
def test_inversions_refuse(kernel, change, message):
    arguments = {
        "local_field": np.zeros((6, 6, 6)),
        "mask": np.ones((6, 6, 6), bool),
        "voxel_size": (1, 1, 1),
        "b0_dir": AXIAL,
    }
    with pytest.raises(ValueError, match=message):
        kernel(*(arguments | change).values())


@pytest.mark.parametrize(
    ("kernel", "parameters"),
    [
        (tkd, {"threshold": 0.5}),
        (tkd, {"extensions": -1}),
        (rts, {"threshold": 0.0}),
        (rts, {"rho": -1.0}),
        (tv, {"weight_ppm_mm": 0.0}),
        (star, {"strong_ppm": 0.0}),
    ],
)
def test_inversions_refuse_parameters(kernel, parameters):
    with pytest.raises(ValueError, match=next(iter(parameters))):
        kernel(np.zeros((6, 6, 6)), np.ones((6, 6, 6), bool), (1, 1, 1), AXIAL, **parameters)
