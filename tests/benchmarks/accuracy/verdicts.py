"""What the methods must reach, and whether they do."""

import inspect
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from qsm_dask.stages import STAGES
from tests.benchmarks.accuracy.runs import Row, family_of

JUDGED = "calcified heads"

BOUNDS: dict[str, tuple[float, float | None]] = {
    "inversion.tkd": (36.0, 95.0),
    "inversion.tv": (22.0, 95.0),
    "inversion.rts": (28.0, 95.0),
    "inversion.fansi": (24.0, 95.0),
    "inversion.medi": (30.0, 95.0),
    "inversion.ndi": (34.0, 95.0),
    "inversion.ilsqr": (36.0, 95.0),
    "background.vsharp": (25.0, 90.0),
    "background.pdf": (25.0, 85.0),
    "background.lbv": (18.0, 85.0),
    "background.ismv": (28.0, None),
    "background.resharp": (32.0, None),
}
"""By method: the largest error [% NRMSE], and the least share of the mask it keeps [%]."""

BEST_BACKGROUND = (14.0, 85.0)
SMALLER_IS_BETTER = ("nrmse", "nrmse_core", "detrended", "hfen", "streak", "rmse_ppb", "wrong_turns")
SAYS_SO = ("deep grey", "`tkd`")
"""What the description of a method names that is less linear there than TKD."""


@dataclass(frozen=True)
class Verdict:
    """One bound.

    Attributes
    ----------
    bound : what is asked; measured : what was found, the worst head; met : whether it holds.
    """

    bound: str
    asked: str
    measured: str
    met: bool

    def plain(self) -> dict[str, Any]:
        """Values for JSON."""
        return asdict(self)


def values(rows: Iterable[Row], group: str, mode: str, method: str, measure: str) -> list[float]:
    """A measure on every case of a group."""
    return [
        row.figures[measure]
        for row in rows
        if (row.group, row.mode, row.method) == (group, mode, method) and measure in row.figures
    ]


def worst(measure: str, found: Sequence[float]) -> float:
    """The least favourable of some values; a slope's is the farthest from 1."""
    if measure == "slope":
        return max(found, key=lambda value: abs(1.0 - value))
    return max(found) if measure in SMALLER_IS_BETTER else min(found)


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """Every bound on methods that were run, by the worst head; a method that failed misses its bound."""
    tried = {row.method for row in rows if row.group == JUDGED and row.mode == "isolated"}
    found = [_bound(rows, method, *BOUNDS[method]) for method in BOUNDS if method in tried]
    if any(family_of(method) == "background" for method in tried):
        found.append(_best(rows, sorted(tried)))
    if "inversion.tkd" in tried:
        found += _linear(rows, sorted(tried))
    return found


def _bound(rows: Sequence[Row], method: str, most: float, least: float | None) -> Verdict:
    asked = f"at most {most:g} %" + (f", keeps {least:g} %" if least else "")
    reached = _worst_of(rows, method)
    if reached is None:
        return Verdict(method, asked, "failed", met=False)
    error, kept = reached
    return Verdict(
        method, asked, f"{error:.1f} %, keeps {kept:.1f} %", met=error <= most and (least is None or kept >= least)
    )


def _best(rows: Sequence[Row], tried: Sequence[str]) -> Verdict:
    most, least = BEST_BACKGROUND
    reached = {method: _worst_of(rows, method) for method in tried if family_of(method) == "background"}
    enough = {method: pair[0] for method, pair in reached.items() if pair is not None and pair[1] >= least}
    asked = f"at most {most:g} %, keeps {least:g} %"
    if not enough:
        return Verdict("the best background method", asked, "none keeps enough", met=False)
    best = min(enough, key=lambda method: enough[method])
    return Verdict("the best background method", asked, f"{enough[best]:.1f} % ({best})", met=enough[best] <= most)


def _linear(rows: Sequence[Row], tried: Sequence[str]) -> list[Verdict]:
    """No inversion's slope in deep grey matter is farther from 1 than TKD's, or its description says so."""
    slopes = {method: values(rows, JUDGED, "isolated", method, "slope") for method in tried}
    away = {method: abs(1.0 - sum(found) / len(found)) for method, found in slopes.items() if found}
    limit = away.get("inversion.tkd", math.inf)
    return [
        Verdict(
            f"{method}: deep grey slope no worse than TKD's, or its description says so",
            f"off 1 by at most {limit:.3f}",
            f"off by {off:.3f}" + (", said" if _said(method) else ""),
            met=_said(method),
        )
        for method, off in away.items()
        if off > limit
    ]


def _said(method: str) -> bool:
    words = " ".join((inspect.getdoc(STAGES[method].kernel) or "").split())
    return all(word in words for word in SAYS_SO)


def _worst_of(rows: Sequence[Row], method: str) -> tuple[float, float] | None:
    errors = values(rows, JUDGED, "isolated", method, "nrmse")
    heads = sum((row.group, row.mode, row.method) == (JUDGED, "isolated", method) for row in rows)
    if not errors or len(errors) < heads:
        return None
    return max(errors), min(values(rows, JUDGED, "isolated", method, "keeps"))
