"""The report of a cohort: one page that opens from disk, and a picture a scan, each drawn by one task."""

import math
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from qsm_dask.cohort.participants import Participants, read
from qsm_dask.cohort.pictures import Drawing, beside_page, draw_scan, projected_memory
from qsm_dask.cohort.standing import STATES, Standing, standings
from qsm_dask.engine.base import Engine, SerialEngine
from qsm_dask.errors import StoreError
from qsm_dask.io.documents import json_bytes
from qsm_dask.io.tables import read_parquet, read_tsv
from qsm_dask.pipeline import Pipeline
from qsm_dask.quantities import NODES
from qsm_dask.report import assembly
from qsm_dask.report.pages import Page, Picture, ScanLine, group, render
from qsm_dask.store import CohortStore, Commit
from qsm_dask.store.documents import (
    DATASET,
    PICTURES,
    PIPELINE,
    REGIONS,
    REPORT,
    SCANS,
    WARNINGS,
    WIDE,
    WIDE_DICTIONARY,
    picture,
    read_json,
)

_TABLES = {
    REGIONS: "a row a value, for programs",
    WIDE: "a row a scan, joined with participants",
    WIDE_DICTIONARY: "what its columns are",
    SCANS: "every scan, and why it has no values",
}
_NO_LABELS = "No label image, so values of the whole brain only: name a folder with --derivatives DIR:dseg"
_OLD_TABLES = "The region tables are older than these results: run qsm-dask compare"


@dataclass
class _Gathered:
    """What the page needs of all scans, without their commits."""

    lines: list[ScanLine] = field(default_factory=list)
    drawings: list[Drawing] = field(default_factory=list)
    warnings: list[tuple[str, str]] = field(default_factory=list)
    sources: dict[str, Counter[str]] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    example: Standing | None = None
    figures: dict[str, dict[str, Mapping[str, float]]] = field(default_factory=dict)
    participant_columns: tuple[str, ...] = ()


