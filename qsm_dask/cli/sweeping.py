"""The command that removes what a cohort no longer needs."""

from typing import Annotated, Any

import typer

from qsm_dask.cli import steps
from qsm_dask.cli.console import OUT, progress, say, write_json
from qsm_dask.cli.options import Cohort, Json, Quiet


def gc(
    cohort: Cohort,
    older_than: Annotated[float, typer.Option(min=0.0, help="Leave alone what is younger, in hours.")] = 24.0,
    superseded: Annotated[
        bool, typer.Option("--superseded", help="Also results of earlier pipelines, where the present one's are whole.")
    ] = False,
    delete: Annotated[
        bool, typer.Option("--delete", help="Remove what is found; without it, it is only listed.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Find what no commit names, such as the arrays of runs that were killed, and free its space.

    Example: `qsm-dask gc study.qsm`, then the same with `--delete`
    """
    from qsm_dask.workflow import gc as workflow

    store = steps.open_store(cohort)
    with progress("gc", quiet=quiet or as_json) as shown:
        summary = workflow.run(store, older_than_h=older_than, superseded=superseded, delete=delete, progress=shown)
    rows: list[dict[str, Any]] = [
        {"scan": str(one.scan or ""), "node": one.node, "kind": one.kind, "bytes": one.size, "place": one.place}
        for one in summary.found
    ]
    if as_json:
        write_json(rows)
    else:
        for row in rows:
            OUT.print(
                f"{row['kind']:<10}  {row['bytes'] / 2**20:8.1f} MiB  {row['place']}", highlight=False, markup=False
            )
        say(
            f"{len(rows)} found, {summary.size / 2**20:.1f} MiB"
            + ("; removed" if summary.removed else "; nothing was removed: --delete does" if rows else "")
        )
