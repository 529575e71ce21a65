"""The region tables of a cohort: long for programs, wide for people, and a dictionary of their columns.

Which there are, `store.documents` tells. Scans are read one at a time, so ten thousand fit;
rows are sorted, and the same cohort gives the same bytes.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from qsm_dask.cohort.participants import Participants, read
from qsm_dask.cohort.standing import Standing, standings
from qsm_dask.cohort.values import Values, read_values
from qsm_dask.dictionary import CANDIDATE_COLUMNS, CSF_MOMENTS, MOMENTS, describe, describe_value, unit_of
from qsm_dask.errors import ConfigError, StoreError
from qsm_dask.io.documents import json_bytes
from qsm_dask.io.tables import parquet_bytes, tsv_bytes
from qsm_dask.pipeline import Pipeline
from qsm_dask.quantities import COORDINATES
from qsm_dask.references import COUNTS, WHOLE, parts
from qsm_dask.regions import column_name, split_side
from qsm_dask.store import CohortStore
from qsm_dask.store.documents import (
    CANDIDATES,
    CANDIDATES_DICTIONARY,
    REGIONS,
    SCANS,
    SCANS_DICTIONARY,
    WARNINGS,
    WIDE,
    WIDE_DICTIONARY,
)

_TEXTS = ("scan", "participant_id", "session_id", "map", "region", "structure", "hemisphere")
_LONG_COLUMNS = (*_TEXTS, "label", "statistic", "value", "unit", "reference")
_TYPES = {"label": pa.int64(), "value": pa.float64()}
_KEYS = ("scan", "participant_id", "session_id")
_SCAN_COLUMNS = (*_KEYS, "state", "regions", "participant", "digest", "reason")
_BATCH = 64

USUAL = ("n", "volume_mm3", "coverage", "mean", "sd", "median", "mad", "p05", "p25", "p75", "p95")
"""Statistics that are columns of the wide table unless others are asked for; the long table has all."""


@dataclass(frozen=True)
class Summary:
    """What a run of `compare` found.

    Attributes
    ----------
    scans : scans of the cohort.
    with_values : those with region values.
    without : reason by scan, of the others.
    damaged : reason by scan, of those among them that are done but whose result cannot be read.
    warnings : participants and regions that do not match.
    tables : documents written.
    """

    scans: int
    with_values: int
    without: dict[str, str]
    damaged: dict[str, str]
    warnings: tuple[str, ...]
    tables: tuple[str, ...]


@dataclass
class _Wide:
    """The wide table as it grows: a few numbers a scan and one list of columns."""

    statistics: tuple[str, ...] = USUAL
    columns: dict[tuple[str, str, str], int] = field(default_factory=dict)
    labels: dict[str, set[int]] = field(default_factory=dict)
    rows: list[tuple[tuple[Any, ...], NDArray[np.int32], NDArray[np.float64]]] = field(default_factory=list)

    def add(self, lead: tuple[Any, ...], values: Values) -> None:
        endings = _endings(values)
        for ending, label in zip(endings, values.labels, strict=True):
            self.labels.setdefault(ending, set()).add(label)
        keys = [(m, ending, s) for m in values.maps for ending in endings for s in self.statistics]
        places = [self.columns.setdefault(key, len(self.columns)) for key in keys]
        chosen = values.array[..., [COORDINATES["statistic"].index(name) for name in self.statistics]]
        self.rows.append((lead, np.array(places, np.int32), chosen.ravel()))

    def order(self) -> list[tuple[str, str, str]]:
        """Columns by map, region (the whole brain first) and statistic."""
        maps, statistics = COORDINATES["map"], COORDINATES["statistic"]
        return sorted(
            self.columns, key=lambda key: (maps.index(key[0]), key[1] != WHOLE, key[1], statistics.index(key[2]))
        )

    def lines(self) -> Iterator[list[Any]]:
        """The rows of the table."""
        order = self.order()
        take = np.array([self.columns[key] for key in order], np.intp)
        counts = np.array([key[2] in ("n", "core_n") for key in order], bool)
        full = np.empty(len(order))
        for lead, places, values in self.rows:
            full.fill(np.nan)
            full[places] = values
            cells = full[take].tolist()
            whole = counts & np.isfinite(full[take])
            yield [*lead, *(int(cell) if n else cell for cell, n in zip(cells, whole, strict=True))]


def run(
    cohort: CohortStore,
    *,
    reference: str | None = None,
    statistics: Sequence[str] = (),
    progress: Callable[[int, int, str], None] | None = None,
) -> Summary:
    """Write the region tables of every scan that is done.

    Parameters
    ----------
    cohort : the store.
    reference : what chi shall be relative to: `csf`, `whole_brain`, a region, or several joined by `+`; what the
        pipeline chose if not given. A scan that lacks it has no chi.
    statistics : those that are columns of the wide table; `USUAL` if none is given, all if `all` is.
    progress : called with (scans read, scans in all, the scan's name).

    Raises
    ------
    ConfigError : there is no such reference or statistic.
    StoreError : a table cannot be written.
    """
    fixed = (*_KEYS, "chi_reference", *MOMENTS, *CSF_MOMENTS)
    participants = Participants(read(cohort), fixed)
    tables = _Tables(cohort, participants, _checked(cohort, reference), _wanted(statistics), progress)
    cohort.write_document(REGIONS, parquet_bytes(tables.batches(), _schema()))
    wide = tables.wide
    lead = (*_KEYS, *participants.columns, "chi_reference", *MOMENTS, *CSF_MOMENTS)
    names = [f"{m}_{statistic}_{ending}" for m, ending, statistic in wide.order()]
    warnings = (*participants.warnings(), *_lacking(wide), *tables.unreferred())
    cohort.write_document(WIDE, tsv_bytes([*lead, *names], wide.lines()))
    cohort.write_document(WIDE_DICTIONARY, json_bytes(_wide_dictionary(participants, wide)))
    cohort.write_document(SCANS, tsv_bytes(_SCAN_COLUMNS, tables.scans))
    cohort.write_document(SCANS_DICTIONARY, json_bytes({column: describe(column) for column in _SCAN_COLUMNS}))
    cohort.write_document(WARNINGS, json_bytes(list(warnings)))
    written: tuple[str, ...] = (REGIONS, WIDE, WIDE_DICTIONARY, SCANS, SCANS_DICTIONARY, WARNINGS)
    if tables.searched:
        columns = {**{name: describe(name) for name in _KEYS}, **CANDIDATE_COLUMNS}
        cohort.write_document(CANDIDATES, tsv_bytes(tuple(columns), tables.candidates))
        cohort.write_document(CANDIDATES_DICTIONARY, json_bytes(columns))
        written = (*written, CANDIDATES, CANDIDATES_DICTIONARY)
    return Summary(len(tables.scans), len(wide.rows), tables.without, tables.damaged, warnings, written)


def _checked(cohort: CohortStore, reference: str | None) -> tuple[str, ...]:
    """The regions that a reference is made of; none for that of the pipeline."""
    if reference is None:
        return ()
    try:
        return parts(reference, cohort.dataset()["region"].values.tolist())
    except ValueError as error:
        raise ConfigError(f"{cohort.place}: {error}") from None


def _wanted(statistics: Sequence[str]) -> tuple[str, ...]:
    known = COORDINATES["statistic"]
    for name in statistics:
        if name not in (*known, "all"):
            raise ConfigError(f"no statistic {name!r}; there are {', '.join(known)}, and `all`")
    if "all" in statistics:
        return known
    return tuple(dict.fromkeys(statistics)) or USUAL


class _Tables:
    """One pass over the scans, from which all tables are made."""

    def __init__(
        self,
        cohort: CohortStore,
        participants: Participants,
        reference: tuple[str, ...],
        statistics: tuple[str, ...],
        progress: Callable[[int, int, str], None] | None,
    ) -> None:
        self._cohort = cohort
        self._participants = participants
        self._reference = reference
        self._progress = progress
        self._unreferred: list[str] = []
        self.wide = _Wide(statistics)
        self.candidates: list[tuple[Any, ...]] = []
        self.searched = 0
        self.scans: list[tuple[Any, ...]] = []
        self.without: dict[str, str] = {}
        self.damaged: dict[str, str] = {}

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows of the long table, `_BATCH` scans at a time; the other tables fill meanwhile."""
        total = len(self._cohort.scans())
        columns: dict[str, list[Any]] = {name: [] for name in _LONG_COLUMNS}
        for count, standing in enumerate(standings(self._cohort, Pipeline.from_mapping), start=1):
            self._add(standing, columns)
            if count % _BATCH == 0:
                yield pa.record_batch(columns, schema=_schema())
                columns = {name: [] for name in _LONG_COLUMNS}
            if self._progress is not None:
                self._progress(count, total, str(standing.scan))
        yield pa.record_batch(columns, schema=_schema())

    def _add(self, standing: Standing, columns: dict[str, list[Any]]) -> None:
        scan = standing.scan
        keys = (str(scan), scan.subject, scan.session)
        person = self._participants.values(scan.subject)
        state = standing.state
        try:
            values, reason = read_values(self._cohort, standing, self._reference)
        except StoreError as error:
            values, reason, state = None, str(error), "failed"
            self.damaged[str(scan)] = reason
        node = standing.node("regions")
        count = 0 if values is None else len(values.labels)
        digest = node.digest if node is not None and values is not None else None
        matched = self._participants.state(scan.subject)
        self.scans.append((*keys, state, count, matched, digest, reason or None))
        if values is None:
            self.without[str(scan)] = reason
            return
        if values.candidates is not None:
            self.searched += 1
            self.candidates += [(*keys, *row) for row in _candidates(values)]
        if self._reference and values.moments[0] is None:
            self._unreferred.append(str(scan))
        self.wide.add((*keys, *person, values.reference, *values.moments, *values.csf), values)
        for name, rows in _long(keys, values).items():
            columns[name].extend(rows)

    def unreferred(self) -> list[str]:
        """Scans that lack the reference that was asked for."""
        if not self._unreferred:
            return []
        name, count = "+".join(self._reference), len(self._unreferred)
        return [f"{count} scans have no {name} to refer to, and so no chi, as {self._unreferred[0]}"]


def _candidates(values: Values) -> Iterator[tuple[Any, ...]]:
    """The rows of a scan's candidates, in the order of `CANDIDATE_COLUMNS`."""
    names = dict(zip(values.labels, values.names, strict=True))
    for row in () if values.candidates is None else values.candidates.tolist():
        told = dict(zip(COORDINATES["property"], row, strict=True))
        label = int(told["nearest_label"])
        kind = "paramagnetic" if told["sign"] > 0 else "diamagnetic"
        region = names.get(label, f"label_{label}") if label else None
        numbers = (told[name] for name in ("volume_mm3", "mass", "peak", "x_mm", "y_mm", "z_mm", "elongation"))
        yield (kind, int(told["n"]), *numbers, region, told["distance_mm"] if label else None)


def _long(keys: tuple[str, str, str | None], values: Values) -> dict[str, Sequence[Any]]:
    maps, names, statistics = values.maps, values.names, COORDINATES["statistic"]
    sides = [split_side(name) for name in names]
    rows = values.array.size
    per_map, per_region = len(names) * len(statistics), len(statistics)

    def by_region(items: Sequence[Any]) -> list[Any]:
        return [item for item in items for _ in range(per_region)] * len(maps)

    relative = ["" if s in COUNTS else values.reference for s in statistics]
    return {
        **{name: [key] * rows for name, key in zip(_KEYS, keys, strict=True)},
        "map": [m for m in maps for _ in range(per_map)],
        "region": by_region(names),
        "structure": by_region([structure for structure, _ in sides]),
        "hemisphere": by_region([side or None for _, side in sides]),
        "label": by_region(values.labels),
        "statistic": list(statistics) * (len(names) * len(maps)),
        "value": [value if np.isfinite(value) else None for value in values.array.ravel().tolist()],
        "unit": [unit_of(m, s) for m in maps for _ in names for s in statistics],
        "reference": [(r or None) if m == "chi" else None for m in maps for _ in names for r in relative],
    }


def _schema() -> pa.Schema:
    fields = []
    for name in _LONG_COLUMNS:
        metadata = {"description": describe(name)["Description"]}
        fields.append(pa.field(name, _TYPES.get(name, pa.string()), metadata=metadata))
    return pa.schema(fields)


def _endings(values: Values) -> list[str]:
    """How the columns of each region end; a name that two regions would share carries the label."""
    endings = [column_name(name) for name in values.names]
    shared = {name for name, times in Counter(endings).items() if times > 1}
    pairs = zip(endings, values.labels, strict=True)
    return [f"{ending}_{label}" if ending in shared else ending for ending, label in pairs]


def _lacking(wide: _Wide) -> list[str]:
    """Regions that some scans have and others do not, among the scans with label images."""
    numbers = {key[1]: place for key, place in wide.columns.items() if key[0] == "chi" and key[2] == "n"}
    counts: Counter[int] = Counter()
    labelled = 0
    for _, places, values in wide.rows:
        counted = np.isin(places, list(numbers.values()))
        labelled += int(counted.sum()) > 1
        counts.update(places[counted & (values > 0)].tolist())
    found = [
        f"{ending} ({labelled - counts[place]} of {labelled} scans)"
        for ending, place in sorted(numbers.items())
        if ending != WHOLE and counts[place] < labelled
    ]
    meaning = "regions that some scans lack (no such label, or none of its voxels inside the mask)"
    return [f"{meaning}: {', '.join(found)}"] if found else []


def _wide_dictionary(participants: Participants, wide: _Wide) -> dict[str, Any]:
    entries: dict[str, Any] = {name: describe(name) for name in _KEYS}
    entries |= {
        name: {"Description": f"{name} of the participant, from participants.tsv"} for name in participants.columns
    }
    entries |= {name: describe(name) for name in ("chi_reference", *MOMENTS, *CSF_MOMENTS)}
    reference = len(_KEYS) + len(participants.columns)
    references = sorted({str(lead[reference]) for lead, _, _ in wide.rows})
    relative = references[0] if len(references) == 1 else "differs between scans: see the column chi_reference"
    for m, ending, statistic in wide.order():
        labels = ", ".join(str(label) for label in sorted(wide.labels[ending]))
        described = describe_value(m, statistic, ending, labels, relative if m == "chi" else "")
        entries[f"{m}_{statistic}_{ending}"] = described
    return entries
