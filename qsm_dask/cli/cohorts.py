"""Commands that work on a cohort."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qsm_dask.cli import steps
from qsm_dask.cli.console import OUT, list_reasons, progress, say, write_json
from qsm_dask.cli.options import (
    AtlasName,
    Bids,
    ClusterName,
    Cohort,
    CoilSmoothing,
    Derivatives,
    Filters,
    Json,
    NewCohort,
    Participants,
    PhaseSign,
    PipelineName,
    Pseudonymise,
    Quiet,
    Selection,
    Sessions,
    ShardOption,
    Timeout,
    TransformPatterns,
)
from qsm_dask.place import Place

if TYPE_CHECKING:
    from qsm_dask.store import CohortStore
    from qsm_dask.workflow.ingest import Summary as Ingested
    from qsm_dask.workflow.process import Summary as Processed


def run(
    bids: Bids,
    cohort: NewCohort,
    *,
    pipeline: PipelineName = "consensus",
    atlas: AtlasName = None,
    cluster: ClusterName = "local",
    derivatives: Derivatives,
    transform: TransformPatterns,
    participant_label: Participants,
    session_id: Sessions,
    bids_filter_file: Filters = None,
    phase_sign: PhaseSign = "auto",
    coil_smoothing: CoilSmoothing = None,
    pseudonymise: Pseudonymise = False,
    timeout: Timeout = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """From a BIDS folder to maps, a region table and a report; what is done already is not done again.

    Exit code 0: all scans are done or skipped; 1: some failed; 2: wrong usage.

    Example: `qsm-dask run study/ study.qsm --derivatives study/derivatives/synthseg:dseg`
    """
    quiet = quiet or as_json
    chosen = Selection(
        derivatives, transform, participant_label, session_id, bids_filter_file, phase_sign, coil_smoothing
    )
    ingested, processed, compared, page = steps.run_all(
        bids,
        cohort,
        chosen,
        steps.read_pipeline(pipeline, atlas),
        cluster,
        timeout_s=_seconds(timeout),
        pseudonymise=pseudonymise,
        quiet=quiet,
    )
    if as_json:
        write_json(_processed(processed) | {"ingested": _ingested(ingested), "report": page})
    else:
        if quiet:
            list_reasons(processed.failures)
        say(f"report    {page}{_how_to_see(cohort)}")
    raise typer.Exit(1 if processed.failures or compared.damaged else 0)


def ingest(
    bids: Bids,
    cohort: NewCohort,
    *,
    derivatives: Derivatives,
    transform: TransformPatterns,
    participant_label: Participants,
    session_id: Sessions,
    bids_filter_file: Filters = None,
    phase_sign: PhaseSign = "auto",
    coil_smoothing: CoilSmoothing = None,
    cluster: ClusterName = "local",
    pseudonymise: Pseudonymise = False,
    timeout: Timeout = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Index a BIDS dataset and convert each scan to chunked Zarr.

    Scans that have not changed since are not read again. A scan that cannot be used gets a
    reason (`qsm-dask status`), and the others go on.

    Exit code 0: all scans are converted or skipped; 1: some failed; 2: wrong usage.

    Example: `qsm-dask ingest study/ study.qsm --participant-label 01`
    """
    quiet = quiet or as_json
    chosen = Selection(
        derivatives, transform, participant_label, session_id, bids_filter_file, phase_sign, coil_smoothing
    )
    with (
        steps.making(cohort) as store,
        steps.open_cluster(cluster, quiet=quiet, pseudonymise=pseudonymise) as engine,
    ):
        summary = steps.ingest_scans(bids, store, engine, chosen, timeout_s=_seconds(timeout), quiet=quiet)
    if as_json:
        write_json(_ingested(summary))
    else:
        list_reasons(summary.failures)
    raise typer.Exit(1 if summary.failed else 0)


