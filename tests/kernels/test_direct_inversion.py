"""Truncated and regularised division: identities, adjointness, plain float64 versions, and what they refuse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qsm_dask.kernels import fourier
from qsm_dask.kernels.dipole import dipole_spectrum
from qsm_dask.kernels.inversion import admm, direct
from qsm_dask.kernels.inversion.direct import tikhonov, tkd, tsvd
from tests.kernels.analytic import AXIAL, OBLIQUE, convolve, embed, full_dipole, head, relative_error

REGULARISERS = ("identity", "gradient", "laplacian")
CASES = [
    ((24, 26, 20), (2.5, 2.5, 2.5), AXIAL),
    ((23, 26, 15), (2.4, 2.0, 3.5), OBLIQUE),
]
METHODS = [(tsvd, {"extensions": 0}), *((tikhonov, {"regulariser": name}) for name in REGULARISERS)]
NAMES = ["tsvd", *REGULARISERS]


def inverse(kernel, voxel_size, threshold=0.06, regulariser=None, weight=0.01, extensions=0):
    """What multiplies the spectrum of the field, not extended."""
    assert not extensions
    if regulariser is None:
        kept = np.abs(kernel) >= threshold
        return kept / np.where(kept, kernel, 1) / kept.mean()
    axes = np.meshgrid(*(np.arange(n) / n for n in kernel.shape), indexing="ij", sparse=True)
    laplacian = sum((2 * np.sin(np.pi * a) / v) ** 2 for a, v in zip(axes, voxel_size, strict=True))
    square = kernel**2 + weight * laplacian ** REGULARISERS.index(regulariser)
    square[0, 0, 0] = 1
    return kernel / square


@pytest.mark.parametrize(("kernel", "parameters"), METHODS, ids=NAMES)
@pytest.mark.parametrize(("shape", "voxel_size", "b0_dir"), CASES, ids=["even", "odd"])
def test_float32_equals_plain_float64(kernel, parameters, shape, voxel_size, b0_dir):
    _, field, mask = head(shape, voxel_size, b0_dir, noise=0.0005)
    grid = fourier.padded_shape(shape, voxel_size, fourier.MARGIN_MM)
    multiplier = inverse(full_dipole(grid, voxel_size, b0_dir), voxel_size, **parameters)
    plain = convolve(embed(field, grid), multiplier)[tuple(slice(n) for n in shape)] * mask
    chi = kernel(field.astype(np.float32), mask, voxel_size, b0_dir, **parameters)
    assert chi.dtype == np.float32
    assert relative_error(chi, plain) < 1e-3


@pytest.mark.parametrize("order", range(3))
@pytest.mark.parametrize("shape", [(12, 14, 16), (11, 13, 15)], ids=["even", "odd"])
def test_a_vanishing_penalty_undoes_the_forward_model_where_it_is_well_conditioned(shape, order):
    size = (1, 1.5, 2)
    dipole = dipole_spectrum(shape, size, OBLIQUE)
    spectrum = fourier.forward(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    product = spectrum * dipole
    direct._regularise(product, dipole, *admm.symbols(shape, size), np.float32(1e-8), order)
    good = np.abs(dipole) >= 0.15
    np.testing.assert_allclose(product[good], spectrum[good], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(12, 14, 16), (11, 13, 15)], ids=["even", "odd"])
def test_truncation_undoes_the_forward_model_where_it_keeps(shape):
    dipole = dipole_spectrum(shape, (1, 1.5, 2), OBLIQUE)
    spectrum = fourier.forward(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    product = spectrum * dipole
    share = direct._truncate(product, dipole, np.float32(0.1), shape[2] % 2 == 0)
    kept = np.abs(dipole) >= 0.1
    np.testing.assert_allclose(product[kept], spectrum[kept], rtol=1e-4, atol=1e-4)
    assert not product[~kept].any()
    assert share == pytest.approx(np.mean(np.abs(full_dipole(shape, (1, 1.5, 2), OBLIQUE)) >= 0.1), abs=1e-3)


@given(st.tuples(*[st.integers(5, 10)] * 3), st.integers(0, 2**31), st.sampled_from(range(4)))
@settings(max_examples=20)
def test_they_are_their_own_adjoint(shape, seed, method):
    kernel, parameters = METHODS[method]
    rng = np.random.default_rng(seed)
    first, second = rng.standard_normal((2, *shape)).astype(np.float32)
    mask = rng.random(shape) < 0.7
    mask[0] = True
    one, two = (kernel(f, mask, (1, 2, 1.5), OBLIQUE, **parameters) for f in (first, second))
    assert np.vdot(one, second) == pytest.approx(np.vdot(first, two), abs=2e-3 * first.size**0.5)


@pytest.mark.parametrize(("kernel", "parameters"), METHODS, ids=NAMES)
@pytest.mark.parametrize("b0_dir", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
def test_sources_are_recovered(kernel, parameters, b0_dir):
    chi, field, mask = head(b0_dir=b0_dir, noise=0.0005)
    estimate = kernel(field, mask, (2, 2, 2), b0_dir, **parameters)
    assert not estimate[~mask].any()
    assert relative_error(estimate[mask] - estimate[mask].mean(), chi[mask] - chi[mask].mean()) < 0.65


@pytest.mark.parametrize(("kernel", "parameters"), [*METHODS, (tkd, {})], ids=[*NAMES, "tkd-extended"])
def test_a_mask_at_the_slab_edge_does_not_feel_the_other_side(kernel, parameters, monkeypatch):
    """All that an edge can do is to bring the images of the periodic grid nearer.

    On a wide grid they are gone, and with them the difference: what is left is how finely the cone is sampled, most
    where the penalty leaves the lowest frequencies alone. The margin in use lets in less than no margin would.
    """
    _, field, mask = head()
    tight = tuple(slice(int(n.min()), int(n.max()) + 1) for n in np.nonzero(mask))

    in_use = fourier.MARGIN_MM

    def chi(field, mask, margin_mm):
        monkeypatch.setattr(fourier, "MARGIN_MM", margin_mm)
        return kernel(field, mask, (2, 2, 2), AXIAL, **parameters)

    wide = chi(field, mask, 160.0)[tight][mask[tight]]

    def error(margin_mm):
        cropped = chi(field[tight], mask[tight], margin_mm)[mask[tight]]
        return relative_error(cropped - cropped.mean(), wide - wide.mean())

    assert error(160.0) < (0.05 if parameters.get("regulariser") == "laplacian" else 0.015)
    assert error(in_use) < 0.8 * error(0.0)


@pytest.mark.parametrize(("kernel", "parameters"), METHODS, ids=NAMES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": np.zeros((6, 6, 6), bool)}, "empty"),
        ({"mask": np.ones((6, 5, 6), bool)}, "shape"),
        ({"local_field": np.full((6, 6, 6), np.nan)}, "NaN or infinite"),
        ({"voxel_size": (1, 1, 0)}, "voxel_size"),
        ({"b0_dir": (1, 1, 1)}, "b0_dir"),
    ],
)
def test_they_refuse(kernel, parameters, change, message):
    given = {"field": np.zeros((6, 6, 6)), "mask": np.ones((6, 6, 6), bool), "voxel_size": (1, 1, 1), "b0_dir": AXIAL}
    given = {"local_field": given.pop("field"), **given} | change
    with pytest.raises(ValueError, match=message):
        kernel(*given.values(), **parameters)


@pytest.mark.parametrize(
    ("kernel", "parameters"),
    [(tsvd, {"threshold": 0.4}), (tikhonov, {"weight": 0.0}), (tikhonov, {"regulariser": "none"})],
)
def test_they_refuse_parameters(kernel, parameters):
    with pytest.raises(ValueError, match=next(iter(parameters))):
        kernel(np.zeros((6, 6, 6)), np.ones((6, 6, 6), bool), (1, 1, 1), AXIAL, **parameters)
