"""Trends that the field cannot show: which they are, and that they are found among the steps between tissues."""

import numpy as np
import pytest
from scipy import ndimage

from qsm_dask.kernels.background.tfi import tfi
from qsm_dask.kernels.background.trends import hidden_forms, without_trend
from tests.kernels.analytic import AXIAL, OBLIQUE, convolve, ellipsoid, embed, full_dipole, positions, relative_error

SIZE = (2.0, 2.4, 1.7)
SHAPE = (37, 33, 42)


def trend(linear, form):
    place = np.stack(np.broadcast_arrays(*positions(SHAPE, SIZE)), axis=-1)
    return place @ linear + np.einsum("...i,ij,...j", place, form, place)


def tissue(seed=0):
    """Three tissues 20 to 60 ppb apart with a texture of 2 ppb, up to the surface."""
    noise = np.random.default_rng(seed).standard_normal((2, *SHAPE))
    folds = ndimage.gaussian_filter(noise[0], 3.0)
    kinds = np.digitize(folds, np.quantile(folds, [0.6, 0.85]))
    return np.array([-0.01, 0.01, 0.05])[kinds] + 0.002 * noise[1]


MASK = ellipsoid(SHAPE, SIZE, (32, 34, 31))


@pytest.mark.parametrize("b0_dir", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
def test_hidden_forms_are_all_whose_field_has_no_laplacian(b0_dir):
    forms = hidden_forms(tuple(b0_dir))
    np.testing.assert_allclose(np.tensordot(forms, forms, ((1, 2), (1, 2))), np.eye(5), atol=1e-12)
    np.testing.assert_allclose(forms, forms.transpose(0, 2, 1))
    laplacian = np.trace(forms, axis1=1, axis2=2) / 3 - np.einsum("i,nij,j->n", b0_dir, forms, b0_dir)
    np.testing.assert_allclose(laplacian, 0, atol=1e-12)
    radial = np.eye(3).ravel()
    np.testing.assert_allclose(forms.reshape(5, 9).T @ (forms.reshape(5, 9) @ radial), radial, atol=1e-12)


@pytest.mark.parametrize("b0_dir", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
def test_a_trend_is_told_from_the_contrast_of_tissues(b0_dir):
    hidden = trend(
        np.array([1e-4, 0, -2e-4]), 1e-5 * np.einsum("n,nij", [1, -1, 2, 0.5, 1], hidden_forms(tuple(b0_dir)))
    )
    plain = np.where(MASK, tissue(), 0).astype(np.float32)
    spoilt = np.where(MASK, plain + hidden, 0).astype(np.float32)
    found = spoilt - without_trend(spoilt, MASK, SIZE, tuple(b0_dir))
    assert not found[~MASK].any()
    assert abs(found[MASK].mean()) < 1e-6
    assert relative_error(found[MASK], hidden[MASK] - hidden[MASK].mean()) < 0.1


def test_float32_equals_a_plain_fit_in_float64():
    sources = np.where(MASK, tissue(1) + trend(np.zeros(3), 1e-5 * np.eye(3)), 0).astype(np.float32)
    inner = ndimage.binary_erosion(MASK, iterations=2)
    forms, steps, slopes, typical = hidden_forms(tuple(OBLIQUE)), [], [], []
    for axis, size in enumerate(SIZE):
        stride = max(round(4.0 / size), 1)
        first = np.argwhere(inner)
        second = first + stride * np.eye(3, dtype=int)[axis]
        both = (second < SHAPE).all(axis=1)
        first, second = first[both], second[both]
        both = inner[tuple(second.T)]
        first, second = first[both], second[both]
        step = sources[tuple(second.T)].astype(np.float64) - sources[tuple(first.T)]
        middle = (np.array(SHAPE) - 1) / 2
        features = []
        for index in (first, second):
            place = (index - middle) * SIZE
            features.append(np.column_stack([place, np.einsum("pi,nij,pj->pn", place, forms, place)]))
        steps.append(step)
        slopes.append(features[1] - features[0])
        typical.append(1.4826 * np.median(np.abs(step)))
    step, slope, scale, expected = np.concatenate(steps), np.concatenate(slopes), np.mean(typical), np.zeros(8)
    for _ in range(200):
        weight = np.exp(-0.5 * ((step - slope @ expected) / scale) ** 2)
        expected = np.linalg.solve(slope.T @ (weight[:, None] * slope), slope.T @ (weight * step))
    truth = trend(expected[:3], np.tensordot(expected[3:], forms, 1))[MASK]
    found = (sources - without_trend(sources, MASK, SIZE, tuple(OBLIQUE)))[MASK]
    assert relative_error(found, truth - truth.mean()) < 5e-3


def test_nothing_is_taken_from_no_sources_or_from_a_mask_with_nothing_below_its_surface():
    empty = np.zeros(SHAPE, np.float32)
    np.testing.assert_array_equal(without_trend(empty, MASK, SIZE, tuple(AXIAL)), empty)
    thin = np.zeros(SHAPE, bool)
    thin[10:13] = True
    sources = np.where(thin, tissue(), 0).astype(np.float32)
    np.testing.assert_array_equal(without_trend(sources, thin, SIZE, tuple(AXIAL)), sources)


def test_the_local_field_gains_where_the_surface_is_another_tissue():
    """A rim 30 ppb above the middle: sources of small norm leave a bowl in its field."""
    shape, size = (40, 44, 36), (2.0, 2.0, 2.0)
    mask, middle = ellipsoid(shape, size, (36, 40, 32)), ellipsoid(shape, size, (28, 32, 24))
    texture = 0.002 * np.random.default_rng(0).standard_normal(shape)
    chi = np.where(mask, np.where(middle, -0.01, 0.02) + texture, 0)
    double = tuple(2 * n for n in shape)
    truth = convolve(embed(chi, double), full_dipole(double, size, OBLIQUE))[tuple(slice(n) for n in shape)]
    deep = ellipsoid(shape, size, (30, 34, 26))
    errors = [
        np.std((tfi(truth.astype(np.float32), mask, size, OBLIQUE, detrend=detrend)[0] - truth)[deep])
        for detrend in (False, True)
    ]
    assert errors[1] < 0.8 * errors[0]
