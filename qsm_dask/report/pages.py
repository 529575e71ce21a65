"""The cohort page: what it says, as plain values, and its rendering to one HTML file.

Everything that comes from a dataset (names, participant columns, reasons) is escaped by
the template engine; the page asks nothing of a network and needs no script.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from qsm_dask.report.charts import Chart, signed


@dataclass(frozen=True)
class Picture:
    """The mosaic of a scan.

    Attributes
    ----------
    path : relative to the page.
    width, height : pixels.
    maps : titles of its rows, top to bottom.
    tilt : degrees between the array's axes and the scanner's.
    """

    path: str
    width: int
    height: int
    maps: tuple[str, ...]
    tilt: float


@dataclass(frozen=True)
class ScanLine:
    """One scan, in the table and in the gallery.

    Attributes
    ----------
    scan : its name.
    participant : texts, one a column of `Page.participant_columns`.
    state, reason : where it stands, and why it is not done.
    seconds, peak_bytes : of all its nodes together, and of the largest.
    values : median susceptibility per `Page.value_columns`: left and right, or one; NaN where missing.
    picture : None where there is nothing to draw.
    notes : what was left out or noted.
    """

    scan: str
    participant: tuple[str, ...]
    state: str
    reason: str
    seconds: float
    peak_bytes: int
    values: tuple[tuple[float, ...], ...]
    picture: Picture | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Notice:
    """One thing to look at, and the scans it concerns."""

    text: str
    scans: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """Where a quantity came from, over the cohort.

    Attributes
    ----------
    quantity, meaning, units : what it is.
    origins : text and number of scans, the most frequent first.
    """

    quantity: str
    meaning: str
    units: str
    origins: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Quality:
    """What a stage told of its results.

    Attributes
    ----------
    stage, columns : its name, and those of its figures.
    rows : scan, and a value a column; NaN where it has none.
    """

    stage: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[float, ...]], ...]


@dataclass(frozen=True)
class StepLine:
    """One step of the pipeline as it ran."""

    stage: str
    parameters: str
    cite: str


@dataclass(frozen=True)
class Page:
    """Everything the cohort page says.

    Attributes
    ----------
    title : name of the cohort.
    pipeline, pipeline_summary : what ran.
    counts : state -> number of scans, in the order in which they are shown.
    scans : one a scan, sorted.
    participant_columns, value_columns : headings of the table.
    failures, warnings : what to look at, grouped by its text.
    charts : strip plots.
    sources : where quantities came from.
    steps, steps_scan : the methods, as they ran on one scan.
    versions : software by name.
    files : other files of the cohort: path relative to the page, and what they hold.
    newest : when the newest result was made.
    reference : what susceptibility is relative to.
    quality : what stages told of their results.
    hidden_regions : structures that the charts leave out.
    """

    title: str
    pipeline: str
    pipeline_summary: str
    counts: Mapping[str, int]
    scans: tuple[ScanLine, ...]
    participant_columns: tuple[str, ...] = ()
    value_columns: tuple[str, ...] = ()
    failures: tuple[Notice, ...] = ()
    warnings: tuple[Notice, ...] = ()
    charts: tuple[Chart, ...] = ()
    sources: tuple[Source, ...] = ()
    steps: tuple[StepLine, ...] = ()
    steps_scan: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    files: tuple[tuple[str, str], ...] = ()
    newest: str = ""
    reference: str = ""
    hidden_regions: int = 0
    quality: tuple[Quality, ...] = ()


def render(page: Page) -> bytes:
    """The page as one UTF-8 HTML file; its style is inside it, its pictures beside it."""
    environment = Environment(
        loader=PackageLoader("qsm_dask.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(duration=duration, size=size, decimals=decimals, words=words, listing=listing)
    return environment.get_template("index.html").render(page=page).encode()


def group(pairs: Iterable[tuple[str, str]]) -> tuple[Notice, ...]:
    """Notices from (text, scan) pairs: one a text, the one with most scans first.

    A text about the cohort has an empty scan. A scan's own name at the start of a text is
    dropped, so that the same failure of many scans is one notice.
    """
    found: dict[str, dict[str, None]] = {}
    for text, scan in pairs:
        scans = found.setdefault(text.removeprefix(f"{scan}: "), {})
        if scan:
            scans[scan] = None
    ordered = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
    return tuple(Notice(text, tuple(sorted(scans))) for text, scans in ordered)


def duration(seconds: float) -> str:
    """Seconds for people: `0.8 s`, `42 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(number: int) -> str:
    """Bytes for people: `512 MB`, `1.3 GB`."""
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"


def decimals(value: float, digits: int = 3) -> str:
    """A number with a true minus sign, none on zero; a dash where it is missing."""
    return signed(f"{round(value, digits) + 0.0:.{digits}f}") if math.isfinite(value) else "–"


def words(name: str) -> str:
    """A name without underscores."""
    return name.replace("_", " ")


def listing(items: Sequence[Any]) -> str:
    """`a, b and c`."""
    texts = [str(item) for item in items]
    return " and ".join([", ".join(texts[:-1]), texts[-1]]) if len(texts) > 1 else "".join(texts)
