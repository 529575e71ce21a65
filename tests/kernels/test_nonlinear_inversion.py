"""Inversions of the wrapped field: whole turns, weights, plain float64 versions, and what they refuse."""

from functools import partial

import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator, cg

from qsm_dask.kernels import fourier
from qsm_dask.kernels.fluid import ventricles
from qsm_dask.kernels.inversion.fansi import fansi
from qsm_dask.kernels.inversion.hdqsm import hdqsm
from qsm_dask.kernels.inversion.l1 import l1
from qsm_dask.kernels.inversion.medi import medi
from qsm_dask.kernels.inversion.ndi import ndi
from qsm_dask.kernels.inversion.whqsm import whqsm
from qsm_dask.kernels.inversion.wrapped import effective_te, mismatch, wrapped_field
from qsm_dask.units import radians_per_ppm
from tests.kernels.analytic import (
    AXIAL,
    OBLIQUE,
    convolve,
    ellipsoid,
    embed,
    full_dipole,
    head,
    positions,
    relative_error,
)
from tests.kernels.plain_split import (
    Problem,
    adjoint,
    gradient,
    plain_fansi,
    plain_fansi_tgv,
    plain_hdqsm,
    plain_l1,
    plain_whqsm,
)

B0, TE = 3.0, (0.01, 0.02, 0.03)
SCALE = radians_per_ppm(B0, 0.01)
CASES = [
    ((24, 26, 20), (2.5, 2.5, 2.5), AXIAL),
    ((23, 26, 15), (2.4, 2.0, 3.5), OBLIQUE),
]
fansi_tgv = partial(fansi, regularisation="tgv")
METHODS = [ndi, fansi, fansi_tgv, whqsm, l1, hdqsm, medi]
HARMONIC = (150.0, 3.0)
QUICK = {kernel: {"max_iterations": 12, "tolerance": 1e-9} for kernel in (ndi, fansi, fansi_tgv, whqsm, l1)} | {
    hdqsm: {"first_iterations": 20, "max_iterations": 12, "tolerance": 1e-9},
    medi: {"max_iterations": 2, "tolerance": 1e-9, "cg_tolerance": 1e-5, "cg_iterations": 400},
}


def images(mask, seed=3):
    """Three echoes with a bright side and some noise."""
    rng = np.random.default_rng(seed)
    bright = 1 + np.linspace(0, 1, mask.shape[0])[:, None, None] + 0.1 * rng.random(mask.shape)
    return (np.array([3, 2, 1])[:, None, None, None] * bright).astype(np.float32)


def squared_weights(magnitude, mask):
    weight = np.tensordot(np.square(TE), np.square(magnitude, dtype=np.float64), 1) * mask
    return np.minimum(weight / np.median(weight[mask]), 2)


def plain_ndi(field, mask, voxel_size, b0_dir, magnitude):
    shape = fourier.padded_shape(mask.shape, voxel_size, fourier.MARGIN_MM)
    kernel = full_dipole(shape, voxel_size, b0_dir)
    inside, phase = embed(mask, shape), embed(field, shape) * SCALE
    weight = embed(squared_weights(magnitude, mask), shape)
    x = np.zeros(shape)
    for _ in range(12):
        slope = convolve(weight * np.sin(convolve(x, kernel) - phase), kernel) + 1e-5 * x
        x = (x - 2 * slope) * inside
    return x[tuple(slice(n) for n in mask.shape)] / SCALE


def problem(field, mask, voxel_size, b0_dir, magnitude):
    return Problem(field, mask, voxel_size, b0_dir, SCALE, squared_weights(magnitude, mask))