def run(
    cohort: CohortStore,
    engine: Engine | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> str:
    """Draw the pictures that are missing or have changed, and write the page.

    Parameters
    ----------
    cohort : the store.
    engine : where pictures are drawn; in this process when None.
    progress : called with (pictures drawn, pictures to draw, the scan's name).

    Returns
    -------
    page : where `report/index.html` lies, in the folder or below the URL of the cohort.
    """
    found = _gather(cohort)
    pictures, troubles = _draw(cohort, found.drawings, engine or SerialEngine(sys.maxsize), progress)
    found.warnings += troubles
    page = _page(cohort, found, pictures)
    cohort.write_document(REPORT, render(page))
    return cohort.place.of(REPORT)


def copy(cohort: CohortStore, out: Path) -> Path:
    """Copy the page, its pictures and the tables that it links to a folder, where a browser can open it.

    Parameters
    ----------
    cohort : the store, whose page was written.
    out : folder; made if it is not there. What lies in it under the same names is replaced.

    Returns
    -------
    page : path of its `report/index.html`.

    Raises
    ------
    StoreError : the cohort has no page, or the store cannot be read.
    """
    pictures = [picture(scan) for scan in read_json(cohort, PICTURES) or ()]
    if cohort.read_document(REPORT) is None:
        raise StoreError(f"{cohort.place} has no report yet: run `qsm-dask report {cohort.place}`")
    for name in (*pictures, *_TABLES, REPORT):
        data = cohort.read_document(name)
        if data is not None:
            path = out / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return out / REPORT


def _draw(
    cohort: CohortStore,
    drawings: Sequence[Drawing],
    engine: Engine,
    progress: Callable[[int, int, str], None] | None,
) -> tuple[dict[str, Picture], list[tuple[str, str]]]:
    """Every scan's picture, drawn now or before; and why some have none."""
    before: dict[str, dict[str, Any]] = read_json(cohort, PICTURES) or {}
    known = {d.scan: before[d.scan] for d in drawings if before.get(d.scan, {}).get("token") == d.token}
    wanted = [drawing for drawing in drawings if drawing.scan not in known]
    troubles = []
    outcomes = engine.map(partial(draw_scan, cohort), wanted, memory=projected_memory)
    for count, outcome in enumerate(outcomes, start=1):
        drawing: Drawing = outcome.key
        if outcome.ok:
            known[drawing.scan] = outcome.value | {"token": drawing.token}
        else:
            troubles.append((f"No picture: {outcome.error}", drawing.scan))
        if progress is not None:
            progress(count, len(wanted), drawing.scan)
    cohort.write_document(PICTURES, json_bytes(dict(sorted(known.items()))))
    fields = tuple(Picture.__dataclass_fields__)
    return {scan: Picture(**{name: facts[name] for name in fields}) for scan, facts in known.items()}, troubles


def _gather(cohort: CohortStore) -> _Gathered:
    table = Participants(read(cohort)).unambiguous
    columns = assembly.person_columns(table)
    found = _Gathered(participant_columns=columns)
    people = assembly.person_cells(table, columns)
    for standing in standings(cohort, Pipeline.from_mapping):
        scan = str(standing.scan)
        found.lines.append(
            ScanLine(
                scan=scan,
                participant=people.get(standing.scan.subject, ("n/a",) * len(columns)),
                state=standing.state,
                reason=standing.reason.removeprefix(f"{scan}: "),
                seconds=sum(node.seconds for node in standing.nodes),
                peak_bytes=max(node.peak_bytes for node in standing.nodes),
                values=(),
                picture=None,
                notes=standing.left_out,
            )
        )
        found.warnings += [(warning, scan) for warning in standing.warnings]
        if standing.ingest is not None:
            _gather_ingested(found, standing, standing.ingest)
    return found


def _gather_ingested(found: _Gathered, standing: Standing, ingest: Commit) -> None:
    scan = str(standing.scan)
    if not {"dseg", "probseg"} & set(standing.sources) and not any("dseg" in name for name in standing.made):
        found.warnings.append((_NO_LABELS, scan))
    for name, source in standing.sources.items():
        found.sources.setdefault(name, Counter())[assembly.origin(source)] += 1
    done = {node.node: node for node in standing.nodes if node.state == "done"}
    for name, node in standing.made.items():
        if node in done:
            found.sources.setdefault(name, Counter())["computed"] += 1
    told = {stage: values for node in done.values() for stage, values in node.figures.items()}
    if told:
        found.figures[scan] = told
    if "regions" in done:
        found.digests[scan] = done["regions"].digest
    if found.example is None and standing.state == "done":
        found.example = standing
    found.drawings.append(Drawing.of(scan, ingest.attributes["geometry"], done))


def _page(cohort: CohortStore, found: _Gathered, pictures: Mapping[str, Picture]) -> Page:
    about = read_json(cohort, DATASET) or {}
    pipeline = read_json(cohort, PIPELINE) or {}
    table = _medians(cohort)
    values = {} if table is None else assembly.medians(table)
    charts, hidden = assembly.charts(values)
    chi = values.get("chi", {})
    structures = assembly.important({structure for structure, _ in chi}, assembly.COLUMNS)
    cells = assembly.value_cells(chi, structures)
    missing = tuple(tuple(math.nan for _ in cell) for cell in next(iter(cells.values()), ()))
    lines = [
        replace(line, values=cells.get(line.scan, missing), picture=pictures.get(line.scan)) for line in found.lines
    ]
    warnings = [*found.warnings, *_table_warnings(cohort, found.digests)]
    states = Counter(line.state for line in lines)
    steps, versions = _methods(cohort, found.example)
    return Page(
        title=str(about.get("name") or cohort.place.url.rpartition("/")[2]),
        pipeline=str(pipeline.get("name", "")),
        pipeline_summary=str(pipeline.get("summary", "")).strip(),
        counts={state: states[state] for state in reversed(STATES)},
        scans=tuple(lines),
        participant_columns=found.participant_columns,
        value_columns=structures,
        failures=group((line.reason, line.scan) for line in lines if line.state == "failed"),
        warnings=group(warnings),
        charts=charts,
        sources=assembly.sources(found.sources),
        steps=steps,
        steps_scan="" if found.example is None else str(found.example.scan),
        versions=versions,
        files=() if table is None else tuple((beside_page(name), about) for name, about in _TABLES.items()),
        newest=_newest(cohort),
        reference=_reference(table),
        hidden_regions=hidden,
        quality=assembly.quality(found.figures),
    )


def _medians(cohort: CohortStore) -> pd.DataFrame | None:
    document = cohort.read_document(REGIONS)
    if document is None:
        return None
    columns = ("scan", "map", "structure", "hemisphere", "value", "reference")
    return read_parquet(document, columns, [("statistic", "==", "median")])


def _reference(table: pd.DataFrame | None) -> str:
    """What chi is relative to, in words; empty where scans differ or nothing is known."""
    names = set() if table is None else set(table.loc[table["map"] == "chi", "reference"].dropna())
    if len(names) != 1:
        return ""
    name = str(names.pop())
    return {"whole_brain": "the mean over the mask", "not referenced": "no reference region"}.get(name, name)


def _table_warnings(cohort: CohortStore, digests: Mapping[str, str]) -> list[tuple[str, str]]:
    """What `compare` noted; and which results are newer than its tables."""
    document = cohort.read_document(SCANS)
    if document is None:
        return []
    table = read_tsv(document)
    told = dict(zip(table["scan"], table["digest"], strict=True))
    old = [(_OLD_TABLES, scan) for scan, digest in digests.items() if told.get(scan) != digest]
    return [*old, *((str(text), "") for text in read_json(cohort, WARNINGS) or ())]


def _methods(cohort: CohortStore, example: Standing | None) -> tuple[tuple[Any, ...], dict[str, str]]:
    """The steps and the software of a scan that is done."""
    if example is None:
        return (), {}
    steps: list[Mapping[str, Any]] = []
    software: dict[str, str] = {}
    for node in NODES:
        try:
            commit = example.commit(cohort, node)
        except StoreError:
            continue
        if commit is not None:
            steps += commit.provenance.get("steps", [])
            software |= commit.provenance.get("software", {})
    return assembly.step_lines(steps), software


def _newest(cohort: CohortStore) -> str:
    times = cohort.index()["time"].dropna()
    return "" if times.empty else f"{times.max():%Y-%m-%d %H:%M} UTC"
