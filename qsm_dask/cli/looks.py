"""Commands that look at a cohort; only `verify --repair` changes it."""

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qsm_dask.cli import steps
from qsm_dask.cli.console import OUT, list_reasons, progress, say, table, waiting, warn, write_json
from qsm_dask.cli.options import ClusterName, Cohort, Json, Pseudonymise, Quiet
from qsm_dask.place import Place

if TYPE_CHECKING:
    from qsm_dask.workflow.status import Status


def status(cohort: Cohort, as_json: Json = False) -> None:
    """Every scan: how far it is, seconds, peak memory, and why it failed; where each quantity came from.

    Exit code 0 only if all are done or skipped.

    Example: `qsm-dask status study.qsm --json`
    """
    from qsm_dask.workflow import status as workflow

    store = steps.open_store(cohort)
    with waiting("reading the cohort", quiet=as_json):
        found = workflow.run(store)
    if as_json:
        write_json(found.rows)
    else:
        _show_status(found, cohort)
    raise typer.Exit(0 if found.all_done else 1)


def verify(
    cohort: Cohort,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Withdraw damaged commits and compute their nodes anew, by the pipeline of the cohort; make a damaged "
            "index anew.",
        ),
    ] = False,
    cluster: ClusterName = "serial",
    pseudonymise: Pseudonymise = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Decode every committed array and compare it with its commit.

    Damage is named by scan, node and file. A damaged ingest can be withdrawn, not computed: `qsm-dask run` or `ingest`
    reads it from the dataset again.

    Exit code 0: all is whole, or was repaired; 1: there is damage, or some is left.

    Example: `qsm-dask verify study.qsm --cluster local`
    """
    from qsm_dask.workflow import verify as workflow

    silent = quiet or as_json
    store = steps.open_store(cohort)
    if repair:
        for name in store.upkeep.mend_index():
            warn(f"the index was damaged ({name}) and is made anew from the commits; why scans failed is forgotten")
    with steps.open_cluster(cluster, quiet=silent, pseudonymise=pseudonymise) as engine:
        with progress("verify", quiet=silent) as shown:
            damages = workflow.run(store, engine, progress=shown)
        if not as_json:
            for damage in damages:
                OUT.print(str(damage), highlight=False, markup=False)
        left = {damage.scan: damage.reason for damage in damages}
        if repair and damages:
            left = steps.repair(store, engine, damages, quiet=silent)
    if as_json:
        about = [{"repaired": damage.scan not in left} if repair else {} for damage in damages]
        write_json([vars(damage) | more for damage, more in zip(damages, about, strict=True)])
    elif repair:
        list_reasons(left)
    elif damages:
        say(f"{len(damages)} damaged: `qsm-dask verify {cohort} --repair` computes anew what they belong to")
    if not damages and not silent:
        say("every committed array is whole")
    raise typer.Exit(1 if left else 0)


def _show_status(found: "Status", cohort: Place) -> None:
    if not found.rows:
        say(f"no scan was ingested yet: run `qsm-dask run BIDS {cohort}`")
        return
    rows = [
        row
        | {
            "seconds": f"{row['seconds']:.1f}" if row["seconds"] else "",
            "peak": f"{row['peak_bytes'] / 2**20:.0f} MiB" if row["peak_bytes"] else "",
        }
        for row in found.rows
    ]
    table("", ("scan", "node", "state", "seconds", "peak", "reason"), rows, numbers=("seconds", "peak"))
    origins = Counter((source["quantity"], _origin(source)) for source in found.sources)
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
    for one in found.warnings:
        OUT.print(f"warning   {one['scan']}: {one['reason']}", highlight=False, markup=False)


def _origin(source: Mapping[str, Any]) -> str:
    """Where a quantity came from, the same for all scans of a dataset: their own folders are left out."""
    if source["from"] != "derivatives":
        return str(source["from"])
    return ", ".join(sorted({file.partition("/sub-")[0] for file in source["files"]}))