def plain_medi(field, mask, voxel_size, b0_dir, magnitude):
    shape = fourier.padded_shape(mask.shape, voxel_size, fourier.MARGIN_MM)
    kernel = full_dipole(shape, voxel_size, b0_dir)
    phase, inside = embed(field, shape) * SCALE, embed(mask, shape).astype(bool)
    weight = embed(squared_weights(magnitude, mask), shape)
    image = embed(np.linalg.norm(magnitude, axis=0), shape)
    pairs = np.stack([inside & np.roll(inside, -1, a) for a in range(3)])
    slopes = np.abs(gradient(image, voxel_size))
    edges = pairs & (slopes > np.quantile(slopes[pairs], 0.7))
    edges |= np.stack([inside != np.roll(inside, -1, a) for a in range(3)])
    x = np.zeros(shape)
    for _ in range(2):
        keep = ~edges / np.sqrt(gradient(x, voxel_size) ** 2 + 1e-6)

        def flatten(v, keep=keep):
            return adjoint(keep * gradient(v, voxel_size), voxel_size)

        def normal(v, flatten=flatten):
            v = v.reshape(shape) - v.mean()
            image = 2000 * convolve(weight * convolve(v, kernel), kernel) + flatten(v)
            return (image - image.mean()).ravel()

        right = -2000 * convolve(weight * np.sin(convolve(x, kernel) - phase), kernel) - flatten(x)
        operator = LinearOperator((x.size, x.size), matvec=normal, dtype=np.float64)
        x = x + cg(operator, right.ravel() - right.mean(), rtol=1e-7, maxiter=5000)[0].reshape(shape)
    return x[tuple(slice(n) for n in mask.shape)] * mask / SCALE


PLAIN = {
    ndi: plain_ndi,
    medi: plain_medi,
    fansi: lambda *given: plain_fansi(problem(*given), 12),
    fansi_tgv: lambda *given: plain_fansi_tgv(problem(*given), 12, 3.0),
    whqsm: lambda *given: plain_whqsm(problem(*given), 12, HARMONIC),
    l1: lambda *given: plain_l1(problem(*given), 12),
    hdqsm: lambda *given: plain_hdqsm(problem(*given), 12, 6e-5),
}


def test_a_field_is_known_up_to_turns_of_the_echo_spacing():
    assert effective_te(TE) == pytest.approx(0.01)
    assert effective_te(0.02) == 0.02
    rng = np.random.default_rng(0)
    mask = np.ones((5, 6, 7), bool)
    field = rng.uniform(-3, 3, mask.shape).astype(np.float32)
    data = wrapped_field(field, mask, B0, TE, None, None)
    np.testing.assert_allclose(np.exp(1j * data.phase), np.exp(1j * field * SCALE), atol=1e-5)
    assert np.abs(data.phase).max() <= np.pi * 1.0001
    assert data.scale == pytest.approx(SCALE)
    assert (data.weight == 1).all()


def test_weights_are_inverse_variances_about_their_median():
    mask = np.ones((5, 6, 7), bool)
    mask[0] = False
    magnitude = images(mask)
    magnitude[:, 0] = np.nan
    by_magnitude = wrapped_field(np.zeros(mask.shape), mask, B0, TE, magnitude, None).weight
    np.testing.assert_allclose(by_magnitude, squared_weights(np.nan_to_num(magnitude), mask), rtol=1e-5)
    noise = np.linspace(1, 4, mask.size).reshape(mask.shape)
    by_noise = wrapped_field(np.zeros(mask.shape), mask, B0, TE, magnitude, noise).weight
    squared = mask / noise**2
    np.testing.assert_allclose(by_noise, np.minimum(squared / np.median(squared[mask]), 2), rtol=1e-5)


def test_mismatch_is_the_slope_of_its_cost():
    rng = np.random.default_rng(1)
    phase, weight, field = rng.standard_normal((3, 4, 5, 6))
    weight = np.abs(weight)
    padded = embed(field, (6, 5, 8)).astype(np.float32)
    padded[4:] = 7
    cost = np.zeros(6)
    mismatch(padded, phase.astype(np.float32), weight.astype(np.float32), np.float32(3), cost)
    np.testing.assert_allclose(padded, embed(3 * weight * np.sin(field - phase), (6, 5, 8)), atol=1e-5)
    assert cost[:4].sum() == pytest.approx((weight * (1 - np.cos(field - phase))).sum(), rel=1e-5)


@pytest.mark.parametrize("kernel", METHODS)
@pytest.mark.parametrize(("shape", "voxel_size", "b0_dir"), CASES, ids=["even", "odd"])
def test_float32_equals_plain_float64(kernel, shape, voxel_size, b0_dir):
    _, field, mask = head(shape, voxel_size, b0_dir, noise=0.0005)
    magnitude = images(mask)
    chi, _ = kernel(field.astype(np.float32), mask, voxel_size, b0_dir, B0, TE, magnitude, **QUICK[kernel])
    assert chi.dtype == np.float32
    assert relative_error(chi, PLAIN[kernel](field, mask, voxel_size, b0_dir, magnitude)) < 1e-3


