"""Append the standard-space maps of scans to the cohort cube: one task a segment."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from qsm_dask.engine.base import Engine
from qsm_dask.store import CohortStore
from qsm_dask.store.cubes import Batch


@dataclass
class Summary:
    """What a run of `cube` did.

    Attributes
    ----------
    appended : scans by map.
    segments : how many were written.
    failures : reason by batch of scans.
    """

    appended: dict[str, int] = field(default_factory=dict)
    segments: int = 0
    failures: dict[str, str] = field(default_factory=dict)


def run(
    cohort: CohortStore,
    engine: Engine,
    *,
    compact: bool = False,
    retries: int = 1,
    progress: Callable[[int, int, str], None] | None = None,
) -> Summary:
    """Append every scan that has maps in standard space and is in no segment yet; what is there is not touched.

    Parameters
    ----------
    cohort : the store; others may append at the same time.
    engine : where segments are written.
    compact : whether scans of segments that are not full are written together once more, as one segment more;
        `gc` with `superseded` then removes the small ones.
    retries : how often a segment that failed with an unexpected error is tried again.
    progress : called with (segments finished, segments in all, what the segment holds).

    Raises
    ------
    DamageError : the index, or the record of a segment, cannot be read.
    """
    cubes = cohort.cubes
    summary = Summary(dict.fromkeys(cubes.names(), 0))
    batches = [batch for name in summary.appended for batch in cubes.pending(name, compact=compact)]
    task = partial(append_batch, cohort)
    outcomes = engine.map(task, batches, memory=lambda batch: batch.memory, retries=retries)
    for count, outcome in enumerate(outcomes, start=1):
        if outcome.ok:
            summary.appended[outcome.key.name] += len(outcome.key.members)
            summary.segments += 1
        else:
            summary.failures[str(outcome.key)] = outcome.error
        if progress is not None:
            progress(count, len(batches), str(outcome.key))
    return summary


def append_batch(cohort: CohortStore, batch: Batch) -> str:
    """Append one batch; the task that workers run. The key of its segment."""
    return cohort.cubes.append(batch).place.key
