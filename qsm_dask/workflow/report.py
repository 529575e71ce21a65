"""The report of a cohort: one page that opens from disk, and a picture a scan.

report/index.html         the page
report/scans/<scan>.png   its pictures, each drawn by one task
report/pictures.json      what each picture shows, so that it is drawn again only when that changed
"""

import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from qsm_dask.engine.base import Engine, SerialEngine
from qsm_dask.errors import StoreError
from qsm_dask.io.tables import read_parquet, read_tsv
from qsm_dask.pipeline import Pipeline
from qsm_dask.quantities import NODES
from qsm_dask.report import assembly
from qsm_dask.report.figures import Layer, mosaic, size_of
from qsm_dask.report.pages import Page, Picture, ScanLine, group, render
from qsm_dask.report.planes import Orientation
from qsm_dask.scan import ScanKey
from qsm_dask.standing import STATES, Standing, standings
from qsm_dask.store import PIPELINE, CohortStore, Commit

PAGE = "report/index.html"
PICTURES = "report/pictures.json"
DRAWING = 1
"""Raised when pictures change, so that they are drawn again."""

_TABLES = {
    "../tables/regions.parquet": "a row a value, for programs",
    "../tables/regions.tsv": "a row a scan, joined with participants",
    "../tables/regions.json": "what its columns are",
    "../tables/scans.tsv": "every scan, and why it has no values",
}
_NO_LABELS = "No label image, so values of the whole brain only: name a folder with --derivatives DIR:dseg"
_OLD_TABLES = "The region tables are older than these results: run qsm-dask compare"


@dataclass(frozen=True)
class Drawing:
    """What one task draws: a scan and the commits that its picture shows.

    Attributes
    ----------
    scan : its name.
    keys : node -> key of its commit.
    token : tells this picture from one of other results.
    voxels : of one volume.
    """

    scan: str
    keys: Mapping[str, str]
    token: str
    voxels: int

    def __str__(self) -> str:
        return self.scan


@dataclass
class _Gathered:
    """What the page needs of all scans, without their commits."""

    lines: list[ScanLine] = field(default_factory=list)
    drawings: list[Drawing] = field(default_factory=list)
    warnings: list[tuple[str, str]] = field(default_factory=list)
    sources: dict[str, Counter[str]] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    example: Standing | None = None


