"""The steps that commands are made of: each runs one workflow with its progress bar and says what came of it."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from qsm_dask.cli.console import list_reasons, progress, say, waiting, warn
from qsm_dask.cli.options import Selection
from qsm_dask.errors import ConfigError, StoreError
from qsm_dask.place import Place
from qsm_dask.pseudonyms import Pseudonyms
from qsm_dask.shard import Shard

if TYPE_CHECKING:
    from qsm_dask.engine import Engine
    from qsm_dask.pipeline import Pipeline
    from qsm_dask.scan import ScanKey
    from qsm_dask.store import CohortStore
    from qsm_dask.workflow.compare import Summary as Compared
    from qsm_dask.workflow.cube import Summary as Appended
    from qsm_dask.workflow.ingest import Summary as Ingested
    from qsm_dask.workflow.process import Summary as Processed
    from qsm_dask.workflow.verify import Damage


@contextmanager
def open_cluster(name: str, *, quiet: bool, pseudonymise: bool = False) -> Iterator["Engine"]:
    """Start the cluster that a shipped or own file describes, and shut it down afterwards."""
    from qsm_dask.api import open_engine

    names = Pseudonyms.from_environment() if pseudonymise else str
    with ExitStack() as stack:
        with waiting("starting workers", quiet=quiet):
            engine = stack.enter_context(open_engine(name))
        engine.name_of = names
        yield engine


def open_store(place: Place) -> "CohortStore":
    """Open an existing cohort; a place that is none is wrong usage."""
    from qsm_dask.store import CohortStore

    try:
        return CohortStore.open(place.url)
    except StoreError as error:
        raise ConfigError(str(error)) from error


def read_pipeline(name: str, atlas: str | None = None) -> "Pipeline":
    """A shipped pipeline by its name, or a YAML file by its path; with another atlas where one is given."""
    from qsm_dask.pipeline import Pipeline

    pipeline = Pipeline.from_yaml(name)
    return pipeline if atlas is None else pipeline.with_atlas(_everywhere(atlas))


def _everywhere(atlas: str) -> str:
    """A folder as workers understand it, which have working directories of their own; other names as they are."""
    folder, mark, rest = atlas.partition("#")
    if ":" in folder:
        return atlas
    return f"{Path(folder).expanduser().absolute()}{mark}{rest}"


def threads_of(cluster: str) -> int:
    """How many threads a scan is given on the cluster that a file describes."""
    from qsm_dask.engine import parse, read_spec

    return parse(read_spec(cluster)).threads_per_worker


def compile_kernels(pipeline: "Pipeline", threads: int, *, quiet: bool) -> None:
    """Compile once what the pipeline calls, and say so: it is a machine's first run that takes the time."""
    from qsm_dask.workflow import compile_ahead

    if not compile_ahead.is_due(pipeline, threads):
        return
    if not quiet:
        say("compiling kernels, once on this machine (about a minute)")
    with progress("compile", quiet=quiet) as shown:
        compile_ahead.run(pipeline, threads, progress=shown)


def run_all(
    bids: Place,
    cohort: Place,
    chosen: Selection,
    steps: "Pipeline",
    cluster: str,
    *,
    timeout_s: float | None = None,
    pseudonymise: bool = False,
    quiet: bool,
) -> tuple["Ingested", "Processed", "Compared", str]:
    """Ingest, process, append to the cube, compare and report on one cluster; the summaries and where the page lies."""
    with making(cohort) as store:  # before anything that takes time: a place that cannot be reached is told at once
        compile_kernels(steps, threads_of(cluster), quiet=quiet)
        with open_cluster(cluster, quiet=quiet, pseudonymise=pseudonymise) as engine:
            ingested = ingest_scans(bids, store, engine, chosen, timeout_s=timeout_s, quiet=quiet)
            processed = process_scans(store, engine, steps, chosen, timeout_s=timeout_s, quiet=quiet)
            if not quiet:
                tell_processed(processed)
            append_cube(store, engine, quiet=quiet)
            compared = compare_scans(store, quiet=quiet)
            return ingested, processed, compared, write_report(store, engine, quiet=quiet)


@contextmanager
def making(cohort: Place) -> Iterator["CohortStore"]:
    """Open a cohort, or make it; see `api.new_cohort`."""
    from qsm_dask.api import new_cohort

    with new_cohort(cohort.url) as store:
        yield store


