"""From tables to what the cohort page shows: which regions, which columns, which words."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from qsm_dask.quantities import QUANTITIES, base_name, quantity
from qsm_dask.regions import Side
from qsm_dask.report.charts import Chart, Value, strip_plot
from qsm_dask.report.pages import Quality, Source, StepLine

CHARTED = 20
"""Structures in a chart; more are in the tables."""

COLUMNS = 6
"""Structures in the table of scans."""

_PREFERRED = ("caudate", "putamen", "pallid", "red_nucleus", "nigra", "dentate", "thalam", "accumbens")
_PERSON = ("age", "sex", "group", "diagnosis", "site", "scanner")
_PERSON_COLUMNS = 5
_TITLES = {
    "chi": "Median susceptibility",
    "r2star": "Median R2*",
    "r2prime": "Median R2'",
    "chi_para": "Median paramagnetic susceptibility",
    "chi_dia": "Median diamagnetic susceptibility",
}
_SIDES: tuple[Side, ...] = ("left", "right", "")


def medians(table: pd.DataFrame) -> dict[str, dict[tuple[str, Side], list[Value]]]:
    """Values by map, structure and side.

    Parameters
    ----------
    table : rows of the long region table whose statistic is the median.
    """
    found: dict[str, dict[tuple[str, Side], list[Value]]] = {}
    columns = ("scan", "map", "structure", "hemisphere", "value")
    for scan, map_name, structure, side, value in table[list(columns)].itertuples(index=False):
        key: tuple[str, Side] = (str(structure), side if side in ("left", "right") else "")
        found.setdefault(str(map_name), {}).setdefault(key, []).append(Value(str(scan), float(value)))
    return found


def important(structures: Iterable[str], limit: int) -> tuple[str, ...]:
    """At most `limit` structures: deep grey nuclei first, then by name; the whole brain only if there is room."""

    def rank(name: str) -> tuple[bool, int, str]:
        place = next((n for n, known in enumerate(_PREFERRED) if known in name), len(_PREFERRED))
        return name == "whole_brain", place, name

    return tuple(sorted(set(structures), key=rank)[:limit])


def charts(values: Mapping[str, Mapping[tuple[str, Side], Sequence[Value]]]) -> tuple[tuple[Chart, ...], int]:
    """A strip plot a map, and how many structures they leave out."""
    structures = {structure for found in values.values() for structure, _ in found}
    shown = important(structures, CHARTED)
    drawn = []
    for name, found in sorted(values.items()):
        chosen = {key: each for key, each in found.items() if key[0] in shown}
        chart = strip_plot(_TITLES.get(name, name), quantity(name).units, chosen)
        if chart is not None:
            drawn.append(chart)
    return tuple(drawn), len(structures) - len(shown)


def value_cells(
    chi: Mapping[tuple[str, Side], Sequence[Value]], structures: Sequence[str]
) -> dict[str, tuple[tuple[float, ...], ...]]:
    """Per scan, the cells of the table: for each structure its left and right values, or its only one."""
    sides = {structure: [side for side in _SIDES if (structure, side) in chi] for structure in structures}
    cells: dict[str, dict[tuple[str, Side], float]] = {}
    for key, found in chi.items():
        if key[0] in sides:
            for value in found:
                cells.setdefault(value.scan, {})[key] = value.value
    return {
        scan: tuple(tuple(given.get((s, side), math.nan) for side in sides[s]) for s in structures)
        for scan, given in cells.items()
    }


def person_columns(table: pd.DataFrame | None) -> tuple[str, ...]:
    """The columns of participants.tsv that the page shows: the common ones first, none that are empty."""
    if table is None:
        return ()
    names = [str(name) for name in table.columns if name != "participant_id" and table[name].notna().any()]
    ordered = sorted(names, key=lambda name: _PERSON.index(name.lower()) if name.lower() in _PERSON else len(_PERSON))
    return tuple(ordered[:_PERSON_COLUMNS])


def person_cells(table: pd.DataFrame | None, columns: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Per participant the texts of `columns`."""
    if table is None:
        return {}
    rows = zip(table["participant_id"].astype(str), table[list(columns)].itertuples(index=False), strict=True)
    return {subject: tuple(_text(value) for value in row) for subject, row in rows}


def _text(value: Any) -> str:
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return "n/a"
    return f"{value:g}" if isinstance(value, float) else str(value)


def sources(found: Mapping[str, Counter[str]]) -> tuple[Source, ...]:
    """Lines of the table of sources, in the order of `quantities.QUANTITIES`."""
    order = list(QUANTITIES)
    lines = []
    for name, origins in sorted(found.items(), key=lambda item: (order.index(base_name(item[0])), item[0])):
        known = quantity(name)
        ordered = sorted(origins.items(), key=lambda item: (-item[1], item[0]))
        lines.append(Source(name, known.meaning, known.units, tuple(ordered)))
    return tuple(lines)


def origin(source: Mapping[str, Any]) -> str:
    """Where a quantity was read from, in words that many scans share."""
    if source["from"] == "raw":
        how = source.get("key") or (f"{source['coils']} coils" if "coils" in source else "")
        return f"raw data ({how})" if how else "raw data"
    files = source.get("files", ())
    folder = str(files[0]).partition("/sub-")[0] if files and "/sub-" in str(files[0]) else ""
    return folder or str(source["from"])


def step_lines(steps: Iterable[Mapping[str, Any]]) -> tuple[StepLine, ...]:
    """The steps of a provenance, for people."""
    return tuple(
        StepLine(
            str(step["stage"]),
            ", ".join(f"{name} {_plain(value)}" for name, value in step.get("parameters", {}).items()),
            str(step.get("cite", "")),
        )
        for step in steps
    )


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(_plain(item) for item in value)
    if isinstance(value, float):
        return f"{value:g}"
    return "–" if value is None else str(value)


def quality(figures: Mapping[str, Mapping[str, Mapping[str, float]]]) -> tuple[Quality, ...]:
    """Tables of what stages told of their results.

    Parameters
    ----------
    figures : value by scan, stage and figure.
    """
    columns: dict[str, dict[str, None]] = {}
    for stages in figures.values():
        for stage, values in stages.items():
            columns.setdefault(stage, {}).update(dict.fromkeys(values))
    return tuple(
        Quality(
            stage,
            tuple(names),
            tuple(
                (scan, tuple(float(stages[stage].get(name, math.nan)) for name in names))
                for scan, stages in sorted(figures.items())
                if stage in stages
            ),
        )
        for stage, names in columns.items()
    )
