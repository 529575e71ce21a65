"""Small mosaics of what each method found, and of its error."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from qsm_dask import metrics
from tests.benchmarks.accuracy.cases import Case
from tests.benchmarks.accuracy.runs import SOURCES, Row, family_of, prepared

GREYS = 24
PIXEL_MM = 1.0
_GAP, _LABEL = 4, 14
_COLUMNS = 2

SCALES: dict[str, tuple[float, float, str]] = {
    "inversion": (0.12, 0.04, "ppm"),
    "background": (0.03, 0.01, "ppm"),
    "composed": (0.12, 0.06, "ppm"),
    "separation": (0.12, 0.06, "ppm"),
    "field": (1.0, 0.005, "ppm"),
    "unwrap": (0.0, 6.5, "rad, last echo"),
}
"""What is drawn white in a map, and in its error; black is its negative."""


@dataclass(frozen=True)
class Tile:
    """Slices of one map and of its error, lowest row first; NaN where there is nothing."""

    family: str
    name: str
    maps: tuple[NDArray[np.float32], ...]
    errors: tuple[NDArray[np.float32], ...]


class Album:
    """Collects tiles of one case: an axial slice through the putamen and a coronal one through the strong source."""

    def __init__(self, case: Case) -> None:
        self._case = case
        mask = case.truth["mask"]
        self._box = metrics.box_around(mask, 1)
        putamen = np.isin(case.truth["dseg"], list(case.regions)[2:4])
        self._axial = _middle(putamen if putamen.any() else mask, 2)
        self._coronal = _middle(case.source if case.source.any() else mask, 1)
        self.zoom = max(1, round(float(case.scan["voxel_size"][0]) / PIXEL_MM))
        self.tiles: list[Tile] = []

    def keep(self, row: Row, found: NDArray[np.float64]) -> None:
        """Take the slices of a map as `runs.compare` returned it."""
        isolated, goal = row.mode == "isolated", row.quantity
        family = family_of(row.method) if isolated else "composed"
        if family not in SCALES or (not isolated and (goal in SOURCES or family_of(row.method) in {"unwrap", "field"})):
            return
        if goal == "unwrapped_phase":  # its error is all there is to see
            self.tiles.append(Tile(family, row.method, (), self._slices(found, self._case.truth["mask"])))
            return
        mask = self._case.core if goal == "local_field" else self._case.truth["mask"]
        truth = prepared(goal, self._case.truth[goal], mask)
        label = f", {goal}" if goal in SOURCES else ""
        if not any((tile.family, tile.name) == (family, f"truth{label}") for tile in self.tiles):
            self.tiles.append(
                Tile(family, f"truth{label}", self._slices(truth, mask), self._slices(np.zeros_like(truth), mask))
            )
        # Of the map of one kind of source zero is a value.
        shown = mask if goal in SOURCES else mask & (found != 0.0)
        errors = self._slices(found - truth, mask)
        self.tiles.append(Tile(family, f"{row.method}{label}", self._slices(found, shown), errors))

    def _slices(self, values: NDArray[np.float64], shown: NDArray[np.bool_]) -> tuple[NDArray[np.float32], ...]:
        """The two slices, NaN where nothing is shown."""
        volume = np.where(shown, values, np.nan)
        x, y, z = self._box
        return (
            volume[x, y, self._axial].T.astype(np.float32),
            volume[x, self._coronal, z].T.astype(np.float32),
        )


def _middle(part: NDArray[np.bool_], axis: int) -> int:
    return int(np.argwhere(part)[:, axis].mean().round())


def draw(tiles: Sequence[Tile], zoom: int) -> bytes:
    """A mosaic of the tiles of one family: map and error, axial and then coronal, side by side; a palette PNG."""
    pictures = [_picture(tile, zoom) for tile in tiles]
    width = max(picture.shape[1] for picture in pictures) + 2 * _GAP
    rows = -(-len(pictures) // _COLUMNS)
    height = max(picture.shape[0] for picture in pictures) + _LABEL + _GAP
    sheet = Image.new("L", (width * min(_COLUMNS, len(pictures)), rows * height + _GAP))
    pen = ImageDraw.Draw(sheet)
    for number, (tile, picture) in enumerate(zip(tiles, pictures, strict=True)):
        left, top = (number % _COLUMNS) * width + _GAP, (number // _COLUMNS) * height
        pen.text((left, top + 1), tile.name, fill=255)
        sheet.paste(Image.fromarray(picture), (left, top + _LABEL))
    index = np.rint(np.asarray(sheet) * ((GREYS - 1) / 255.0)).astype(np.uint8)
    image = Image.fromarray(index, mode="P")
    image.putpalette(np.rint(np.linspace(0, 255, GREYS)).astype(np.uint8).repeat(3).tolist())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _picture(tile: Tile, zoom: int) -> NDArray[np.uint8]:
    most, error, _ = SCALES[tile.family]
    parts = []
    for place, wrong in enumerate(tile.errors):
        if tile.maps:
            parts.append(_grey(tile.maps[place], most, zoom))
        parts.append(_grey(wrong, error, zoom))
    height = max(part.shape[0] for part in parts)
    return np.concatenate([np.pad(part, ((0, height - part.shape[0]), (0, 0))) for part in parts], axis=1)


def _grey(values: NDArray[np.float32], white: float, zoom: int) -> NDArray[np.uint8]:
    """Black to white over -white to +white, anterior or superior up, each voxel a square; NaN is black."""
    level = np.clip(values[::-1] / white, -1.0, 1.0) * 127.5 + 127.5
    shade = np.rint(np.nan_to_num(level, nan=0.0)).astype(np.uint8)
    enlarged: Any = shade.repeat(zoom, axis=0).repeat(zoom, axis=1)
    return enlarged.astype(np.uint8)


def write(tiles: Sequence[Tile], zoom: int, folder: Path) -> dict[str, str]:
    """Write a picture a family; their file names by family."""
    names = {}
    for family in SCALES:
        chosen = [tile for tile in tiles if tile.family == family]
        if chosen:
            names[family] = f"accuracy-{family}.png"
            (folder / names[family]).write_bytes(draw(chosen, zoom))
    return names
