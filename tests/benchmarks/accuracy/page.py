"""The page of results, in Markdown: for the terminal and for docs."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from tests.benchmarks.accuracy.pictures import SCALES
from tests.benchmarks.accuracy.runs import STANDARD, Row, family_of
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
_TABLES: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("Inversion, isolated", "isolated", "inversion", _CHI),
    ("Background removal, isolated", "isolated", "background", _LOCAL),
    ("Unwrapping, isolated", "isolated", "unwrap", ("nrmse", "wrong_turns")),
    ("Total field, isolated", "isolated", "field", ("nrmse", "rmse_ppb", "hfen", "correlation")),
    ("Relaxometry, isolated", "isolated", "relaxometry", ("nrmse", "detrended", "correlation")),
    ("Composed", "composed", "", (*_CHI, "nrmse_core")),
    ("Shipped pipelines", "pipeline", "pipeline", (*_CHI, "nrmse_core")),
)

_TEXTS = {
    "Inversion, isolated": """\
From the true local field with the noise of the scan (single-step methods: from what they read), judged on the whole
mask.""",
    "Background removal, isolated": """\
From the true total field with the noise of the scan, judged on the core: the mask less 6 mm.""",
    "Unwrapping, isolated": """\
From the wrapped phase without its offset; the mean of each echo does not count. Laplacian unwrapping loses the
harmonic part by design.""",
    "Total field, isolated": "From truly unwrapped phase with the noise of the scan.",
    "Relaxometry, isolated": "From the magnitude (T2\\* from the true R2\\*); the mean counts.",
    "Composed": f"""\
From wrapped phase to susceptibility by the steps of `{STANDARD}`, one of which is exchanged for the method. The true
mask is given, and judged whole; the last measure is of the core.""",
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
    for title, mode, family, measures in _TABLES:
        chosen = _methods(rows, mode, family)
        if chosen:
            parts += ["", f"## {title}", "", _TEXTS[title], "", *_table(rows, mode, chosen, measures)]
            picture = pictures.get(family or mode)
            if picture:
                parts += ["", _caption(family or mode), "", f"![{title}]({picture})"]
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


def _methods(rows: Iterable[Row], mode: str, family: str) -> list[str]:
    """The methods of a family with figures in a mode."""
    chosen = [row for row in rows if row.mode == mode and (not family or family_of(row.method) == family)]
    return list(dict.fromkeys(row.method for row in chosen if row.figures))


def _failures(failures: Iterable[Row]) -> list[str]:
    """A line for each method and reason, with the cases in which it gave it."""
    where: dict[tuple[str, str], dict[str, None]] = {}
    for row in failures:
        where.setdefault((row.method, row.reason), {})[f"{row.group}, {row.mode}"] = None
    return [f"- `{method}`: {reason} ({'; '.join(places)})" for (method, reason), places in where.items()]


def _table(rows: Sequence[Row], mode: str, methods: Sequence[str], measures: Sequence[str]) -> list[str]:
    """The measures on calcified heads, and the error on the other groups."""
    groups = {row.group for row in rows}
    others = [group for group in (PLAIN, FORWARD) if group in groups and group != _main(groups)]
    titles = [_TITLES[measure][0] for measure in measures] + [f"NRMSE %, {group}" for group in others]
    lines = [f"| {_main(groups)} | " + " | ".join(titles) + " |", "|---|" + "---:|" * len(titles)]
    for method in methods:
        cells = [_cell(rows, _main(groups), mode, method, measure) for measure in measures]
        cells += [_cell(rows, group, mode, method, "nrmse") for group in others]
        lines.append(f"| `{method}` | " + " | ".join(cells) + " |")
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