def run(
    cohort: CohortStore,
    engine: Engine | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Path:
    """Draw the pictures that are missing or have changed, and write the page.

    Parameters
    ----------
    cohort : the store.
    engine : where pictures are drawn; in this process when None.
    progress : called with (pictures drawn, pictures to draw, the scan's name).

    Returns
    -------
    page : path of `report/index.html`.
    """
    found = _gather(cohort)
    pictures, troubles = _draw(cohort, found.drawings, engine or SerialEngine(sys.maxsize), progress)
    found.warnings += troubles
    page = _page(cohort, found, pictures)
    cohort.write_document(PAGE, render(page))
    return cohort.path / PAGE


def draw_scan(path: str, drawing: Drawing) -> dict[str, Any]:
    """Draw the mosaic of one scan and write it beside the page; the task that workers execute.

    Returns
    -------
    picture : the fields of its `Picture`.
    """
    cohort = CohortStore.open(path)
    scan = ScanKey.parse(drawing.scan)
    commits = [commit for node, key in drawing.keys.items() if (commit := cohort.commit(scan, node, key)) is not None]
    ingested = commits[0].attributes
    header = ingested["header"]
    newest = {name: commit for commit in commits for name in commit.arrays}
    mask = _volume(cohort, newest, "mask")
    layers = list(_layers(cohort, newest, mask, float(header["b0"])))
    everything = np.ones(ingested["geometry"]["shape"], dtype=np.bool_)
    png = mosaic(layers, everything if mask is None else mask, header["affine"])
    name = f"scans/{drawing.scan}.png"
    cohort.write_document(f"report/{name}", png)
    width, height = size_of(png)
    titles = tuple(" ".join(layer.title.split()) for layer in layers)
    return asdict(Picture(name, width, height, titles, round(Orientation.of(header["affine"]).tilt, 1)))


def _volume(cohort: CohortStore, newest: Mapping[str, Commit], name: str) -> NDArray[Any] | None:
    return cohort.read(newest[name], (name,))[name] if name in newest else None


def _layers(cohort: CohortStore, newest: Mapping[str, Commit], mask: NDArray[Any] | None, b0: float) -> Iterator[Layer]:
    windows = {
        "chi": ("Susceptibility", "ppm", -0.1, 0.2),
        "chi_para": ("Paramagnetic", "ppm", 0.0, 0.15),
        "chi_dia": ("Diamagnetic", "ppm", -0.15, 0.0),
        "swi": ("Susceptibility\nweighted", "", 0.0, 1.5),
        "local_field": ("Local field", "ppm", -0.1, 0.1),
        # relaxation by iron grows with the field strength, and so does the window
        "r2star": ("R2*", "1/s", 0.0, float(round(20.0 * b0, -1))),
    }
    for name, window in windows.items():
        values = _volume(cohort, newest, name)
        if values is not None:
            yield Layer(*window, values)
    if "magnitude" in newest:
        first = cohort.read_rows(newest["magnitude"], "magnitude", slice(0, 1))[0]
        inside = first[mask] if mask is not None and mask.any() else first
        yield Layer("Magnitude,\nfirst echo", "", 0.0, float(np.percentile(inside, 99.5)) or 1.0, first, contour=True)


def _draw(
    cohort: CohortStore,
    drawings: Sequence[Drawing],
    engine: Engine,
    progress: Callable[[int, int, str], None] | None,
) -> tuple[dict[str, Picture], list[tuple[str, str]]]:
    """Every scan's picture, drawn now or before; and why some have none."""
    document = cohort.read_document(PICTURES)
    before: dict[str, dict[str, Any]] = {} if document is None else json.loads(document)
    known = {d.scan: before[d.scan] for d in drawings if before.get(d.scan, {}).get("token") == d.token}
    wanted = [drawing for drawing in drawings if drawing.scan not in known]
    troubles = []
    outcomes = engine.map(partial(draw_scan, str(cohort.path)), wanted, memory=_projected)
    for count, outcome in enumerate(outcomes, start=1):
        drawing: Drawing = outcome.key
        if outcome.ok:
            known[drawing.scan] = outcome.value | {"token": drawing.token}
        else:
            troubles.append((f"No picture: {outcome.error}", drawing.scan))
        if progress is not None:
            progress(count, len(wanted), drawing.scan)
    cohort.write_document(PICTURES, json.dumps(known, sort_keys=True, indent=1).encode())
    fields = tuple(Picture.__dataclass_fields__)
    return {scan: Picture(**{name: facts[name] for name in fields}) for scan, facts in known.items()}, troubles


def _projected(drawing: Drawing) -> int:
    """Four maps, a mask and what turns them into pixels [bytes]."""
    return 20 * drawing.voxels + 100_000_000


def _gather(cohort: CohortStore) -> _Gathered:
    found = _Gathered()
    table = _participants(cohort)
    columns = assembly.person_columns(table)
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
    if "dseg" not in standing.sources and not any("dseg" in name for name in standing.made):
        found.warnings.append((_NO_LABELS, scan))
    for name, source in standing.sources.items():
        found.sources.setdefault(name, Counter())[assembly.origin(source)] += 1
    done = {node.node: node for node in standing.nodes if node.state == "done"}
    for name, node in standing.made.items():
        if node in done:
            found.sources.setdefault(name, Counter())["computed"] += 1
    if "regions" in done:
        found.digests[scan] = done["regions"].digest
    if found.example is None and standing.state == "done":
        found.example = standing
    shown = {name: done[name] for name in NODES[:3] if name in done}
    token = json.dumps([DRAWING, [node.digest for node in shown.values()]])
    shape = ingest.attributes["geometry"]["shape"]
    keys = {name: node.key for name, node in shown.items()}
    found.drawings.append(Drawing(scan, keys, token, math.prod(shape)))


def _page(cohort: CohortStore, found: _Gathered, pictures: Mapping[str, Picture]) -> Page:
    about = _json(cohort, "dataset.json")
    pipeline = _json(cohort, PIPELINE)
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
        title=str(about.get("name") or cohort.path.name),
        pipeline=str(pipeline.get("name", "")),
        pipeline_summary=str(pipeline.get("summary", "")).strip(),
        counts={state: states[state] for state in reversed(STATES)},
        scans=tuple(lines),
        participant_columns=assembly.person_columns(_participants(cohort)),
        value_columns=structures,
        failures=group((line.reason, line.scan) for line in lines if line.state == "failed"),
        warnings=group(warnings),
        charts=charts,
        sources=assembly.sources(found.sources),
        steps=steps,
        steps_scan="" if found.example is None else str(found.example.scan),
        versions=versions,
        files=() if table is None else tuple(_TABLES.items()),
        newest=_newest(cohort),
        reference=_reference(table),
        hidden_regions=hidden,
    )


def _json(cohort: CohortStore, name: str) -> dict[str, Any]:
    document = cohort.read_document(name)
    return {} if document is None else dict(json.loads(document))


def _participants(cohort: CohortStore) -> pd.DataFrame | None:
    document = cohort.read_document("participants.parquet")
    return None if document is None else read_parquet(document).drop_duplicates("participant_id")


def _medians(cohort: CohortStore) -> pd.DataFrame | None:
    document = cohort.read_document("tables/regions.parquet")
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
    document = cohort.read_document("tables/scans.tsv")
    if document is None:
        return []
    table = read_tsv(document)
    told = dict(zip(table["scan"], table["digest"], strict=True))
    old = [(_OLD_TABLES, scan) for scan, digest in digests.items() if told.get(scan) != digest]
    notes = cohort.read_document("tables/warnings.json")
    return [*old, *((str(text), "") for text in json.loads(notes or b"[]"))]


def _methods(cohort: CohortStore, example: Standing | None) -> tuple[tuple[Any, ...], dict[str, str]]:
    """The steps and the software of a scan that is done."""
    if example is None:
        return (), {}
    steps: list[Mapping[str, Any]] = []
    software: dict[str, str] = {}
    for node in NODES[1:]:
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
