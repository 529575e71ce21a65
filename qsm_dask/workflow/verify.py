"""Decode every committed array of a cohort and compare it with its commit, and the bricks of its cubes with theirs."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import pandas as pd

from qsm_dask.engine.base import Engine, SerialEngine
from qsm_dask.errors import DamageError
from qsm_dask.scan import Geometry, ScanKey
from qsm_dask.store import CohortStore
from qsm_dask.store.index import facts_of
from qsm_dask.store.layout import CUBE, marker, segment_marker

Progress = Callable[[int, int, str], None]

_BATCH_BYTES = 3 * 64 * 2**20
"""What the store holds at once when it decodes: a batch, packed and unpacked, and its copy."""


@dataclass(frozen=True, order=True)
class Damage:
    """What is wrong with one file of a cohort.

    Attributes
    ----------
    scan, node, key : whose result is damaged; `node` and `key` are empty where a whole scan could not be looked at.
        Of the cohort cube `cube`, its map and its segment.
    file : where it lies; empty likewise.
    reason : what is wrong with it.
    """

    scan: str
    node: str
    key: str
    file: str
    reason: str

    def __str__(self) -> str:
        return f"{' '.join(filter(None, (self.scan, self.node)))}: {f'{self.file} {self.reason}'.strip()}"


def run(cohort: CohortStore, engine: Engine | None = None, *, progress: Progress | None = None) -> list[Damage]:
    """Look for damage: missing, torn and altered objects of all commits, current and superseded.

    Parameters
    ----------
    cohort : the store.
    engine : where scans are verified, one task each; in this process if None.
    progress : called with (scans and segments of cubes verified, of these in all, the name of one).

    Returns
    -------
    list of Damage : one a damaged object, sorted; empty if all is well.

    Raises
    ------
    DamageError : the cohort index itself cannot be read.
    """
    index = cohort.index()
    total = len(cohort.scans()) + len(segments := cohort.cubes.stored())
    engine = engine or SerialEngine(sys.maxsize)
    damages: list[Damage] = []
    found: set[tuple[str, str, str]] = set()
    results = _results(cohort, engine, index)
    count = 0
    for count, (scan, committed, damaged) in enumerate(results, start=1):
        found |= {(str(scan), node, key) for node, key in committed}
        damages += damaged
        if progress is not None:
            progress(count, total, str(scan))
    for number, outcome in enumerate(engine.map(partial(verify_segment, cohort), segments, memory=_any), count + 1):
        name, key = outcome.key
        unseen = Damage(CUBE, name, key, "", f"could not be verified: {outcome.error}")
        damages += outcome.value if outcome.ok else [unseen]
        if progress is not None:
            progress(number, total, f"{CUBE} {name}")
    done = index[index["state"] == "done"]
    for name, node, key in zip(done["scan"], done["node"], done["key"], strict=True):
        if (name, node, key) not in found:
            damages.append(Damage(name, node, key, _marker(cohort, ScanKey.parse(name), node, key), "is missing"))
    return sorted(damages)


def verify_scan(cohort: CohortStore, scan: ScanKey) -> tuple[list[tuple[str, str]], list[Damage]]:
    """Every (node, key) of a scan that is committed, and what is wrong with them; the task that workers run."""
    committed = cohort.committed(scan)
    damages: list[Damage] = []
    for node, key in committed:
        try:
            commit = cohort.commit(scan, node, key)
        except DamageError as error:
            place = _marker(cohort, scan, node, key)
            damages.append(Damage(str(scan), node, key, place, str(error).removeprefix(f"{scan} {node}: {place} ")))
            continue
        if commit is not None:
            damages += [Damage(str(scan), node, key, one.place, one.problem) for one in cohort.verify(commit)]
    return committed, damages


def verify_segment(cohort: CohortStore, place: tuple[str, str]) -> list[Damage]:
    """What is wrong with one segment of a cube, given its map and key; nothing where it was never published."""
    try:
        segment = cohort.cubes.segment(*place)
    except DamageError as error:
        return [Damage(CUBE, *place, cohort.place.of(segment_marker(*place)), f"cannot be read: {error}")]
    if segment is None:
        return []
    return [Damage(CUBE, *place, one.place, one.problem) for one in cohort.cubes.damages(segment)]


def _any(place: tuple[str, str]) -> int:
    """Objects of a segment are read one at a time."""
    del place
    return _BATCH_BYTES


def _marker(cohort: CohortStore, scan: ScanKey, node: str, key: str) -> str:
    return cohort.place.of(marker(scan, node, key))


Result = tuple[ScanKey, list[tuple[str, str]], list[Damage]]


def _results(cohort: CohortStore, engine: Engine, index: pd.DataFrame) -> Iterator[Result]:
    rows = index[index["node"] == "ingest"]
    facts = dict(zip(rows["scan"], rows["facts"], strict=True))
    task = partial(verify_scan, cohort)
    for outcome in engine.map(task, cohort.scans(), memory=lambda scan: _memory(facts.get(str(scan), "{}"))):
        if outcome.ok:
            yield outcome.key, *outcome.value
        else:
            known = index[(index["scan"] == str(outcome.key)) & (index["state"] == "done")]
            committed = list(zip(known["node"], known["key"], strict=True))
            unseen = Damage(str(outcome.key), "", "", "", f"could not be verified: {outcome.error}")
            yield outcome.key, committed, [unseen]


def _memory(facts: str) -> int:
    geometry = facts_of(facts).get("geometry")
    volume = 8 * Geometry.from_dict(geometry).voxels if geometry else 0
    return max(_BATCH_BYTES, 3 * volume)
