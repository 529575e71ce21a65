"""Orientation: where the patient's left, front and top land in a picture."""

from itertools import permutations, product

import numpy as np
import pytest

from qsm_dask.report.planes import Orientation, cut, frame

SHAPE_RAS = (5, 6, 7)
LEFT_FRONT_TOP = (0, 5, 6)
"""The voxel at the patient's left, front and top in an array that runs right, anterior, superior."""


def stored_as(order: tuple[int, ...], flips: tuple[bool, ...]) -> tuple[np.ndarray, np.ndarray]:
    """An array with a marker at the patient's left, front and top, stored in the axes given, and its affine.

    `order[k]` is the direction (right, anterior, superior) along which array axis k runs.
    """
    spacing = (1.0, 2.0, 3.0)
    affine = np.eye(4)
    affine[:3, :3] = 0.0
    shape = [SHAPE_RAS[direction] for direction in order]
    index = []
    for axis, (direction, flip) in enumerate(zip(order, flips, strict=True)):
        affine[direction, axis] = -spacing[direction] if flip else spacing[direction]
        position = LEFT_FRONT_TOP[direction]
        index.append(shape[axis] - 1 - position if flip else position)
    volume = np.zeros(shape)
    volume[tuple(index)] = 1.0
    return volume, affine


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("flips", list(product([False, True], repeat=3)))
def test_every_storage_order_is_turned_to_right_anterior_superior(
    order: tuple[int, ...], flips: tuple[bool, ...]
) -> None:
    volume, affine = stored_as(order, flips)
    orientation = Orientation.of(affine)
    turned = orientation.apply(volume)
    assert turned.shape == SHAPE_RAS
    assert turned[LEFT_FRONT_TOP] == 1.0
    assert orientation.spacing == (1.0, 2.0, 3.0)
    assert orientation.tilt == pytest.approx(0.0, abs=1e-6)


def test_left_is_on_the_left_front_and_top_are_up() -> None:
    volume, affine = stored_as((1, 2, 0), (True, False, True))
    turned = Orientation.of(affine).apply(volume)
    axial = cut(turned, "axial", 6)
    assert axial.shape == (6, 5)  # rows run from posterior up to anterior, columns from left to right
    assert axial[5, 0] == 1.0
    coronal = cut(turned, "coronal", 5)
    assert coronal.shape == (7, 5)
    assert coronal[6, 0] == 1.0
    sagittal = cut(turned, "sagittal", 0)
    assert sagittal.shape == (7, 6)
    assert sagittal[6, 5] == 1.0  # anterior on the right


def test_oblique_axes_take_the_nearest_directions_and_tell_the_tilt() -> None:
    angle = np.radians(32.5)
    affine = np.eye(4)
    affine[:3, :3] = np.array(
        [[-1.0, 0.0, 0.0], [0.0, np.cos(angle), -np.sin(angle)], [0.0, np.sin(angle), np.cos(angle)]]
    ) * (0.8, 0.8, 3.0)
    orientation = Orientation.of(affine)
    assert orientation.axes == (0, 1, 2)
    assert orientation.flips == (True, False, False)
    assert orientation.spacing == pytest.approx((0.8, 0.8, 3.0))
    assert orientation.tilt == pytest.approx(32.5)


def test_no_axis_stands_for_two_directions() -> None:
    # at 50 degrees about z the first column leans to y: each array axis still has one direction of its own
    angle = np.radians(50.0)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    orientation = Orientation.of(affine)
    assert sorted(orientation.axes) == [0, 1, 2]
    assert orientation.axes == (1, 0, 2)
    assert orientation.flips == (True, False, False)


@pytest.mark.parametrize("affine", [np.eye(3), np.zeros((4, 4)), np.full((4, 4), np.nan)])
def test_an_affine_without_voxel_size_is_refused(affine: np.ndarray) -> None:
    with pytest.raises(ValueError, match="affine"):
        Orientation.of(affine)


def test_frame_crops_to_the_mask_and_keeps_a_margin() -> None:
    mask = np.zeros((40, 30, 20), bool)
    mask[10:20, 5:25, 4:14] = True
    framing = frame(mask, np.diag([2.0, 1.0, 3.0, 1.0]), margin_mm=6.0)
    assert framing.box == (slice(7, 23), slice(0, 30), slice(2, 16))
    assert framing.crop(mask).sum() == mask.sum()
    sizes = {view.plane: view.size for view in framing.views}
    assert sizes == {"axial": (32.0, 30.0), "coronal": (32.0, 42.0), "sagittal": (30.0, 42.0)}


def test_cuts_follow_the_share_of_voxels_below() -> None:
    mask = np.zeros((40, 30, 20), bool)
    mask[10:20, 5:25, 4:14] = True
    framing = frame(mask, np.eye(4), margin_mm=0.0)
    # ten equal slices: 27 % of the voxels lie at or below the third, 41 % at or below the fifth, 60 % the sixth
    assert [view.index for view in framing.views if view.plane == "axial"] == [2, 4, 5]


def test_an_empty_mask_frames_the_whole_volume() -> None:
    framing = frame(np.zeros((8, 6, 4), bool), np.eye(4))
    assert framing.box == (slice(0, 8), slice(0, 6), slice(0, 4))
