"""Commands that work on a cohort."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qsm_dask.cli.console import ERR, OUT, progress, say, table, warn, write_json
from qsm_dask.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from qsm_dask.engine import Engine
    from qsm_dask.pipeline import Pipeline
    from qsm_dask.store import CohortStore
    from qsm_dask.workflow.ingest import Summary as Ingested
    from qsm_dask.workflow.process import Summary as Processed
    from qsm_dask.workflow.status import Status

Bids = Annotated[
    Path, typer.Argument(help="Folder of the raw BIDS dataset.", exists=True, file_okay=False, show_default=False)
]
Cohort = Annotated[
    Path, typer.Argument(help="Folder of the cohort store; made if it is not there.", show_default=False)
]
PipelineName = Annotated[
    str, typer.Option("--pipeline", "-p", help="A shipped pipeline (`qsm-dask pipelines`) or your own YAML file.")
]
ClusterName = Annotated[str, typer.Option("--cluster", "-c", help="A shipped cluster file or your own YAML file.")]
Derivatives = Annotated[
    list[str],
    typer.Option(
        "--derivatives",
        "-d",
        metavar="DIR[:NAMES]",
        help="Take what exists already from this BIDS derivatives folder: NAMES are `dseg`, `mask`, `chi`, "
        "`local_field` or `r2`, separated by commas (`dseg,mask` unless given), each with its units where the sidecar "
        "lacks them (`chi=ppb`). May be repeated.",
    ),
]
Participants = Annotated[
    list[str],
    typer.Option("--participant-label", help="Only this participant, with or without `sub-`. May be repeated."),
]
Sessions = Annotated[
    list[str], typer.Option("--session-id", help="Only this session, with or without `ses-`. May be repeated.")
]
Filters = Annotated[
    Path | None, typer.Option("--bids-filter-file", help="JSON file of BIDS entities that the scans must have.")
]
PhaseSign = Annotated[
    str,
    typer.Option(
        help="Sign of the phase: `auto`, `+1`, `-1`, or by manufacturer or scan (`auto,GE=-1`). Veins must be positive."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars; warnings and errors only.")]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output; implies --quiet.")]


@contextmanager
def open_cluster(name: str) -> Iterator["Engine"]:
    """Start the cluster that a shipped or own file describes, and shut it down afterwards."""
    from qsm_dask import resources
    from qsm_dask.engine import open_engine

    with open_engine(resources.load("cluster", name)) as engine:
        yield engine


def _pipeline(name: str) -> "Pipeline":
    from qsm_dask.pipeline import Pipeline

    return Pipeline.from_yaml(name)


def open_store(path: Path) -> "CohortStore":
    """Open an existing cohort; a path that is none is wrong usage."""
    from qsm_dask.store import CohortStore

    try:
        return CohortStore.open(path)
    except StoreError as error:
        raise ConfigError(str(error)) from error


def _create(path: Path) -> "CohortStore":
    from qsm_dask.store import CohortStore

    try:
        return CohortStore.create(path)
    except StoreError as error:
        raise ConfigError(str(error)) from error


def run(
    bids: Bids,
    cohort: Cohort,
    pipeline: PipelineName = "consensus",
    cluster: ClusterName = "local",
    derivatives: Derivatives = [],  # noqa: B006 - the CLI library copies defaults
    participant_label: Participants = [],  # noqa: B006
    session_id: Sessions = [],  # noqa: B006
    bids_filter_file: Filters = None,
    phase_sign: PhaseSign = "auto",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """From a BIDS folder to maps, a region table and a report; what is done already is not done again.

    Exit code 0: all scans are done or skipped; 1: some failed; 2: wrong usage.

    Example: `qsm-dask run study/ study.qsm --derivatives study/derivatives/synthseg:dseg`
    """
    chosen = Selection(derivatives, participant_label, session_id, bids_filter_file, phase_sign)
    ingested, processed, page = run_all(bids, cohort, chosen, pipeline, cluster, quiet=quiet or as_json)
    if as_json:
        write_json(_as_dict(ingested, processed) | {"report": str(page)})
    else:
        if quiet:
            _tell_failures(processed.failures)
        say(f"report    {page}")
    raise typer.Exit(1 if processed.failures else 0)


@dataclass(frozen=True)
class Selection:
    """Which scans and maps of a dataset a command takes in, and how it reads their phase."""

    derivatives: Sequence[str] = ()
    participants: Sequence[str] = ()
    sessions: Sequence[str] = ()
    filters: Path | None = None
    phase_sign: str = "auto"


def run_all(
    bids: Path,
    cohort: Path,
    chosen: Selection,
    pipeline: str = "consensus",
    cluster: str = "local",
    *,
    quiet: bool,
) -> tuple["Ingested", "Processed", Path]:
    """Ingest, process, compare and report on one cluster; the summaries and the page."""
    steps = _pipeline(pipeline)
    with open_cluster(cluster) as engine:
        if engine.dashboard and not quiet:
            say(f"dashboard {engine.dashboard}")
        store = _create(cohort)
        ingested = _ingest(bids, store, engine, chosen, quiet=quiet)
        processed = _process(store, engine, steps, chosen, quiet=quiet)
        if not quiet:
            _tell(processed)
        _compare(store, quiet=quiet)
        return ingested, processed, _report(store, engine, quiet=quiet)


def ingest(
    bids: Bids,
    cohort: Cohort,
    derivatives: Derivatives = [],  # noqa: B006
    participant_label: Participants = [],  # noqa: B006
    session_id: Sessions = [],  # noqa: B006
    bids_filter_file: Filters = None,
    phase_sign: PhaseSign = "auto",
    cluster: ClusterName = "local",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Index a BIDS dataset and convert each scan to chunked Zarr.

    Scans that have not changed since are not read again. A scan that cannot be used gets a
    reason (`qsm-dask status`), and the others go on.
    """
    quiet = quiet or as_json
    chosen = Selection(derivatives, participant_label, session_id, bids_filter_file, phase_sign)
    with open_cluster(cluster) as engine:
        store = _create(cohort)
        summary = _ingest(bids, store, engine, chosen, quiet=quiet)
    if as_json:
        write_json(_ingested(summary))
    else:
        _tell_failures(summary.failures)
    raise typer.Exit(1 if summary.failed else 0)


