"""The page of results, in Markdown: for the terminal and for docs."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from tests.benchmarks.accuracy.pictures import SCALES
from tests.benchmarks.accuracy.runs import SOURCES, STANDARD, Row, family_of
from tests.benchmarks.accuracy.verdicts import JUDGED, Verdict, values, worst

PLAIN = "heads without calcification"
FORWARD = "qsm-forward"

_TITLES: dict[str, tuple[str, Callable[[float], str]]] = {
    "nrmse": ("NRMSE %", "{:.1f}".format),
    "nrmse_core": ("core NRMSE %", "{:.1f}".format),
    "detrended": ("detrended %", "{:.1f}".format),
    "xsim": ("XSIM", "{:.3f}".format),
    "hfen": ("HFEN %", "{:.1f}".format),
    "slope": ("deep grey slope", "{:.3f}".format),
    "streak": ("streak", "{:.4f}".format),
    "correlation": ("r", "{:.3f}".format),
    "keeps": ("keeps %", "{:.1f}".format),
    "rmse_ppb": ("RMSE ppb", "{:.2f}".format),
    "wrong_turns": ("wrong turns %", "{:.3f}".format),
}

_CHI = ("nrmse", "detrended", "xsim", "hfen", "slope", "streak", "correlation", "keeps")
_LOCAL = ("nrmse", "detrended", "xsim", "hfen", "correlation", "keeps", "rmse_ppb")
_RATE = ("nrmse", "detrended", "slope", "correlation", "nrmse_core")
_SOURCE = ("nrmse", "detrended", "xsim", "hfen", "slope", "correlation", "rmse_ppb", "nrmse_core")


class _Table(NamedTuple):
    """What a table is of: rows of a mode, of one family or of all, about sources told apart or about all else."""

    title: str
    mode: str
    family: str
    measures: tuple[str, ...]
    sources: bool = False

    def holds(self, row: Row) -> bool:
        """Whether a row belongs there."""
        right = row.mode == self.mode and (not self.family or family_of(row.method) == self.family)
        return right and (row.quantity in SOURCES) == self.sources

    @property
    def picture(self) -> str:
        """The family of its tiles."""
        return self.family or ("" if self.sources else self.mode)


_TABLES = (
    _Table("Inversion, isolated", "isolated", "inversion", _CHI),
    _Table("Background removal, isolated", "isolated", "background", _LOCAL),
    _Table("Unwrapping, isolated", "isolated", "unwrap", ("nrmse", "wrong_turns")),
    _Table("Total field, isolated", "isolated", "field", ("nrmse", "rmse_ppb", "hfen", "correlation")),
    _Table("Relaxometry, isolated", "isolated", "relaxometry", _RATE),
    _Table("Source separation, isolated", "isolated", "separation", _SOURCE, sources=True),
    _Table("Composed", "composed", "", (*_CHI, "nrmse_core")),
    _Table("Source separation, composed", "composed", "", (*_SOURCE, "keeps"), sources=True),
    _Table("Shipped pipelines", "pipeline", "pipeline", (*_CHI, "nrmse_core")),
    _Table("Shipped pipelines that separate sources", "pipeline", "pipeline", (*_SOURCE, "keeps"), sources=True),
)

_TEXTS = {
    "Inversion, isolated": """\
From the true local field with the noise of the scan (single-step methods: from what they read), judged on the whole
mask. `inversion.two_pass` joins two maps of `inversion.rts`: one of the whole mask, one of the voxels that
`mask.field_quality` keeps and of the true field of what lies in them. What it gains is its distance from the row of
`inversion.rts`; it is made for voxels whose field is spoilt by more than noise, which these heads do not have.""",
    "Background removal, isolated": """\
From the true total field with the noise of the scan, judged on the core: the mask less 6 mm.""",
    "Unwrapping, isolated": """\
From the wrapped phase without its offset; the mean of each echo does not count. Laplacian unwrapping loses the
harmonic part by design.""",
    "Total field, isolated": "From truly unwrapped phase with the noise of the scan.",
    "Relaxometry, isolated": """\
From the magnitude (T2\\* and R2' from the R2\\* that `relaxometry.nonlinear` makes of it, R2' also from the R2 of spin
echoes of the same noise); the mean counts. True T2\\* is cut at the 0.5 s that are the most the method returns. The
signal of the cylinders of qsm-forward decays alike in all, without an R2' of their own.""",
    "Source separation, isolated": """\
Para- and diamagnetic sources from the true local field with the noise of the scan, R2\\* and R2' as above. The mean
counts: sources are no values relative to a reference. The phantom makes R2' by the constant that is the default of
`separation.r2prime`: the model of that method is exact here, as it is in nobody's head. R2\\* holds R2 too, which
`separation.r2star` takes for sources. The cylinders of qsm-forward all decay alike: nothing can be separated there.""",
    "Source separation, composed": """\
From wrapped phase, magnitude and R2 by the steps of the pipeline `separation` in front of the method, the true mask
given.""",
    "Shipped pipelines that separate sources": """\
From magnitude, wrapped phase and R2 alone; as above, the true mask is judged.""",
    "Composed": f"""\
From wrapped phase to susceptibility by the steps of `{STANDARD}`, one of which is exchanged for the method; for
`inversion.two_pass` by those of the pipeline `two-pass`, whose field is that of `field.linear_fit`. The true mask is
given, and judged whole; the last measure is of the core.""",
    "Shipped pipelines": """\
From magnitude and wrapped phase alone, as they are shipped: they find their own mask, which is narrower. The true mask
is judged whole; the last measure is of the core.""",
}


