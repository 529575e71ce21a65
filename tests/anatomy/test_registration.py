"""Registration to a template: a known map is found, twice the same, and what cannot be registered is refused."""

import sys

import numba
import numpy as np
import pytest

from qsm_dask.anatomy.registration import register
from qsm_dask.atlas import Atlas, Image

SHAPE = (40, 44, 38)
VOXEL = 4.0
WAVES = np.random.default_rng(7).standard_normal((12, 3)) / 8.0
"""Of a texture that has edges in every direction [1/mm]."""


def world(affine, shape=SHAPE):
    index = np.indices(shape).astype(float)
    return np.tensordot(affine[:3, :3], index, axes=1) + affine[:3, 3].reshape(3, 1, 1, 1)


def head(at):
    """Magnitude, susceptibility and brain of a head at template positions (3, …) [mm]."""
    x, y, z = at
    brain = (x / 62) ** 2 + (y / 74) ** 2 + (z / 58) ** 2 < 1
    waves = sum(np.sin(a * x + b * y + c * z + n) for n, (a, b, c) in enumerate(WAVES))
    magnitude = brain * (10 + waves)
    nuclei = [(-24, 5, 0), (24, 5, 0), (-10, -15, -12), (10, -15, -12)]
    chi = sum(0.12 * np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / 150) for a, b, c in nuclei)
    return magnitude.astype(np.float32), (brain * chi).astype(np.float32), brain


def template():
    affine = np.diag([VOXEL, VOXEL, VOXEL, 1.0])
    affine[:3, 3] = -VOXEL * (np.array(SHAPE) - 1) / 2
    magnitude, chi, brain = head(world(affine))
    return Atlas("toy", {"magnitude": Image(magnitude, affine), "chi": Image(chi, affine)}, Image(brain, affine))


def scan():
    """A scan whose axes are turned and shifted against the template's, and the true template positions."""
    angle = np.deg2rad(9.0)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-VOXEL, VOXEL, VOXEL])  # stored from right to left
    affine[:3, 3] = np.array([12.0, -9.0, 20.0]) - affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    x, y, z = world(affine) - np.array([12.0, -9.0, 20.0]).reshape(3, 1, 1, 1)
    truth = np.stack([1.04 * x + 5 * np.sin(y / 20), 0.97 * y + 5 * np.sin(z / 18), z - 4 * np.sin(x / 22)])
    magnitude, chi, brain = head(truth)
    return magnitude, chi, brain, affine, truth


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
