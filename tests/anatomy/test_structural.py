"""The subject's T1w: laid on the scan by a rigid map that is known, then the anatomy that is registered."""

import sys

import numba
import numpy as np
import pytest

from qsm_dask.anatomy.registration import register
from qsm_dask.anatomy.structural import align_t1w
from tests.anatomy.heads import VOXEL, scan, t1w_scan, template, world


@pytest.fixture(scope="module")
def aligned():
    magnitude, _, brain, affine, _ = scan()
    t1w, t1w_affine, _ = t1w_scan()
    return align_t1w(magnitude[None], brain, affine, t1w, t1w_affine)


def test_a_head_that_moved_is_found_to_a_fraction_of_a_voxel(aligned):
    _, _, brain, affine, _ = scan()
    found, told = aligned
    _, _, truth = t1w_scan()
    at = np.concatenate([world(affine)[:, brain], np.ones((1, brain.sum()))])
    missed = np.linalg.norm(((found - truth) @ at)[:3], axis=0)
    assert found.shape == (4, 4)
    assert missed.max() < 0.35 * VOXEL
    np.testing.assert_allclose(found[:3, :3] @ found[:3, :3].T, np.eye(3), atol=1e-6)
    assert told.figures["turn_degrees"] == pytest.approx(4.0, abs=0.6)
    assert told.figures["shift_mm"] == pytest.approx(np.linalg.norm((3.0, -2.0, 4.0)), abs=1.0)
    assert told.figures["covered"] > 0.99
    assert 1.1 < told.figures["mutual_information"] <= 2.0


def test_the_rigid_map_is_the_same_with_any_number_of_threads(aligned):
    magnitude, _, brain, affine, _ = scan()
    t1w, t1w_affine, _ = t1w_scan()
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        again, _ = align_t1w(magnitude[None], brain, affine, t1w, t1w_affine)
    finally:
        numba.set_num_threads(before)
    np.testing.assert_array_equal(again, aligned[0])


def test_a_scan_reaches_a_template_of_another_contrast_by_its_t1w_at_once(aligned):
    """The template has no image like the magnitude: what leads there is the T1w and the rigid map to it."""
    magnitude, chi, brain, affine, truth = scan()
    t1w, t1w_affine, _ = t1w_scan()
    positions, told = register(
        magnitude[None], brain, affine, chi, t1w, t1w_affine, aligned[0], template=template(t1w=True)
    )
    missed = np.linalg.norm(positions - truth, axis=0)[brain]
    assert positions.shape == (3, *brain.shape)
    assert np.median(missed) < 0.5 * VOXEL
    assert np.percentile(missed, 95) < 1.5 * VOXEL
    assert told.figures["t1w_correlation"] > 0.9
    assert "magnitude_correlation" not in told.figures


def test_a_template_without_t1w_is_met_by_the_magnitude_as_if_there_were_none(aligned):
    magnitude, chi, brain, affine, _ = scan()
    t1w, t1w_affine, _ = t1w_scan()
    few = {"template": template(), "affine_iterations": (5, 0, 0), "iterations": (0, 0)}
    with_t1w, _ = register(magnitude[None], brain, affine, chi, t1w, t1w_affine, aligned[0], **few)
    without, _ = register(magnitude[None], brain, affine, chi, **few)
    np.testing.assert_array_equal(with_t1w, without)


def test_a_t1w_of_another_place_is_left_aside_with_a_warning_and_the_magnitude_registered():
    magnitude, chi, brain, affine, _ = scan()
    t1w, t1w_affine, _ = t1w_scan()
    elsewhere = t1w_affine.copy()
    elsewhere[0, 3] += 150.0
    nowhere, told = align_t1w(magnitude[None], brain, affine, t1w, elsewhere)
    assert nowhere.shape == (4, 4)
    assert np.isnan(nowhere).all()
    assert told.figures["covered"] < 0.5
    assert "of the brain lies in the T1w, left aside" in told.warnings[0]
    few = {"template": template(t1w=True), "affine_iterations": (5, 0, 0), "iterations": (0, 0)}
    with_t1w, figures = register(magnitude[None], brain, affine, chi, t1w, elsewhere, nowhere, **few)
    without, _ = register(magnitude[None], brain, affine, chi, **few)
    np.testing.assert_array_equal(with_t1w, without)
    assert "t1w_correlation" not in figures.figures


def test_a_t1w_that_cannot_be_laid_on_the_scan_is_refused(monkeypatch):
    magnitude, _, brain, affine, _ = scan()
    t1w, t1w_affine, _ = t1w_scan()
    with pytest.raises(ValueError, match="each level needs one or more"):
        align_t1w(magnitude[None], brain, affine, t1w, t1w_affine, iterations=(10, 0))
    with pytest.raises(ValueError, match="t1w is NaN"):
        align_t1w(magnitude[None], brain, affine, np.full_like(t1w, np.nan), t1w_affine)
    with pytest.raises(ValueError, match="mask is empty"):
        align_t1w(magnitude[None], np.zeros_like(brain), affine, t1w, t1w_affine)
    monkeypatch.setitem(sys.modules, "picsl_greedy", None)
    with pytest.raises(ValueError, match=r"qsm-dask\[anatomy\]"):
        align_t1w(magnitude[None], brain, affine, t1w, t1w_affine)