@pytest.mark.parametrize(("regularisation", "transforms"), [("tv", 4), ("tgv", 10)])
def test_fansi_takes_no_more_transforms_than_its_unknowns_ask_for(monkeypatch, regularisation, transforms):
    _, field, mask = head((20, 22, 18), (4, 4, 4))
    taken = []
    for name in ("forward", "inverse"):
        plain = getattr(fourier, name)
        monkeypatch.setattr(fourier, name, lambda *given, plain=plain: taken.append(1) or plain(*given))
    counts = []
    for iterations in (2, 5):
        taken.clear()
        options = {"max_iterations": iterations, "tolerance": 1e-9, "regularisation": regularisation}
        fansi(field, mask, (4, 4, 4), AXIAL, B0, TE, **options)
        counts.append(len(taken))
    assert counts[1] - counts[0] == 3 * transforms


def test_tgv_keeps_a_slope_where_tv_makes_stairs():
    """A body whose susceptibility rises evenly: its middle part, away from the steps at its surface."""
    shape, size = (32, 32, 32), (2.0, 2.0, 2.0)
    x, _, _ = positions(shape, size)
    mask = ellipsoid(shape, size, (28, 28, 28))
    chi = 0.001 * x * ellipsoid(shape, size, (22, 18, 18))
    double = tuple(2 * n for n in shape)
    field = convolve(embed(chi, double), full_dipole(double, size, AXIAL))[: shape[0], : shape[1], : shape[2]]
    field = (field + 0.001 * np.random.default_rng(0).standard_normal(shape)) * mask
    middle = ellipsoid(shape, size, (14, 10, 10))
    errors = []
    for kernel in (fansi, partial(fansi_tgv, second_weight=0.5)):
        found = kernel(field, mask, size, AXIAL, B0, TE, weight_ppm_mm=2e-3, max_iterations=100)[0]
        errors.append(relative_error(np.diff(found, axis=0)[middle[1:]], np.diff(chi, axis=0)[middle[1:]]))
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize("kernel", METHODS)
@pytest.mark.parametrize("case", [{}, {"b0_dir": OBLIQUE, "voxel_size": (2.2, 1.9, 2.6)}], ids=["axial", "oblique"])
def test_sources_are_recovered(kernel, case):
    chi, field, mask = head(**case, noise=0.0005)
    estimate, solved = kernel(field, mask, case.get("voxel_size", (2, 2, 2)), case.get("b0_dir", AXIAL), B0, TE)
    assert solved.converged
    assert not estimate[~mask].any()
    truth = chi[mask] - chi[mask].mean()
    assert relative_error(estimate[mask] - estimate[mask].mean(), truth) < 0.30
    assert np.polyfit(truth, estimate[mask], 1)[0] == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("kernel", METHODS)
def test_whole_turns_of_the_field_change_nothing(kernel):
    _, field, mask = head((24, 22, 20), (3, 3, 3), noise=0.0005)
    turned = field + np.random.default_rng(2).integers(-1, 2, mask.shape) * 2 * np.pi / SCALE
    one, other = (kernel(f, mask, (3, 3, 3), AXIAL, B0, TE, **QUICK[kernel])[0] for f in (field, turned))
    assert relative_error(other, one) < 1e-3


# HD-QSM finds the spoilt voxels without being told (see `test_streak_inversion`).
@pytest.mark.parametrize("kernel", [kernel for kernel in METHODS if kernel is not hdqsm])
def test_weights_keep_spoilt_voxels_from_spoiling_their_surroundings(kernel):
    chi, field, mask = head((24, 22, 20), (3, 3, 3), noise=0.0005)
    spoilt = np.random.default_rng(4).random(mask.shape) < 0.03
    noisy = field + 0.1 * spoilt * np.random.default_rng(5).standard_normal(mask.shape)
    noise = np.where(spoilt, 0.1, 0.0005)
    good = mask & ~spoilt
    errors = []
    for weights in (None, noise):
        estimate, _ = kernel(noisy, mask, (3, 3, 3), AXIAL, B0, TE, None, weights, **QUICK[kernel])
        errors.append(relative_error(estimate[good] - estimate[good].mean(), chi[good] - chi[good].mean()))
    assert errors[1] < 0.85 * errors[0]


