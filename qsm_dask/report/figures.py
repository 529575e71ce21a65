"""Pictures of one scan, as the bytes of small PNG files.

Only the object-oriented side of matplotlib is used: no global figure, no interactive
back end, nothing to clash when tasks draw in several threads.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from qsm_dask.report.planes import EDGES, Framing, View, cut, frame

WIDTH_PX = 880
GUTTER_PX = 92
GAP_PX = 8
CONTOUR = (230, 159, 0)
"""Orange of the palette of Okabe and Ito, told from grey with any colour vision."""

_GREYS = (64, 40, 24)
_CONTOUR_SHADES = 16
_LIMIT_BYTES = 150_000
"""A picture takes the most greys that keep it below this; noise, which makes files large, hides the steps."""

_DPI = 100


@dataclass(frozen=True)
class Layer:
    """One row of a mosaic.

    Attributes
    ----------
    title : what people call the map.
    unit : its unit, empty where grey values mean nothing by themselves.
    low, high : values drawn black and white.
    values : (x, y, z); voxels that are not finite are drawn as background.
    contour : whether the edge of the mask is drawn on it; the other layers are drawn
        inside the mask only.
    regions : (x, y, z) labels whose outlines are drawn on it.
    """

    title: str
    unit: str
    low: float
    high: float
    values: NDArray[Any]
    contour: bool = False
    regions: NDArray[np.integer[Any]] | None = None


def mosaic(layers: Sequence[Layer], mask: NDArray[np.bool_], affine: ArrayLike) -> bytes:
    """Draw the maps of a scan: a row a map, the same axial, coronal and sagittal cuts in each.

    The patient's left is on the left; `planes` has the other conventions. Voxels keep
    their proportions in mm.

    Parameters
    ----------
    layers : the rows, top to bottom.
    mask : (x, y, z), the voxels that the maps are trusted in.
    affine : (4, 4), voxel index to mm.

    Returns
    -------
    png : an 8-bit palette image, `WIDTH_PX` wide.

    Raises
    ------
    ValueError : no layers, or a layer whose shape is not the mask's.
    """
    if not layers:
        raise ValueError("a mosaic needs at least one map to draw")
    for layer in layers:
        if layer.values.shape != mask.shape:
            raise ValueError(f"{layer.title} has shape {layer.values.shape}, the mask {mask.shape}")
    framing = frame(mask, affine)
    inside = framing.crop(mask)
    scale = _pixels_per_mm(framing.views)
    row = max(view.size[1] for view in framing.views) * scale
    height = round(len(layers) * (row + GAP_PX) + GAP_PX)
    figure = Figure(figsize=(WIDTH_PX / _DPI, height / _DPI), dpi=_DPI, facecolor="black")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    for number, layer in enumerate(layers):
        _row(axes, layer, framing, inside, scale, bottom=height - (number + 1) * (row + GAP_PX), height=row)
    # imshow moves the limits with every image, so they are set last
    axes.set(xlim=(0, WIDTH_PX), ylim=(0, height), aspect="equal")
    axes.set_axis_off()
    canvas.draw()
    return _png(np.asarray(canvas.buffer_rgba())[..., :3])


def size_of(png: bytes) -> tuple[int, int]:
    """Width and height of a PNG file [pixels]."""
    with Image.open(io.BytesIO(png)) as image:
        return image.width, image.height


def _pixels_per_mm(views: Sequence[View]) -> float:
    free = WIDTH_PX - GUTTER_PX - GAP_PX * (len(views) + 1)
    return free / sum(view.size[0] for view in views)


def _row(
    axes: Axes,
    layer: Layer,
    framing: Framing,
    inside: NDArray[np.bool_],
    scale: float,
    *,
    bottom: float,
    height: float,
) -> None:
    values = framing.crop(layer.values)
    left = float(GUTTER_PX)
    for number, view in enumerate(framing.views):
        picture = cut(values, view.plane, view.index).astype(np.float32)
        trusted = cut(inside, view.plane, view.index)
        if not layer.contour:
            picture = np.where(trusted, picture, np.nan)
        width, tall = view.size[0] * scale, view.size[1] * scale
        low = bottom + (height - tall) / 2
        axes.imshow(
            picture,
            cmap="gray",
            vmin=layer.low,
            vmax=layer.high,
            extent=(left, left + width, low, low + tall),
            origin="lower",
        )
        if layer.contour:
            _outline(axes, trusted, (left, low), (width, tall))
        if layer.regions is not None:
            labels = cut(framing.crop(layer.regions), view.plane, view.index)
            for label in np.unique(labels[labels != 0]):
                _outline(axes, labels == label, (left, low), (width, tall))
        for edge, x in zip(EDGES[view.plane], (left + 2, left + width - 2), strict=True):
            axes.text(x, low + 2, edge, color="0.75", fontsize=7, ha="left" if x < left + width / 2 else "right")
        if number == 0:
            _legend(axes, layer, centre=bottom + height / 2)
        left += width + GAP_PX


def _outline(axes: Axes, shape: NDArray[np.bool_], corner: tuple[float, float], size: tuple[float, float]) -> None:
    """Draw the edge of a shape (row, column) that is drawn `size` wide and tall from a corner on."""
    if min(shape.shape) < 2 or not shape.any() or shape.all():
        return
    (left, low), (width, tall) = corner, size
    columns = left + width / shape.shape[1] * (np.arange(shape.shape[1]) + 0.5)
    rows = low + tall / shape.shape[0] * (np.arange(shape.shape[0]) + 0.5)
    axes.contour(columns, rows, shape, levels=[0.5], colors=["#e69f00"], linewidths=1.0)


def _legend(axes: Axes, layer: Layer, *, centre: float) -> None:
    """The gutter beside a row: the map's name, and its grey scale where it has a unit."""
    axes.text(GAP_PX, centre + 14, layer.title, color="white", fontsize=8.5, va="bottom", linespacing=1.25)
    if not layer.unit:
        return
    ramp = np.linspace(0.0, 1.0, 64)[np.newaxis]
    right = GUTTER_PX - 3 * GAP_PX
    axes.imshow(ramp, cmap="gray", vmin=0.0, vmax=1.0, extent=(GAP_PX, right, centre, centre + 8), aspect="auto")
    ends = f"{layer.low:g} … {layer.high:g}".replace("-", "\N{MINUS SIGN}")
    axes.text(GAP_PX, centre - 5, f"{ends}\n{layer.unit}", color="0.75", fontsize=7.5, va="top", linespacing=1.3)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """Pack an RGB picture of greys and of the contour's colour into a PNG of one byte a pixel."""
    png = b""
    for greys in _GREYS:
        png = _packed(pixels, greys)
        if len(png) <= _LIMIT_BYTES:
            break
    return png


def _packed(pixels: NDArray[np.uint8], greys: int) -> bytes:
    """A PNG whose palette holds greys, and then the way from black to the contour.

    Pillow's own quantiser would look colours up on a coarse grid and shift most greys.
    """
    ramp = np.rint(np.linspace(0, 255, greys)).repeat(3)
    shades = np.outer(np.arange(1, _CONTOUR_SHADES + 1) / _CONTOUR_SHADES, CONTOUR)
    red, blue = pixels[..., 0].astype(np.float32), pixels[..., 2]
    coloured = red - blue > 255 // _CONTOUR_SHADES  # only the contour is not grey, and it has no blue
    index = np.rint(red * ((greys - 1) / 255.0))
    depth = np.rint(red * (_CONTOUR_SHADES / CONTOUR[0])).clip(1, _CONTOUR_SHADES)
    image = Image.fromarray(np.where(coloured, greys - 1 + depth, index).astype(np.uint8), mode="P")
    image.putpalette([*ramp.astype(int), *np.rint(shades).astype(int).ravel()])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()