def process(
    cohort: Cohort,
    *,
    pipeline: PipelineName = "consensus",
    atlas: AtlasName = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster", "-c", metavar="NAME|FILE", help="As for `run`; `local` unless given, with --shard `serial`."
        ),
    ] = None,
    shard: ShardOption = None,
    participant_label: Participants,
    session_id: Sessions,
    pseudonymise: Pseudonymise = False,
    timeout: Timeout = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run the pipeline on every ingested scan, on a Dask cluster or in the jobs of an array.

    Committed nodes are kept: changing a parameter recomputes that step and what follows it.

    Exit code 0: all scans are done or skipped; 1: some failed; 2: wrong usage.

    Example: `qsm-dask process study.qsm --pipeline fast`, or `qsm-dask process study.qsm --shard 3/100`
    """
    quiet = quiet or as_json
    chosen = steps.read_pipeline(pipeline, atlas)
    store = steps.open_store(cohort)
    where = cluster or ("serial" if shard else "local")
    steps.compile_kernels(chosen, steps.threads_of(where), quiet=quiet)
    with steps.open_cluster(where, quiet=quiet, pseudonymise=pseudonymise) as engine:
        scans = Selection(participants=participant_label, sessions=session_id)
        summary = steps.process_scans(
            store, engine, chosen, scans, shard=shard, timeout_s=_seconds(timeout), quiet=quiet
        )
    if as_json:
        write_json(_processed(summary))
    else:
        steps.tell_processed(summary)
    raise typer.Exit(1 if summary.failures else 0)


def compare(
    cohort: Cohort,
    *,
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference",
            metavar="NAME",
            show_default=False,
            help="What susceptibility shall be relative to: `csf`, `whole_brain`, a region, or several joined by `+`; "
            "what the pipeline chose unless given. Nothing is computed again.",
        ),
    ] = None,
    statistic: Annotated[
        list[str],
        typer.Option(
            "--statistic",
            default_factory=list,
            show_default=False,
            metavar="NAME",
            help="Statistics that become columns of the TSV, such as `pv_mean`; `all` for all. May be repeated. The "
            "Parquet table has all of them.",
        ),
    ],
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write the cohort's region table, joined with participants.tsv.

    `tables/regions.parquet` for programs; `tables/regions.tsv` for people, with the JSON dictionary of its columns.

    Exit code 1 if a scan is done and its result cannot be read.

    Example: `qsm-dask compare study.qsm --reference csf`
    """
    store = steps.open_store(cohort)
    summary = steps.compare_scans(store, reference=reference, statistics=statistic, quiet=quiet or as_json)
    if as_json:
        write_json(vars(summary))
    elif summary.without and not quiet:
        scan, reason = next(iter(summary.without.items()))
        say(f"          {summary.with_values} of {summary.scans} scans have values; {scan} has none: {reason}")
    raise typer.Exit(1 if summary.damaged else 0)


def report(
    cohort: Cohort,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Also copy the page, its pictures and tables to this folder: a browser opens no page in an object "
            "store.",
            file_okay=False,
        ),
    ] = None,
    cluster: ClusterName = "serial",
    pseudonymise: Pseudonymise = False,
    quiet: Quiet = False,
) -> None:
    """Write the report: a static page with the cohort table, failures with reasons, and a mosaic a scan.

    It prints where the page lies.

    Example: `qsm-dask report study.qsm`, or `qsm-dask report s3://bucket/study --out report`
    """
    from qsm_dask.workflow import report as workflow

    store = steps.open_store(cohort)
    with steps.open_cluster(cluster, quiet=quiet, pseudonymise=pseudonymise) as engine:
        page = steps.write_report(store, engine, quiet=quiet)
    if out is not None:
        page = str(workflow.copy(store, out))
    OUT.print(page, highlight=False, markup=False)
    if out is None and not quiet and (how := _how_to_see(cohort)):
        say(how.strip())


def _seconds(minutes: float | None) -> float | None:
    return None if minutes is None else 60.0 * minutes


def _how_to_see(cohort: Place) -> str:
    """How to look at a page in an object store; empty for a folder."""
    return "" if cohort.folder else f"\nto see it  qsm-dask report {cohort} --out DIR"


def export(
    cohort: Cohort,
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="Folder of the BIDS derivatives to write.", file_okay=False, show_default=False
        ),
    ],
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write BIDS derivatives: NIfTI maps with sidecars, in ppm, 1/s and s; the local field in Hz.

    Exit code 0: every scan was written or is skipped; 1: some have no maps, or damaged ones; 2: wrong usage.

    Example: `qsm-dask export study.qsm study/derivatives/qsm`
    """
    from qsm_dask.workflow import export as workflow

    store = steps.open_store(cohort)
    with progress("export", quiet=quiet or as_json) as shown:
        summary = workflow.run(store, out, progress=shown)
    skipped = _skipped(store)
    missing = {scan: reason for scan, reason in summary.without.items() if scan not in skipped}
    if as_json:
        write_json({"exported": summary.exported, "skipped": sorted(skipped), "without": missing})
    else:
        say(f"exported  {summary.exported} scans to {out}; {len(skipped)} skipped, {len(missing)} have no maps")
        list_reasons(missing)
    raise typer.Exit(1 if missing else 0)


def _skipped(store: "CohortStore") -> set[str]:
    """Scans that hold nothing to reconstruct."""
    index = store.index()
    return set(index["scan"][(index["node"] == "ingest") & (index["state"] == "skipped")])


def _processed(summary: "Processed") -> dict[str, Any]:
    return {
        "done": summary.done,
        "skipped": summary.skipped,
        "failed": len(summary.failures),
        "nodes_computed": summary.computed,
        "nodes_reused": summary.reused,
        "failures": summary.failures,
    }


def _ingested(summary: "Ingested") -> Mapping[str, Any]:
    return {
        "converted": summary.done,
        "unchanged": summary.unchanged,
        "failed": summary.failed,
        "skipped": summary.skipped,
        "gone": list(summary.gone),
    }
