"""The mosaic, read back pixel by pixel."""

import io

import numpy as np
import pytest
from PIL import Image

from qsm_dask.report.figures import CONTOUR, GUTTER_PX, WIDTH_PX, Layer, mosaic, size_of
from qsm_dask.report.planes import frame


def ball(shape: tuple[int, int, int], spacing: tuple[float, float, float], radius_mm: float) -> np.ndarray:
    grid = np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)], indexing="ij")
    return np.asarray(sum(axis**2 for axis in grid) <= radius_mm**2)


def chi(values: np.ndarray) -> Layer:
    return Layer("Susceptibility", "ppm", -0.1, 0.2, values)


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("L"), dtype=int)


def panel(picture: np.ndarray, number: int, mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """The columns of the picture that hold one cut, without the letters in its corners."""
    widths = [view.size[0] for view in frame(mask, affine).views]
    scale = (WIDTH_PX - GUTTER_PX - 8 * 6) / sum(widths)
    start = GUTTER_PX + sum(widths[:number]) * scale + 8 * number
    return picture[:, round(start) : round(start + widths[number] * scale)]


@pytest.mark.parametrize("flip", [1.0, -1.0])
def test_a_bright_spot_at_the_patients_left_is_drawn_on_the_left(flip: float) -> None:
    """Whether the array runs to the right (RAS) or to the left (LAS)."""
    mask = ball((40, 40, 40), (4.0, 4.0, 4.0), 76.0)
    affine = np.diag([4.0 * flip, 4.0, 4.0, 1.0])
    values = np.full(mask.shape, -0.1)
    at_left = slice(6, 12) if flip > 0 else slice(28, 34)  # x runs to the right: low indices are left
    values[at_left, 14:26, 12:26] = 0.2
    picture = pixels(mosaic([chi(values)], mask, affine))
    for number in (1, 3):  # an axial and the coronal cut
        cut = panel(picture, number, mask, affine)
        bright = np.argwhere(cut > 240)
        assert len(bright) > 50
        assert bright[:, 1].max() < cut.shape[1] / 2


def test_anterior_is_up_in_axial_and_on_the_right_in_sagittal_cuts() -> None:
    mask = ball((40, 40, 40), (4.0, 4.0, 4.0), 76.0)
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    values = np.full(mask.shape, -0.1)
    values[8:32, 28:33, 12:26] = 0.2
    picture = pixels(mosaic([chi(values)], mask, affine))
    axial, sagittal = panel(picture, 1, mask, affine), panel(picture, 4, mask, affine)
    assert np.argwhere(axial > 240)[:, 0].max() < axial.shape[0] / 2
    assert np.argwhere(sagittal > 240)[:, 1].min() > sagittal.shape[1] / 2


def test_a_ball_is_round_whatever_the_voxels() -> None:
    spacing = (0.8, 1.0, 3.0)
    mask = ball((150, 120, 40), spacing, 50.0)
    affine = np.diag([*spacing, 1.0])
    picture = pixels(mosaic([chi(np.full(mask.shape, 0.2))], mask, affine))
    for number in range(5):
        bright = np.argwhere(panel(picture, number, mask, affine) > 240)
        height, width = np.ptp(bright, axis=0) + 1
        assert width / height == pytest.approx(1.0, abs=0.07)  # one slice of 3 mm in 100


def test_greys_follow_the_window() -> None:
    mask = np.ones((30, 30, 30), bool)
    values = np.full(mask.shape, 0.05)  # half-way from -0.1 to 0.2
    picture = pixels(mosaic([chi(values)], mask, np.diag([5.0, 5.0, 5.0, 1.0])))
    middle = panel(picture, 1, mask, np.diag([5.0, 5.0, 5.0, 1.0]))
    assert np.median(middle) == pytest.approx(127.5, abs=255 / 63)  # 64 greys


def test_maps_end_at_the_mask_and_the_contour_shows_it_on_the_magnitude() -> None:
    mask = ball((40, 40, 40), (4.0, 4.0, 4.0), 60.0)
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    everywhere = np.ones(mask.shape)
    inside = mosaic([Layer("a map", "ppm", 0.0, 1.0, everywhere)], mask, affine)
    assert pixels(inside)[:, GUTTER_PX:].min() == 0
    outside = mosaic([Layer("mag", "", 0.0, 2.0, everywhere, contour=True)], mask, affine)
    colours = np.asarray(Image.open(io.BytesIO(outside)).convert("RGB"), dtype=int)
    distance = np.abs(colours - CONTOUR).max(axis=2)
    assert (distance < 40).sum() > 500


def test_voxels_that_are_not_finite_are_background() -> None:
    mask = np.ones((20, 20, 20), bool)
    values = np.full(mask.shape, np.nan)
    values[:10] = 0.2
    picture = pixels(mosaic([chi(values)], mask, np.diag([8.0, 8.0, 8.0, 1.0])))
    cut = panel(picture, 1, mask, np.diag([8.0, 8.0, 8.0, 1.0]))
    middle = cut[cut.shape[0] // 2]
    assert middle[: len(middle) // 2 - 4].min() == 255
    assert middle[len(middle) // 2 + 4 :].max() == 0


def test_the_file_is_a_small_palette_png_and_the_same_every_time() -> None:
    """Noise of 0.02 ppm in every voxel, as in maps of a thin-sliced scan at 3 T."""
    rng = np.random.default_rng(3)
    mask = ball((160, 190, 80), (1.0, 1.0, 2.0), 72.0)
    layers = [chi(rng.normal(0.0, 0.02, mask.shape).astype(np.float32)) for _ in range(3)]
    layers.append(Layer("Magnitude", "", 0.0, 1.0, rng.normal(0.7, 0.05, mask.shape), contour=True))
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    png = mosaic(layers, mask, affine)
    with Image.open(io.BytesIO(png)) as image:
        assert (image.mode, image.width) == ("P", WIDTH_PX)
    assert len(png) < 150_000
    assert png == mosaic(layers, mask, affine)


def test_nothing_to_draw_and_shapes_that_differ_are_refused() -> None:
    mask = np.ones((4, 4, 4), bool)
    with pytest.raises(ValueError, match="at least one"):
        mosaic([], mask, np.eye(4))
    with pytest.raises(ValueError, match=r"Susceptibility has shape \(4, 4, 5\)"):
        mosaic([chi(np.zeros((4, 4, 5)))], mask, np.eye(4))


def test_volumes_one_voxel_thick_are_drawn() -> None:
    mask = np.zeros((8, 9, 1), bool)
    mask[2:6, 2:7] = True
    layers = [chi(np.zeros(mask.shape)), Layer("Magnitude", "", 0.0, 1.0, np.ones(mask.shape), contour=True)]
    assert pixels(mosaic(layers, mask, np.eye(4))).shape[1] == WIDTH_PX


def test_the_size_of_a_picture() -> None:
    mask = np.ones((4, 4, 4), bool)
    png = mosaic([chi(np.zeros(mask.shape))], mask, np.eye(4))
    assert size_of(png) == Image.open(io.BytesIO(png)).size
