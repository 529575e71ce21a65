"""Commands that make numbers of region values."""

from typing import Annotated

import typer

from qsm_dask.cli import steps
from qsm_dask.cli.console import list_reasons, say, waiting, warn, write_json
from qsm_dask.cli.options import Cohort, Json, Quiet


def iron(
    cohort: Cohort,
    calibration: Annotated[
        str,
        typer.Option(
            "--calibration",
            metavar="NAME|FILE",
            show_default=False,
            help="`zheng2013`, `langkammer2012`, `simulated` (of simulated heads only), or your own YAML file.",
        ),
    ],
    reference: Annotated[
        str, typer.Option("--reference", metavar="NAME", help="What susceptibility is made relative to first.")
    ] = "csf",
    statistic: Annotated[
        str,
        typer.Option(
            "--statistic",
            metavar="NAME",
            help="`core_mean` leaves out the edge of a nucleus, which its neighbours fill in part; `mean` takes all of "
            "it. Also `clipped_mean`, `trimmed_mean` and `weighted_mean`.",
        ),
    ] = "core_mean",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write the iron of deep grey matter in ug/g, with its error: `tables/iron.tsv`.

    Nothing is computed again. White matter, fluid and vessels are refused with the reason, and so is a reference that
    the calibration does not hold for.

    Exit code 0: every scan has iron; 1: some have none; 2: wrong usage.

    Example: `qsm-dask iron study.qsm --calibration zheng2013`
    """
    from qsm_dask.cohort.iron import calibration as read_calibration
    from qsm_dask.workflow import iron as workflow

    store = steps.open_store(cohort)
    line = read_calibration(calibration)
    with waiting("reading the region values", quiet=quiet or as_json):
        summary = workflow.run(store, calibration, reference, statistic)
    if as_json:
        write_json(vars(summary))
    else:
        if line.recalled:
            warn(f"calibration {calibration}: not checked against its source is {line.recalled}")
        if not quiet:
            say(f"iron      {len(summary.regions)} regions of {summary.scans} scans: {store.place.of(summary.table)}")
            list_reasons(summary.refused)
        for scan in summary.without:
            warn(f"{scan} has no iron: it lacks the reference {reference}, or {statistic} in every deep grey region")
    raise typer.Exit(1 if summary.without else 0)
