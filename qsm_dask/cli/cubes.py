"""Commands for maps in standard space."""

from typing import Annotated

import typer

from qsm_dask.cli import steps
from qsm_dask.cli.console import write_json
from qsm_dask.cli.options import ClusterName, Cohort, Json, Quiet


def cube(
    cohort: Cohort,
    *,
    compact: Annotated[
        bool,
        typer.Option(
            "--compact",
            help="Also write the scans of small segments together, as one more: where scans came a few at a time, "
            "bricks are read in fewer pieces. `gc --superseded` then removes the small ones.",
        ),
    ] = False,
    cluster: ClusterName = "serial",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Append the maps of scans in standard space to the cohort cube, which is read by brick.

    What is in the cube already is not touched. Scans have such maps where the pipeline has `anatomy.standard`.

    Exit code 0: all are in the cube; 1: some could not be appended.

    Example: `qsm-dask cube study.qsm --cluster local`
    """
    store = steps.open_store(cohort)
    with steps.open_cluster(cluster, quiet=quiet or as_json) as engine:
        summary = steps.append_cube(store, engine, compact=compact, quiet=quiet or as_json)
    if as_json:
        write_json(vars(summary))
    raise typer.Exit(1 if summary.failures else 0)
