"""Strip plots as plain coordinates, which the page's template draws as SVG.

Every value stays a thing to point at: a mark carries its scan's name and leads to its
picture. Where scans are too many to draw one by one, a row keeps its box (quartiles and
median) and the marks that lie outside its fences.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qsm_dask.regions import Side

WIDTH = 560
LABEL_WIDTH = 136
ROW_HEIGHT = 36
AXIS_HEIGHT = 34
_PADDING = 14
_EVERY_MARK = 200
"""Up to so many values a row, all of them are drawn."""

_OFFSET: Mapping[Side, float] = {"left": -7.5, "": 0.0, "right": 7.5}


@dataclass(frozen=True)
class Value:
    """One number of one scan."""

    scan: str
    value: float


@dataclass(frozen=True)
class Mark:
    """One value as it is drawn: its place and what it says."""

    x: float
    y: float
    scan: str
    text: str


@dataclass(frozen=True)
class Strip:
    """The values of one structure on one side.

    Attributes
    ----------
    side : "left", "right" or "".
    y : its middle.
    low, middle, high : places of the quartiles and of the median.
    count : number of values.
    marks : those drawn one by one.
    """

    side: Side
    y: float
    low: float
    middle: float
    high: float
    count: int
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Row:
    """A structure: its name and its strips, left above right."""

    structure: str
    y: float
    strips: tuple[Strip, ...]


@dataclass(frozen=True)
class Chart:
    """A strip plot, in pixels.

    Attributes
    ----------
    title, unit : what is drawn.
    summary : the same in words, for those who cannot see it.
    rows : top to bottom, the largest median first.
    ticks : place and text of each tick of the axis.
    width, height : of the picture.
    """

    title: str
    unit: str
    summary: str
    rows: tuple[Row, ...]
    ticks: tuple[tuple[float, str], ...]
    width: int
    height: int


def strip_plot(title: str, unit: str, values: Mapping[tuple[str, Side], Sequence[Value]]) -> Chart | None:
    """Lay out a strip plot: a row a structure, a strip a side, a mark a scan.

    Parameters
    ----------
    title, unit : what the values are.
    values : per structure and side the values of all scans; those not finite are left out.

    Returns
    -------
    chart : None when there is no finite value.
    """
    finite = {key: [v for v in found if math.isfinite(v.value)] for key, found in values.items()}
    finite = {key: found for key, found in finite.items() if found}
    if not finite:
        return None
    everything = [v.value for found in finite.values() for v in found]
    ticks = nice_ticks(min(everything), max(everything))
    low, high = min(ticks[0], *everything), max(ticks[-1], *everything)

    def place(value: float) -> float:
        return round(LABEL_WIDTH + _PADDING + (value - low) / (high - low) * (WIDTH - LABEL_WIDTH - 2 * _PADDING), 1)

    centres = {
        structure: float(np.median([v.value for (s, _), found in finite.items() if s == structure for v in found]))
        for structure in {structure for structure, _ in finite}
    }
    rows = []
    for number, structure in enumerate(sorted(centres, key=lambda s: (-centres[s], s))):
        middle = (number + 0.5) * ROW_HEIGHT
        sides = [side for side in _OFFSET if (structure, side) in finite]
        strips = [_strip(side, middle + _OFFSET[side], finite[structure, side], place, unit) for side in sides]
        rows.append(Row(structure, middle, tuple(strips)))
    digits = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
    return Chart(
        title=title,
        unit=unit,
        summary="; ".join(f"{row.structure} {centres[row.structure]:.3g} {unit}" for row in rows),
        rows=tuple(rows),
        ticks=tuple((place(tick), signed(f"{tick + 0.0:.{digits}f}")) for tick in ticks),
        width=WIDTH,
        height=len(rows) * ROW_HEIGHT + AXIS_HEIGHT,
    )


def _strip(side: Side, y: float, found: Sequence[Value], place: Callable[[float], float], unit: str) -> Strip:
    low, middle, high = np.percentile([v.value for v in found], [25, 50, 75])
    drawn = found
    if len(found) > _EVERY_MARK:
        fence = 1.5 * (high - low)
        drawn = [v for v in found if not low - fence <= v.value <= high + fence]
    marks = tuple(Mark(place(v.value), y, v.scan, signed(f"{v.value:.3g} {unit}")) for v in drawn)
    return Strip(side, y, place(low), place(middle), place(high), len(found), marks)


def nice_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """About `wanted` round numbers from at most `low` to at least `high`: steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        low, high = low - (abs(low) or 1.0) * 0.1, high + (abs(high) or 1.0) * 0.1
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def signed(text: str) -> str:
    """`text` with a true minus sign."""
    return text.replace("-", "\N{MINUS SIGN}")
