"""The stage that brings a scan's maps to a template: what it makes of maps that a scan has and of one that it lacks."""

import numpy as np
import pytest

from qsm_dask.anatomy.standard import standard
from qsm_dask.atlas import Atlas, Grid

SHAPE = (12, 11, 10)
GRID = Grid((10, 9, 8), np.array([[2.0, 0, 0, 2.0], [0, 2.0, 0, 2.0], [0, 0, 2.0, 2.0], [0, 0, 0, 1.0]]))


def given(mask=None):
    positions = (2.0 * np.indices(SHAPE)).astype(np.float32)
    magnitude = np.stack([np.full(SHAPE, 3.0, np.float32), np.full(SHAPE, 4.0, np.float32)])
    chi = np.indices(SHAPE)[0].astype(np.float32) / 100
    return positions, magnitude, np.ones(SHAPE, bool) if mask is None else mask, chi


def test_maps_lie_on_the_templates_grid():
    rate = np.full(SHAPE, 20.0, np.float32)
    chi, r2star, magnitude, affine, shape, told = standard(*given(), rate, template=Atlas(grid=GRID))
    np.testing.assert_allclose(chi, np.broadcast_to((np.arange(10) + 1.0)[:, None, None] / 100, (10, 9, 8)), atol=1e-4)
    np.testing.assert_allclose(r2star, 20.0)
    np.testing.assert_allclose(magnitude, np.sqrt(12.5), rtol=1e-6)
    np.testing.assert_array_equal(affine, GRID.affine)
    assert told.figures == {"standard_voxels": 720.0, "not_inverted": 0.0}
    assert told.warnings == ()
    np.testing.assert_allclose(shape, 0.0, atol=1e-4)


def test_a_map_that_the_scan_lacks_is_missing_throughout():
    chi, r2star, *_ = standard(*given(), template=Atlas(grid=GRID))
    assert np.isfinite(chi).all()
    assert np.isnan(r2star).all()


def test_a_template_elsewhere_is_refused():
    far = Grid((4, 4, 4), np.diag([2.0, 2.0, 2.0, 1.0]))
    far.affine[:3, 3] = 500.0
    with pytest.raises(ValueError, match="no voxel of the template lies inside the mask"):
        standard(*given(), template=Atlas(grid=far))
    with pytest.raises(ValueError, match="the template has no image"):
        standard(*given(), template=Atlas())