def process(
    cohort: Cohort,
    pipeline: PipelineName = "consensus",
    cluster: ClusterName = "local",
    participant_label: Participants = [],  # noqa: B006
    session_id: Sessions = [],  # noqa: B006
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run the pipeline on every ingested scan, on a Dask cluster.

    Committed nodes are kept: changing a parameter recomputes that step and what follows it.
    """
    steps = _pipeline(pipeline)
    store = open_store(cohort)
    quiet = quiet or as_json
    with open_cluster(cluster) as engine:
        chosen = Selection(participants=participant_label, sessions=session_id)
        summary = _process(store, engine, steps, chosen, quiet=quiet)
    if as_json:
        write_json(_as_dict(None, summary))
    else:
        _tell(summary)
    raise typer.Exit(1 if summary.failures else 0)


def compare(cohort: Cohort, quiet: Quiet = False) -> None:
    """Write the cohort's region table (Parquet, and TSV with a JSON dictionary), joined with participants.tsv."""
    _compare(open_store(cohort), quiet=quiet)


def report(cohort: Cohort, cluster: ClusterName = "serial", quiet: Quiet = False) -> None:
    """Write the report: a static page with the cohort table, failures with reasons, and a mosaic a scan."""
    store = open_store(cohort)
    with open_cluster(cluster) as engine:
        OUT.print(str(_report(store, engine, quiet=quiet)), highlight=False)


def export(
    cohort: Cohort,
    out: Annotated[Path, typer.Argument(help="Folder of the BIDS derivatives to write.", show_default=False)],
    quiet: Quiet = False,
) -> None:
    """Write BIDS derivatives: NIfTI maps with sidecars, in ppm, 1/s and s; the local field in Hz."""
    from qsm_dask.workflow import export as workflow

    store = open_store(cohort)
    with progress("export", quiet=quiet) as shown:
        summary = workflow.run(store, out, progress=shown)
    say(f"exported  {summary.exported} scans to {out}; {len(summary.without)} have no maps")
    _tell_failures(summary.without)
    raise typer.Exit(0 if summary.exported else 1)


def status(cohort: Cohort, as_json: Json = False) -> None:
    """Every scan: how far it is, seconds, peak memory, and why it failed.

    Exit code 0 only if all are done or skipped.
    """
    from qsm_dask.workflow import status as workflow

    found = workflow.run(open_store(cohort))
    if as_json:
        write_json(found.rows)
    else:
        _show_status(found)
    raise typer.Exit(0 if found.all_done else 1)


def verify(cohort: Cohort, cluster: ClusterName = "serial", quiet: Quiet = False, as_json: Json = False) -> None:
    """Decode every committed array and compare it with its commit.

    Exit code 1 on damage, naming scan, node and file.
    """
    from qsm_dask.workflow import verify as workflow

    store = open_store(cohort)
    with open_cluster(cluster) as engine, progress("verify", quiet=quiet or as_json) as shown:
        damages = workflow.run(store, engine, progress=shown)
    if as_json:
        write_json(damages)
    else:
        for damage in damages:
            OUT.print(damage, highlight=False, markup=False)
        if damages:
            say(
                f"{len(damages)} damaged: delete the folder of each commit named above (it holds COMMIT.json), "
                "and run the same `qsm-dask run` again: the nodes are computed anew"
            )
        else:
            say("every committed array is whole")
    raise typer.Exit(1 if damages else 0)


def _ingest(bids: Path, store: "CohortStore", engine: "Engine", chosen: Selection, *, quiet: bool) -> "Ingested":
    from qsm_dask.workflow import ingest as workflow

    with progress("ingest", quiet=quiet) as shown:
        summary = workflow.run(bids, store, engine, **vars(chosen), progress=shown)
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


def _process(
    store: "CohortStore", engine: "Engine", pipeline: "Pipeline", chosen: Selection, *, quiet: bool
) -> "Processed":
    from qsm_dask.workflow import process as workflow

    with progress("process", quiet=quiet) as shown:
        summary = workflow.run(
            store, engine, pipeline, participants=chosen.participants, sessions=chosen.sessions, progress=shown
        )
    if summary.without_labels:
        warn(
            f"{summary.without_labels} scans have no label image, so their table has the whole brain only: "
            "give one with --derivatives DIR:dseg"
        )
    return summary


def _compare(store: "CohortStore", *, quiet: bool) -> None:
    from qsm_dask.workflow import compare as workflow

    with progress("compare", quiet=quiet) as shown:
        summary = workflow.run(store, progress=shown)
    for text in summary.warnings:
        warn(text)
    if not quiet:
        say(f"tables    {store.path}/tables")


def _report(store: "CohortStore", engine: "Engine", *, quiet: bool) -> Path:
    from qsm_dask.workflow import report as workflow

    with progress("report", quiet=quiet) as shown:
        return workflow.run(store, engine, progress=shown)


def _tell(summary: "Processed") -> None:
    recomputed = f"{summary.computed} nodes computed, {summary.reused} found committed"
    if not summary.computed and summary.reused:
        recomputed = f"nothing to compute: all {summary.reused} nodes were committed already"
    say(f"process   {summary.done} done, {summary.skipped} skipped, {len(summary.failures)} failed; {recomputed}")
    _tell_failures(summary.failures)


def _tell_failures(failures: Mapping[str, str]) -> None:
    for scan, reason in sorted(failures.items()):
        ERR.print(f"  [red]{scan}[/]  ", end="", highlight=False)
        ERR.print(reason, markup=False, highlight=False)


def _as_dict(ingested: "Ingested | None", processed: "Processed") -> dict[str, Any]:
    result: dict[str, Any] = {
        "done": processed.done,
        "skipped": processed.skipped,
        "failed": len(processed.failures),
        "nodes_computed": processed.computed,
        "nodes_reused": processed.reused,
        "failures": processed.failures,
    }
    if ingested is not None:
        result["ingested"] = _ingested(ingested)
    return result


def _ingested(summary: "Ingested") -> dict[str, Any]:
    return {
        "converted": summary.done,
        "unchanged": summary.unchanged,
        "failed": summary.failed,
        "skipped": summary.skipped,
        "gone": list(summary.gone),
    }


def _show_status(found: "Status") -> None:
    rows = [
        row
        | {
            "seconds": f"{row['seconds']:.1f}" if row["seconds"] else "",
            "peak": f"{row['peak_bytes'] / 2**20:.0f} MiB" if row["peak_bytes"] else "",
        }
        for row in found.rows
    ]
    table("", ("scan", "node", "state", "seconds", "peak", "reason"), rows, numbers=("seconds", "peak"))
    origins = Counter(
        (source["quantity"], ", ".join(sorted({str(Path(file).parent) for file in source["files"]})) or source["from"])
        for source in found.sources
    )
    OUT.print()
    table(
        "",
        ("quantity", "from", "scans"),
        [
            {"quantity": quantity, "from": origin, "scans": count}
            for (quantity, origin), count in sorted(origins.items())
        ],
        numbers=("scans",),
    )
    for reason, count in Counter(one["reason"] for one in found.left_out).items():
        OUT.print(f"left out in {count} scans: {reason}", highlight=False, markup=False)
