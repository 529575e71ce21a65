"""Spacing, direction of B0 and likeness of grids, by hand."""

import numpy as np
import pytest

from qsm_dask.errors import InputError
from qsm_dask.io.grid import b0_direction, same_grid, voxel_size
from qsm_dask.io.nifti import read_header
from tests.io.bids_tree import AFFINE, write_image
from tests.io.geometries import COS, GEOMETRIES, SIN, affine_of


@pytest.mark.parametrize(("columns", "spacing", "direction"), GEOMETRIES.values(), ids=GEOMETRIES.keys())
def test_voxel_size_and_b0_direction_by_hand(columns, spacing, direction):
    affine = affine_of(columns)
    np.testing.assert_allclose(voxel_size(affine), spacing, rtol=1e-12)
    np.testing.assert_allclose(b0_direction(affine), direction, atol=1e-12)


@pytest.mark.parametrize("wrong", [lambda a: np.linalg.inv(a) @ (0, 0, 1), lambda a: a[2]])
def test_the_usual_shortcuts_are_wrong_by_tens_of_degrees_on_a_tilted_anisotropic_scan(wrong):
    affine = affine_of(GEOMETRIES["tilted about x"][0])
    shortcut = wrong(affine[:3, :3])
    cosine = shortcut @ b0_direction(affine) / np.linalg.norm(shortcut)
    assert np.degrees(np.arccos(cosine)) > 18


def test_a_sheared_affine_is_refused():
    affine = affine_of([(0.8, 0, 0), (0, 0.8 * COS, 3 * SIN), (0, -0.8 * SIN, 3 * COS)])
    with pytest.raises(InputError, match=r"scan\.nii: the affine is sheared .* resample"):
        voxel_size(affine, "scan.nii")
    almost = affine_of([(1, 0, 0), (0.9e-3, 1, 0), (0, 0, 1)])
    assert voxel_size(almost).shape == (3,)


def test_an_affine_column_without_length_is_refused():
    with pytest.raises(InputError, match="column without length"):
        b0_direction(affine_of([(1, 0, 0), (0, 0, 0), (0, 0, 1)]))


def test_grids_are_one_when_no_corner_is_off_by_a_hundredth_of_a_voxel(tmp_path):
    moved = AFFINE.copy()
    moved[0, 3] += 0.02
    nearly = AFFINE.copy()
    nearly[0, 3] += 0.002
    for name, shape, affine in [
        ("a", (4, 3, 2), AFFINE),
        ("nearly", (4, 3, 2), nearly),
        ("moved", (4, 3, 2), moved),
        ("other", (4, 3, 3), AFFINE),
    ]:
        write_image(tmp_path / f"{name}.nii", np.ones(shape, np.float32), affine=affine)
    a, nearly, moved, other = (
        read_header(tmp_path / f"{n}.nii", f"{n}.nii").grid for n in ("a", "nearly", "moved", "other")
    )
    assert same_grid(a, nearly) is None
    assert same_grid(a, moved) == "its position or orientation (affine) differs from a.nii by up to 0.02 mm"
    assert same_grid(a, other) == "its matrix is (4, 3, 3), that of a.nii is (4, 3, 2)"
