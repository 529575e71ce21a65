"""Maps on a template's grid: the registration is inverted, values are interpolated once, nothing bleeds in."""

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from qsm_dask.kernels.standard import TOLERANCE_MM, to_template

SHAPE, TEMPLATE = (33, 38, 27), (29, 35, 31)
SIZE = np.array([4.0, 3.6, 5.0])


def turned(degrees, size, shape):
    """An oblique affine whose grid is centred on the origin."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(size)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def world(affine, shape):
    return np.tensordot(affine[:3, :3], np.indices(shape).astype(float), 1) + affine[:3, 3].reshape(3, 1, 1, 1)


def bent(at):
    x, y, z = at
    return np.stack([1.05 * x + 5 * np.sin(y / 17), 0.96 * y + 5 * np.sin(z / 15), z - 4 * np.sin(x / 16)])


GRID = turned(-8.0, (4.5, 4.1, 4.3), TEMPLATE)


def scan():
    at = world(turned(14.0, (-SIZE[0], SIZE[1], SIZE[2]), SHAPE), SHAPE)
    x, y, z = at
    return bent(at).astype(np.float32), (x / 52) ** 2 + (y / 58) ** 2 + (z / 50) ** 2 < 1


def test_the_place_of_each_voxel_of_the_template_is_found():
    """Positions, resampled as if they were maps, are those of the template's voxels."""
    positions, mask = scan()
    maps = dict(zip("xyz", positions, strict=True))
    everywhere = np.ones_like(mask)
    found, _, missed = to_template(maps, everywhere, positions, TEMPLATE, GRID)
    assert missed == 0
    for name, wanted in zip("xyz", world(GRID, TEMPLATE), strict=True):
        here = np.isfinite(found[name])
        assert here.mean() > 0.5
        np.testing.assert_allclose(found[name][here], wanted[here], atol=TOLERANCE_MM)


def test_values_are_those_of_a_plain_interpolation():
    _, mask = scan()
    rng = np.random.default_rng(3)
    values = rng.normal(size=SHAPE).astype(np.float32)
    matrix = turned(20.0, (4.2, 3.3, 4.4), SHAPE)
    found, *_ = to_template(
        {"chi": values}, np.ones_like(mask), world(matrix, SHAPE).astype(np.float32), TEMPLATE, GRID
    )
    back = np.linalg.inv(matrix) @ GRID
    index = np.tensordot(back[:3, :3], np.indices(TEMPLATE), 1) + back[:3, 3].reshape(3, 1, 1, 1)
    wanted = map_coordinates(values.astype(float), index, order=1, cval=np.nan)
    here = np.isfinite(wanted) & np.isfinite(found["chi"])
    assert here.sum() > 0.95 * np.isfinite(wanted).sum()
    np.testing.assert_allclose(found["chi"][here], wanted[here], atol=0.01)


def test_nothing_outside_the_mask_is_read_and_its_volume_is_kept():
    positions, mask = scan()
    values = np.where(mask, np.float32(2.0), np.float32(np.nan))
    found, *_ = to_template({"chi": values}, mask, positions, TEMPLATE, GRID)
    here = np.isfinite(found["chi"])
    np.testing.assert_allclose(found["chi"][here], 2.0, rtol=1e-6)
    volume = here.sum() * np.linalg.det(GRID[:3, :3])
    assert volume == pytest.approx(1.05 * 0.96 * mask.sum() * np.prod(SIZE), rel=0.03)


def test_the_shift_is_what_the_registration_does_beyond_an_affine_map():
    positions, mask = scan()
    found, shift, _ = to_template({"chi": positions[0]}, mask, positions, TEMPLATE, GRID)
    here = np.isfinite(found["chi"])
    index = np.argwhere(mask)
    columns = np.column_stack([index, np.ones(len(index))])
    fitted, *_ = np.linalg.lstsq(columns, positions[:, mask].T.astype(float), rcond=None)
    # the same at the scan's voxels, by the forward map: fitted place minus position
    forward = (columns @ fitted).T - positions[:, mask]
    assert np.linalg.norm(shift[:, here], axis=0).mean() == pytest.approx(
        np.linalg.norm(forward, axis=0).mean(), rel=0.05
    )
    np.testing.assert_allclose(shift[:, here].mean(axis=1), 0.0, atol=0.3)


def test_a_mask_that_touches_the_faces_is_read_up_to_them():
    positions = world(np.diag([4.0, 4.0, 4.0, 1.0]), (9, 8, 7)).astype(np.float32)
    values = np.arange(9 * 8 * 7, dtype=np.float32).reshape(9, 8, 7)
    same, *_ = to_template({"chi": values}, np.ones((9, 8, 7), bool), positions, (9, 8, 7), np.diag([4.0, 4, 4, 1]))
    inner = (slice(1, -1),) * 3
    np.testing.assert_allclose(same["chi"][inner], values[inner], atol=0.5)
    assert np.isfinite(same["chi"]).mean() > 0.6


def test_a_place_where_the_registration_folds_is_missed_not_invented():
    positions, mask = scan()
    folded = positions.copy()
    folded[0, 12:20] = folded[0, 12:20][::-1] * np.float32(1.5)
    _, _, missed = to_template({"chi": positions[0]}, mask, folded, TEMPLATE, GRID)
    assert missed > 0


def test_what_cannot_be_resampled_is_refused():
    positions, mask = scan()
    chi = np.zeros(SHAPE, np.float32)
    for given, words in (
        (({"chi": chi}, np.zeros_like(mask), positions), "mask is empty"),
        (({"chi": np.full(SHAPE, np.nan, np.float32)}, mask, positions), "chi is NaN"),
        (({"chi": chi}, mask, np.full_like(positions, np.nan)), "template_position is NaN"),
        (({"chi": chi}, mask, positions[:, 1:]), "positions have shape"),
        (({"chi": chi}, mask, np.zeros_like(positions)), "too flat"),
    ):
        with pytest.raises(ValueError, match=words):
            to_template(*given, TEMPLATE, GRID)