@pytest.mark.parametrize("kernel", METHODS)
def test_a_mask_at_the_slab_edge_does_not_feel_the_other_side(kernel):
    _, field, mask = head((28, 30, 24), (3, 3, 3))
    tight = tuple(slice(int(n.min()), int(n.max()) + 1) for n in np.nonzero(mask))
    whole = kernel(field, mask, (3, 3, 3), AXIAL, B0, TE)[0][tight][mask[tight]]
    cropped = kernel(field[tight], mask[tight], (3, 3, 3), AXIAL, B0, TE)[0][mask[tight]]
    assert relative_error(cropped - cropped.mean(), whole - whole.mean()) < 0.07


@pytest.mark.parametrize("kernel", METHODS)
def test_no_field_gives_no_susceptibility(kernel):
    chi, solved = kernel(np.zeros((9, 8, 7)), np.ones((9, 8, 7), bool), (1, 1, 1), OBLIQUE, B0, TE)
    assert not chi.any()
    assert solved.converged


@pytest.mark.parametrize("kernel", METHODS)
def test_solved_tells_of_iterations_that_ran_out(kernel):
    _, field, mask = head((20, 20, 20), (4, 4, 4))
    _, solved = kernel(field, mask, (4, 4, 4), AXIAL, B0, TE, max_iterations=2, tolerance=1e-8)
    assert solved.iterations == (152 if kernel is hdqsm else 2)
    assert not solved.converged


def test_hdqsm_has_not_converged_when_its_first_stage_has_not():
    _, field, mask = head((20, 20, 20), (4, 4, 4))
    _, solved = hdqsm(field, mask, (4, 4, 4), AXIAL, B0, TE, first_iterations=1)
    assert not solved.converged
    assert solved.residual > 1e-2


@pytest.mark.parametrize("kernel", METHODS)
def test_inputs_are_not_altered_and_values_outside_the_mask_are_not_read(kernel):
    _, field, mask = head((20, 18, 16), (4, 4, 4))
    magnitude = images(mask)
    marked, dark = np.where(mask, field, np.nan), np.where(mask, magnitude, np.nan)
    marked.flags.writeable = dark.flags.writeable = mask.flags.writeable = False
    first, _ = kernel(field, mask, (4, 4, 4), AXIAL, B0, TE, magnitude, **QUICK[kernel])
    second, _ = kernel(marked, mask, (4, 4, 4), AXIAL, B0, TE, dark, **QUICK[kernel])
    np.testing.assert_array_equal(first, second)


def test_a_strong_source_is_not_taken_for_spoilt_voxels():
    """Three times the sources of the other tests, as strong as a calcification."""
    chi, field, mask = head(noise=0.0005)
    chi, field = 3 * chi, 3 * field
    found = hdqsm(field, mask, (2, 2, 2), AXIAL, B0, TE)[0]
    strong = chi < 0.7 * chi.min()
    assert (found[strong].mean() - found[mask].mean()) / (chi[strong].mean() - chi[mask].mean()) > 0.85


def test_what_background_removal_left_goes_to_the_harmonic_rest():
    chi, field, mask = head((28, 30, 24), (3, 3, 3), noise=0.0005)
    x, y, z = positions(mask.shape, (3, 3, 3))
    left = (x * y + x**2 - z**2 + 20 * y) * mask
    left *= 2 * field[mask].std() / left[mask].std()
    truth = chi[mask] - chi[mask].mean()
    errors = []
    for kernel in (fansi, whqsm):
        estimate = kernel(field + left, mask, (3, 3, 3), AXIAL, B0, TE)[0][mask]
        errors.append(relative_error(estimate - estimate.mean(), truth))
    assert errors[1] < 0.5 * errors[0]


def test_fluid_is_found_in_the_middle_and_becomes_the_zero_of_medi():
    _, field, mask = head((28, 30, 24), (3, 3, 3), noise=0.0005)
    fluid = ellipsoid(mask.shape, (3, 3, 3), (8, 12, 8))
    rate = np.where(fluid, 2.0, 20.0) * mask
    furrows, lone = np.zeros_like(mask), np.zeros_like(mask)
    furrows[[5, 22], 14:16, 12] = True
    lone[13, 23, 12] = lone[13:15, 4, 11:13] = True
    rate[furrows | lone] = 1.0
    rate[~mask] = np.nan
    # The largest three pieces; neither a smaller one nor one more than 30 mm from the middle.
    assert mask[furrows | lone].all()
    np.testing.assert_array_equal(ventricles(rate, mask, (3.0, 3.0, 3.0), 5.0), fluid | furrows)
    rate[furrows] = 20.0
    rate[lone] = 20.0
    # Fluid of 0.02 ppm, and a shadow that does not belong there.
    x, _, z = positions(mask.shape, (3, 3, 3))
    spoilt = (field + 2e-6 * (x**2 - z**2)) * mask
    plain, even = (
        medi(spoilt, mask, (3, 3, 3), AXIAL, B0, TE, None, None, rate, csf_weight=weight)[0] for weight in (0.0, 100.0)
    )
    assert abs(even[fluid].mean()) < 1e-6
    assert even[fluid].std() < 0.5 * plain[fluid].std()
    with pytest.raises(ValueError, match="nowhere within 30 mm"):
        medi(field, mask, (3, 3, 3), AXIAL, B0, TE, None, None, 20.0 * mask, csf_weight=100.0)


