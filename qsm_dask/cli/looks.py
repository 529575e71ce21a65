"""Commands that look at a cohort and change nothing."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from qsm_dask.cli import steps
from qsm_dask.cli.console import OUT, progress, say, table, waiting, write_json
from qsm_dask.cli.options import ClusterName, Cohort, Json, Quiet

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


def verify(cohort: Cohort, cluster: ClusterName = "serial", quiet: Quiet = False, as_json: Json = False) -> None:
    """Decode every committed array and compare it with its commit.

    Exit code 1 on damage, naming scan, node and file.

    Example: `qsm-dask verify study.qsm --cluster local`
    """
    from qsm_dask.workflow import verify as workflow

    store = steps.open_store(cohort)
    with (
        steps.open_cluster(cluster, quiet=quiet or as_json) as engine,
        progress("verify", quiet=quiet or as_json) as shown,
    ):
        damages = workflow.run(store, engine, progress=shown)
    if as_json:
        write_json([vars(damage) for damage in damages])
    else:
        for damage in damages:
            OUT.print(str(damage), highlight=False, markup=False)
        if damages:
            say(
                f"{len(damages)} damaged: delete the folder of each commit named above (it holds COMMIT.json), "
                "and run the same `qsm-dask run` again: the nodes are computed anew"
            )
        elif not quiet:
            say("every committed array is whole")
    raise typer.Exit(1 if damages else 0)


def _show_status(found: "Status", cohort: Path) -> None:
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