def ingest_scans(
    bids: Place,
    store: "CohortStore",
    engine: "Engine",
    chosen: Selection,
    *,
    timeout_s: float | None = None,
    quiet: bool,
) -> "Ingested":
    """Take the chosen scans of a dataset into a cohort."""
    from qsm_dask.workflow import ingest as workflow

    with progress("ingest", quiet=quiet, engine=engine) as shown:
        summary = workflow.run(bids.url, store, engine, **vars(chosen), timeout_s=timeout_s, progress=shown)
    if not quiet:
        say(
            f"ingest    {summary.done} converted, {summary.unchanged} unchanged, "
            f"{summary.skipped} skipped (no phase), {summary.failed} failed"
        )
    for text in summary.warnings:
        warn(text)
    if summary.gone:
        warn(f"{len(summary.gone)} scans are no longer in the dataset and stay in the cohort, as {summary.gone[0]}")
    return summary


def process_scans(
    store: "CohortStore",
    engine: "Engine",
    pipeline: "Pipeline",
    chosen: Selection,
    *,
    scans: "Collection[ScanKey] | None" = None,
    shard: Shard | None = None,
    timeout_s: float | None = None,
    quiet: bool,
) -> "Processed":
    """Run a pipeline on the chosen scans of a cohort."""
    from qsm_dask.workflow import process as workflow

    with progress("process", quiet=quiet, engine=engine) as shown:
        summary = workflow.run(
            store,
            engine,
            pipeline,
            participants=chosen.participants,
            sessions=chosen.sessions,
            scans=scans,
            shard=shard,
            timeout_s=timeout_s,
            progress=shown,
        )
    if summary.without_labels:
        warn(
            f"{summary.without_labels} scans have no label image, so their table has the whole brain only: "
            "give one with --derivatives DIR:dseg"
        )
    return summary


def repair(store: "CohortStore", engine: "Engine", damages: "Sequence[Damage]", *, quiet: bool) -> dict[str, str]:
    """Withdraw what is damaged and compute it anew; scans that are still not whole, with the reason."""
    from qsm_dask.store.layout import CUBE
    from qsm_dask.workflow import repair as workflow

    failures = {one.scan: one.reason for one in damages if not one.node}
    withdrawn = workflow.run(store, [(one.scan, one.node, one.key) for one in damages if one.node])
    failures |= withdrawn.failures
    if withdrawn.pipeline is not None and withdrawn.scans:
        compile_kernels(withdrawn.pipeline, engine.threads, quiet=quiet)
        scans = withdrawn.scans
        summary = process_scans(store, engine, withdrawn.pipeline, Selection(), scans=scans, quiet=quiet)
        failures |= summary.failures
    if withdrawn.segments:
        for reason in append_cube(store, engine, quiet=quiet).failures.values():
            failures[CUBE] = reason
    if not quiet:
        nodes = withdrawn.commits + withdrawn.segments
        say(f"repair    {nodes} damaged nodes withdrawn; {len(failures)} scans are not whole yet")
    return failures


def append_cube(store: "CohortStore", engine: "Engine", *, compact: bool = False, quiet: bool) -> "Appended":
    """Append what scans have in standard space to the cohort cube; nothing is said where they have nothing."""
    from qsm_dask.workflow import cube as workflow

    with progress("cube", quiet=quiet, engine=engine) as shown:
        summary = workflow.run(store, engine, compact=compact, progress=shown)
    if summary.appended and not quiet:
        scans = max(summary.appended.values())
        say(f"cube      {scans} scans appended in {summary.segments} segments; {', '.join(summary.appended)}")
    for batch, reason in summary.failures.items():
        warn(f"not in the cube: {batch}: {reason}")
    return summary


def compare_scans(
    store: "CohortStore", *, reference: str | None = None, statistics: Sequence[str] = (), quiet: bool
) -> "Compared":
    """Write the cohort's region tables."""
    from qsm_dask.workflow import compare as workflow

    with progress("compare", quiet=quiet) as shown:
        summary = workflow.run(store, reference=reference, statistics=statistics, progress=shown)
    for text in summary.warnings:
        warn(text)
    for scan, reason in summary.damaged.items():
        warn(f"{scan} is done and not in the tables: {reason}")
    if not quiet:
        say(f"tables    {store.place.of('tables')}")
    return summary


def write_report(store: "CohortStore", engine: "Engine", *, quiet: bool) -> str:
    """Write the cohort's page; where it lies."""
    from qsm_dask.workflow import report as workflow

    with progress("report", quiet=quiet) as shown:
        return workflow.run(store, engine, progress=shown)


def tell_processed(summary: "Processed") -> None:
    """Say how many scans and nodes were done, and why others were not."""
    recomputed = f"{summary.computed} nodes computed, {summary.reused} found committed"
    if summary.reused and not summary.computed and not summary.failures:
        recomputed = f"nothing to compute: all {summary.reused} nodes were committed already"
    say(f"process   {summary.done} done, {summary.skipped} skipped, {len(summary.failures)} failed; {recomputed}")
    list_reasons(summary.failures)