@pytest.mark.parametrize("kernel", [ndi, fansi, medi])
def test_the_air_around_a_head_makes_no_work_and_no_difference(kernel):
    """As long as 40 mm of it are left: beyond, a larger matrix has the same grid and so the same bits."""
    _, field, mask = head((28, 30, 24), (3, 3, 3), noise=0.0005)
    near, far = (
        kernel(np.pad(field, air), np.pad(mask, air), (3, 3, 3), AXIAL, B0, TE, **QUICK[kernel] | {"max_iterations": 1})
        for air in (9, (20, 25))
    )
    np.testing.assert_array_equal(far[0][20:-25, 20:-25, 20:-25], near[0][9:-9, 9:-9, 9:-9])


def test_medi_has_not_converged_where_the_equations_of_its_last_step_ran_out_of_iterations():
    """A step cut short moves the map little, which alone would look like convergence."""
    _, field, mask = head((28, 30, 24), (3, 3, 3), noise=0.0005)
    given = (field, mask, (3, 3, 3), AXIAL, B0, TE)
    short, solved = medi(*given, cg_iterations=1, tolerance=0.9, max_iterations=4), medi(*given)[1]
    assert short[1].residual <= 0.9
    assert (short[1].iterations, short[1].converged) == (4, False)
    assert solved.converged


@pytest.mark.parametrize("kernel", METHODS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": np.zeros((6, 6, 6), bool)}, "empty"),
        ({"mask": np.ones((6, 5, 6), bool)}, "shape"),
        ({"local_field": np.full((6, 6, 6), np.inf)}, "NaN or infinite"),
        ({"voxel_size": (1, 1, np.nan)}, "voxel_size"),
        ({"b0_dir": (1, 1, 1)}, "b0_dir"),
        ({"b0": -3.0}, "b0"),
        ({"te": (10.0, 20.0, 30.0)}, "seconds"),
        ({"magnitude": np.ones((2, 6, 6, 6))}, "echo"),
        ({"magnitude": np.zeros((3, 6, 6, 6))}, "magnitude is zero"),
        ({"field_noise": np.zeros((6, 6, 6))}, "field_noise"),
    ],
)
def test_they_refuse(kernel, change, message):
    given = {
        "local_field": np.zeros((6, 6, 6)),
        "mask": np.ones((6, 6, 6), bool),
        "voxel_size": (1, 1, 1),
        "b0_dir": AXIAL,
        "b0": B0,
        "te": TE,
        "magnitude": None,
        "field_noise": None,
    }
    with pytest.raises(ValueError, match=message):
        kernel(*(given | change).values())


@pytest.mark.parametrize(
    ("kernel", "parameters"),
    [
        (ndi, {"step": 0.0}),
        (ndi, {"tolerance": -1.0}),
        (fansi, {"field_rho": 0.0}),
        (fansi, {"regularisation": "l2"}),
        (fansi_tgv, {"second_weight": 0.0}),
        (whqsm, {"harmonic_mm4": 0.0}),
        (hdqsm, {"field_rho": 1.0}),
        (l1, {"field_rho": 1.0}),
        (medi, {"edge_fraction": 1.0}),
        (medi, {"csf_weight": -1.0}),
        (medi, {"csf_weight": 100.0}),
    ],
)
def test_they_refuse_parameters(kernel, parameters):
    with pytest.raises(ValueError, match=next(iter(parameters))):
        kernel(np.zeros((6, 6, 6)), np.ones((6, 6, 6), bool), (1, 1, 1), AXIAL, B0, TE, **parameters)
