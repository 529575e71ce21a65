"""The application `qsm-dask`: its commands, and how errors end it."""

import sys

import typer

from qsm_dask.cli import cohorts, tools
from qsm_dask.cli.console import complain, show_log
from qsm_dask.errors import ConfigError, InputError, QsmError

app = typer.Typer(
    name="qsm-dask",
    help="Quantitative susceptibility mapping for cohorts: a BIDS folder in, regional iron out, on Zarr and Dask.",
    epilog="Start with `qsm-dask demo`. Then: `qsm-dask run BIDS COHORT`, and look at COHORT/report/index.html.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

_WHOLE, _STEPS, _LOOK, _TRY = "The whole way", "Step by step", "Look at a cohort", "Try and learn"

app.command(rich_help_panel=_WHOLE)(cohorts.run)
app.command(rich_help_panel=_STEPS)(cohorts.ingest)
app.command(rich_help_panel=_STEPS)(cohorts.process)
app.command(rich_help_panel=_STEPS)(cohorts.compare)
app.command(rich_help_panel=_STEPS)(cohorts.report)
app.command(rich_help_panel=_STEPS)(cohorts.export)
app.command(rich_help_panel=_LOOK)(cohorts.status)
app.command(rich_help_panel=_LOOK)(cohorts.verify)
app.command(rich_help_panel=_LOOK)(tools.gc)
app.command(rich_help_panel=_TRY)(tools.demo)
app.command(rich_help_panel=_TRY)(tools.simulate)
app.command(rich_help_panel=_TRY)(tools.apply)
app.command(rich_help_panel=_TRY)(tools.stages)
app.command(rich_help_panel=_TRY)(tools.pipelines)


def _version(show: bool) -> None:
    if show:
        from qsm_dask.provenance import software

        typer.echo(f"qsm-dask {software()['qsm-dask']}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    del version


def main() -> None:
    """Run the command line; exit 0 when all is well, 1 when scans failed, 2 on wrong usage."""
    show_log()
    try:
        app()
    except (ConfigError, InputError) as error:
        complain(str(error))
        sys.exit(2)
    except QsmError as error:
        complain(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        complain("stopped; what is committed is kept: the same command goes on from there")
        sys.exit(130)
