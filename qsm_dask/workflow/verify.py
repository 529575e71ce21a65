"""Decode every committed array of a cohort and compare it with its commit."""

from collections.abc import Callable, Iterator
from functools import partial

import pandas as pd

from qsm_dask.engine.base import Engine
from qsm_dask.errors import StoreError
from qsm_dask.scan import Geometry, ScanKey
from qsm_dask.store import CohortStore
from qsm_dask.store.index import facts_of

Progress = Callable[[int, int, str], None]

_BATCH_BYTES = 3 * 64 * 2**20
"""What the store holds at once when it decodes: a batch, packed and unpacked, and its copy."""


def run(cohort: CohortStore, engine: Engine | None = None, *, progress: Progress | None = None) -> list[str]:
    """Look for damage: missing, torn and altered objects of all commits, current and superseded.

    Parameters
    ----------
    cohort : the store.
    engine : where scans are verified, one task each; in this process if None.
    progress : called with (scans verified, scans in all, the scan's name).

    Returns
    -------
    list of str : one line a damaged object, with scan, node and file, sorted; empty if all is well.

    Raises
    ------
    DamageError : the cohort index itself cannot be read.
    """
    index = cohort.index()
    scans = cohort.scans()
    task = partial(verify_scan, cohort)
    damages: list[str] = []
    found: set[tuple[str, str, str]] = set()
    for count, (scan, committed, lines) in enumerate(_results(engine, task, scans, index), start=1):
        found |= {(str(scan), node, key) for node, key in committed}
        damages += lines
        if progress is not None:
            progress(count, len(scans), str(scan))
    done = index[index["state"] == "done"]
    for name, node, key in zip(done["scan"], done["node"], done["key"], strict=True):
        if (name, node, key) not in found:
            damages.append(
                f"{name} {node}: its COMMIT.json under key {key} is missing; run the same command again to compute "
                "the node anew"
            )
    return sorted(damages)


def verify_scan(cohort: CohortStore, scan: ScanKey) -> tuple[list[tuple[str, str]], list[str]]:
    """Every (node, key) of a scan that is committed, and what is wrong with them; the task that workers run."""
    committed = cohort.committed(scan)
    damages: list[str] = []
    for node, key in committed:
        try:
            commit = cohort.commit(scan, node, key)
        except StoreError as error:
            damages.append(str(error))
            continue
        if commit is not None:
            damages += cohort.verify(commit)
    return committed, damages


Result = tuple[ScanKey, list[tuple[str, str]], list[str]]


def _results(
    engine: Engine | None,
    task: Callable[[ScanKey], tuple[list[tuple[str, str]], list[str]]],
    scans: tuple[ScanKey, ...],
    index: pd.DataFrame,
) -> Iterator[Result]:
    if engine is None:
        yield from ((scan, *task(scan)) for scan in scans)
        return
    rows = index[index["node"] == "ingest"]
    facts = dict(zip(rows["scan"], rows["facts"], strict=True))
    for outcome in engine.map(task, scans, memory=lambda scan: _memory(facts.get(str(scan), "{}"))):
        if outcome.ok:
            yield outcome.key, *outcome.value
        else:
            known = index[(index["scan"] == str(outcome.key)) & (index["state"] == "done")]
            committed = list(zip(known["node"], known["key"], strict=True))
            yield outcome.key, committed, [f"{outcome.key}: could not be verified: {outcome.error}"]


def _memory(facts: str) -> int:
    geometry = facts_of(facts).get("geometry")
    volume = 8 * Geometry.from_dict(geometry).voxels if geometry else 0
    return max(_BATCH_BYTES, 3 * volume)
