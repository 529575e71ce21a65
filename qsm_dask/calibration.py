"""Measure what a pipeline costs here, where nothing of its kind was processed before: a few scans in a scratch cohort.

As many scans run at once as will, since scans that share a machine slow one another down.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from qsm_dask.cohort.costs import Sample, samples
from qsm_dask.engine import Engine, open_engine
from qsm_dask.engine.resources import Machine
from qsm_dask.errors import StageError
from qsm_dask.pipeline import Pipeline
from qsm_dask.scan import Geometry, ScanKey
from qsm_dask.scratch import own_folder
from qsm_dask.store import INGEST_KEY, CohortStore, Commit
from qsm_dask.workflow import compile_ahead, ingest, process, simulate

ROUNDS = 3
"""Scans one worker runs: the first also loads compiled kernels, and counts little."""
MOST_WORKERS = 4
FEW_COILS, MANY_COILS = 2, 8
"""With so many are coils combined, to tell what one coil more costs."""


def on_copies(
    cohort: CohortStore, scans: Sequence[Commit], pipeline: Pipeline, *, threads: int = 1, rounds: int = ROUNDS
) -> list[Sample]:
    """Process copies of some scans in a scratch cohort; the cohort itself stays as it is.

    Parameters
    ----------
    cohort : where the scans lie.
    scans : their ingest commits.
    pipeline : what is measured.
    threads : of one scan.
    rounds : how many of its copies each worker runs.

    Raises
    ------
    DamageError : an array of a scan is damaged.
    StageError : the pipeline fails on one of them.
    """
    compile_ahead.run(pipeline, threads)
    with own_folder(None, "qsm-dask-plan-") as folder, _engine(threads) as engine:
        return _measure(engine, cohort, scans, pipeline, rounds, Path(folder))


def on_simulated(
    geometry: Geometry, coils: int, pipeline: Pipeline, *, threads: int = 1, rounds: int = ROUNDS
) -> list[Sample]:
    """Simulate a head of this geometry, ingest it and process copies of it.

    Parameters
    ----------
    geometry : its matrix and echo times count; a head always fills the same field of view.
    coils : receive coils kept apart; of more than a few, what one more costs is measured.
    pipeline : what is measured.
    threads : of one scan.
    rounds : how many copies each worker runs.
    """
    compile_ahead.run(pipeline, threads)
    counts = (0,) if coils == 1 else (coils,) if coils <= MANY_COILS else (FEW_COILS, MANY_COILS)
    found: list[Sample] = []
    with own_folder(None, "qsm-dask-plan-") as folder, _engine(threads) as engine:
        for count in counts:
            cohort = _ingested(
                engine, Path(folder, f"coils-{count}"), geometry, count, labels=not pipeline.makes("dseg")
            )
            found += samples(cohort)
        scans = [found[-1].commits["ingest"]]
        return found + _measure(engine, cohort, scans, pipeline, rounds, Path(folder))


def _engine(threads: int) -> AbstractContextManager[Engine]:
    workers = max(1, min(Machine.here().cpus // threads, MOST_WORKERS))
    return open_engine({"kind": "local", "workers": workers, "threads_per_worker": threads})


def _ingested(engine: Engine, folder: Path, geometry: Geometry, coils: int, *, labels: bool) -> CohortStore:
    """A cohort of one simulated head a worker, ingested twice: the first time, workers also load what reads files."""
    truth = simulate.run(
        folder / "bids", subjects=engine.slots, shape=geometry.shape, te=geometry.te, coils=coils, engine=engine
    )
    for name in ("first", "second"):
        cohort = CohortStore.create(folder / name)
        summary = ingest.run(folder / "bids", cohort, engine, derivatives=[f"{truth}:dseg"] if labels else ())
        for scan, reason in summary.failures.items():
            raise StageError(f"a simulated head cannot be ingested: {scan}: {reason}")
    return cohort


def _measure(
    engine: Engine, cohort: CohortStore, scans: Sequence[Commit], pipeline: Pipeline, rounds: int, folder: Path
) -> list[Sample]:
    scratch = CohortStore.create(folder / "scratch")
    copies = -(-rounds * engine.slots // len(scans))
    origin: dict[str, Commit] = {}
    for scan in scans:
        arrays = cohort.read(scan)
        for _ in range(copies):
            key = ScanKey((("sub", f"{len(origin):04d}"),))
            origin[str(key)] = scan
            about = {"attributes": scan.attributes, "provenance": scan.provenance}
            copy = scratch.write(key, "ingest", INGEST_KEY, arrays, seconds=scan.seconds, peak_bytes=0, **about)
            scratch.record([copy.row()])
    summary = process.run(scratch, engine, pipeline)
    for reason in summary.failures.values():
        raise StageError(f"the scan on which costs should be measured fails: {reason}")
    measured = samples(scratch, most=len(origin))
    return [replace(one, commits=one.commits | {"ingest": origin[str(_scan(one))]}) for one in measured]


def _scan(one: Sample) -> ScanKey:
    return one.commits["ingest"].scan
