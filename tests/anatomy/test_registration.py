"""Registration to a template: a known map is found, twice the same, and what cannot be registered is refused."""

import os
import sys

import numba
import numpy as np
import pytest

from qsm_dask.anatomy.registration import register
from qsm_dask.atlas import Atlas
from tests.anatomy.heads import SHAPE, VOXEL, scan, template


@pytest.fixture(scope="module")
def registered():
    magnitude, chi, brain, affine, truth = scan()
    positions, told = register(magnitude[None], brain, affine, chi, template=template())
    return positions, told, brain, truth


def test_a_known_map_is_found_to_a_fraction_of_a_voxel(registered):
    positions, told, brain, truth = registered
    missed = np.linalg.norm(positions - truth, axis=0)[brain]
    assert positions.dtype == np.float32
    assert np.median(missed) < 0.35 * VOXEL
    assert np.percentile(missed, 95) < VOXEL
    assert told.figures["magnitude_correlation"] > 0.9
    assert told.figures["chi_correlation"] > 0.98


def test_the_deformation_is_found_beyond_the_affine_map(registered):
    magnitude, chi, brain, affine, truth = scan()
    linear, _ = register(magnitude[None], brain, affine, chi, template=template(), iterations=(0, 0))
    missed, without = (np.linalg.norm(found - truth, axis=0)[brain] for found in (registered[0], linear))
    assert np.median(missed) < 0.6 * np.median(without)


def test_the_jacobian_is_told(registered):
    figures = registered[1].figures
    assert figures["jacobian_p01"] < 1.04 * 0.97 < figures["jacobian_p99"]
    assert figures["jacobian_median"] == pytest.approx(1.04 * 0.97, abs=0.04)
    assert figures["jacobian_folded"] == 0.0


def test_positions_are_whole_multiples_of_a_sixtyfourth_of_a_millimetre(registered):
    steps = registered[0].astype(np.float64) * 64
    np.testing.assert_array_equal(steps, np.rint(steps))


def test_the_result_is_the_same_with_any_number_of_threads_and_nothing_is_printed(registered, capfd):
    magnitude, chi, brain, affine, _ = scan()
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        again, _ = register(magnitude[None], brain, affine, chi, template=template())
    finally:
        numba.set_num_threads(before)
    np.testing.assert_array_equal(again, registered[0])
    assert capfd.readouterr().out == ""


def test_finer_scans_are_compared_in_blocks():
    magnitude, chi, brain, affine, truth = scan()
    positions, _ = register(magnitude[None], brain, affine, chi, template=template(), resolution_mm=8.0)
    assert positions.shape == (3, *SHAPE)
    assert np.median(np.linalg.norm(positions - truth, axis=0)[brain]) < 0.5 * 8.0


def test_what_cannot_be_registered_is_refused(monkeypatch):
    magnitude, chi, brain, affine, _ = scan()
    only_chi = Atlas("toy", {"chi": template().contrasts["chi"]}, template().mask)
    with pytest.raises(ValueError, match="neither a T2starw nor a T1w"):
        register(magnitude[None], brain, affine, chi, template=only_chi)
    with pytest.raises(ValueError, match="mask is empty"):
        register(magnitude[None], np.zeros_like(brain), affine, chi, template=template())
    with pytest.raises(ValueError, match="magnitude of echo 2 is NaN"):
        register(np.stack([magnitude, np.full_like(magnitude, np.nan)]), brain, affine, chi, template=template())
    with pytest.raises(ValueError, match="chi is NaN"):
        register(magnitude[None], brain, affine, np.full_like(magnitude, np.nan), template=template())
    monkeypatch.setitem(sys.modules, "picsl_greedy", None)
    with pytest.raises(ValueError, match=r"qsm-dask\[anatomy\]"):
        register(magnitude[None], brain, affine, chi, template=template())


def test_ants_finds_the_same_map_twice_and_leaves_the_environment_as_it_was():
    pytest.importorskip("ants", reason="the extra ants is not installed")
    magnitude, chi, brain, affine, truth = scan()
    before = dict(os.environ)
    one, other = (
        register(
            *(magnitude[None], brain, affine, chi),
            template=template(),
            method="ants",
            affine_iterations=(500, 200, 50),
            iterations=(40, 20, 5),
        )[0]
        for _ in range(2)
    )
    missed = np.linalg.norm(one - truth, axis=0)[brain]
    assert np.median(missed) < 0.5 * VOXEL
    np.testing.assert_array_equal(one, other)
    assert dict(os.environ) == before


def test_ants_that_is_not_installed_is_named(monkeypatch):
    magnitude, chi, brain, affine, _ = scan()
    monkeypatch.setitem(sys.modules, "ants", None)
    with pytest.raises(ValueError, match=r"qsm-dask\[ants\]"):
        register(magnitude[None], brain, affine, chi, template=template(), method="ants")