def page(rows: Sequence[Row], found: Sequence[Verdict], about: str, pictures: Mapping[str, str]) -> str:
    """The page.

    Parameters
    ----------
    rows : every run.
    found : the verdicts on them.
    about : what was run, one line.
    pictures : file names by family.
    """
    parts = [_HEAD, about, "", "## Bounds", "", *_verdicts(found)]
    for table in _TABLES:
        chosen = [row for row in rows if table.holds(row)]
        if any(row.figures for row in chosen):
            parts += ["", f"## {table.title}", "", _TEXTS[table.title], "", *_table(chosen, table)]
            picture = pictures.get(table.picture)
            if picture:
                parts += ["", _caption(table.picture), "", f"![{table.title}]({picture})"]
    failures = [row for row in rows if row.reason]
    if failures:
        parts += ["", "## Not run", ""]
        parts += _failures(failures)
    return "\n".join(parts) + "\n"


_HEAD = """# Accuracy

Written by `make accuracy`; do not edit. Every method of the stage table at its defaults, on scans whose truth is known,
nothing tuned to any of them.

- **Heads** are the project's own phantom: 3 T, five echoes, background sources of full strength (the total field is
  more than twenty times the local one). Its calcification of -1 ppm holds a fifth of the energy of the truth; the same
  heads are measured without it.
- **qsm-forward** is that package's forward model, noise and coil phase: cylinders of 5 to 500 ppb with a ball of air
  near them, axial at 1 mm and 3 T, and tilted by 32.5 degrees with voxels of 0.8 x 0.8 x 1.6 mm at 7 T.
- **Masks are fixed and lost voxels count as zero**: no method gains by keeping less. *keeps* is the share of the mask
  it gives a value to.
- The true input of a stage is the truth with the noise of the scan on it. Each figure is the mean over the cases, with
  the worst in brackets.
- NRMSE: norm of the error over that of the truth, both without their mean. Detrended: after the best line was divided
  out. XSIM: [doi:10.1002/mrm.30271](https://doi.org/10.1002/mrm.30271), cubes of 5 voxels, 1 is best. HFEN: NRMSE after
  a Laplacian of Gaussian of 1.5 voxels. Deep grey slope: of regional means over true means, 1 is best. Streak: what
  remains around the strongest source, relative to it
  ([doi:10.1002/mrm.28754](https://doi.org/10.1002/mrm.28754)). r: Pearson's correlation.
"""


def _verdicts(found: Sequence[Verdict]) -> list[str]:
    if not found:
        return ["No method with a bound was run."]
    lines = ["Isolated, calcified heads, the worst head.", "", "| | asked | measured | |", "|---|---|---|---|"]
    return lines + [
        f"| {one.bound} | {one.asked} | {one.measured} | {'pass' if one.met else '**miss**'} |" for one in found
    ]


def _failures(failures: Iterable[Row]) -> list[str]:
    """A line for each method and reason, with the cases in which it gave it."""
    where: dict[tuple[str, str], dict[str, None]] = {}
    for row in failures:
        where.setdefault((row.method, row.reason), {})[f"{row.group}, {row.mode}"] = None
    return [f"- `{method}`: {reason} ({'; '.join(places)})" for (method, reason), places in where.items()]


def _table(rows: Sequence[Row], table: _Table) -> list[str]:
    """The measures on calcified heads, and the error on the other groups, a line a method and quantity."""
    groups, measures = {row.group for row in rows if row.figures}, table.measures
    others = [group for group in (PLAIN, FORWARD) if group in groups and group != _main(groups)]
    titles = [_TITLES[measure][0] for measure in measures] + [f"NRMSE %, {group}" for group in others]
    lines = [f"| {_main(groups)} | " + " | ".join(titles) + " |", "|---|" + "---:|" * len(titles)]
    for method, quantity in dict.fromkeys((row.method, row.quantity) for row in rows if row.figures):
        about = [row for row in rows if row.quantity == quantity]
        cells = [_cell(about, _main(groups), table.mode, method, measure) for measure in measures]
        cells += [_cell(about, group, table.mode, method, "nrmse") for group in others]
        lines.append(f"| `{method}`{f' {quantity}' if table.sources else ''} | " + " | ".join(cells) + " |")
    return lines


def _main(groups: Iterable[str]) -> str:
    return JUDGED if JUDGED in groups else min(groups)


def _cell(rows: Sequence[Row], group: str, mode: str, method: str, measure: str) -> str:
    found = [value for value in values(rows, group, mode, method, measure) if not math.isnan(value)]
    if not found:
        return "–"
    show = _TITLES[measure][1]
    mean, extreme = show(sum(found) / len(found)), show(worst(measure, found))
    return mean if len(found) == 1 else f"{mean} ({extreme})"


def _caption(family: str) -> str:
    most, error, unit = SCALES[family]
    if not most:
        return f"Error of each, axial and coronal: black to white is ±{error:g} {unit}."
    return (
        f"Map (±{most:g} {unit}) and error (±{error:g} {unit}) of the first head, axial through the putamen and "
        "coronal through the calcification; black to white. In maps, lost voxels are black."
    )
