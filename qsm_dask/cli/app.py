"""The application `qsm-dask`: its commands, and how errors end it."""

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from qsm_dask.cli import choices, clusters, cohorts, cubes, looks, planning, sweeping, tools, values
from qsm_dask.cli.console import complain
from qsm_dask.cli.logs import shown_log, write_log
from qsm_dask.cli.stopping import remembering
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

_STOPPED, _TERMINATED = 130, 143
"""The exit codes of a program that Ctrl-C or SIGTERM ended: 128 and the number of the signal."""

_WHOLE, _STEPS, _LOOK, _TRY = "The whole way", "Step by step", "Look at a cohort", "Try and learn"


class Interrupted(Exception):
    """Ctrl-C, before the command line's library makes `Aborted!` of it."""


def _command(panel: str, function: Callable[..., None], group: typer.Typer = app) -> None:
    @wraps(function)
    def interruptible(*args: Any, **options: Any) -> None:
        try:
            function(*args, **options)
        except KeyboardInterrupt:
            raise Interrupted from None

    group.command(rich_help_panel=panel)(interruptible)


_command(_WHOLE, cohorts.run)
_command(_STEPS, cohorts.ingest)
_command(_STEPS, cohorts.process)
_command(_STEPS, cohorts.compare)
_command(_STEPS, values.iron)
_command(_STEPS, cubes.cube)
_command(_STEPS, cubes.template)
_command(_STEPS, cohorts.report)
_command(_STEPS, cohorts.export)
_command(_LOOK, planning.plan)
_command(_LOOK, looks.status)
_command(_LOOK, looks.verify)
_command(_LOOK, sweeping.gc)
_command(_TRY, tools.demo)
_command(_TRY, tools.simulate)
_command(_TRY, tools.apply)
_command(_TRY, choices.stages)
_command(_TRY, choices.pipelines)

_clusters = typer.Typer(no_args_is_help=True, help="Look at the descriptions of clusters.")
_command("Commands", clusters.check, _clusters)
app.add_typer(_clusters, name="cluster", rich_help_panel=_TRY)


def _version(show: bool) -> None:
    if show:
        from qsm_dask.provenance import software

        typer.echo(f"qsm-dask {software()['qsm-dask']}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    log: Annotated[
        Path | None,
        typer.Option(
            "--log",
            metavar="FILE",
            envvar="QSM_DASK_LOG",
            help="Append what becomes of each scan, and every warning, to FILE: JSON lines with scan and step.",
        ),
    ] = None,
) -> None:
    del version
    if log is not None:
        write_log(log)


def main() -> None:
    """Run the command line; exit 0 when all is well, 1 when scans failed, 2 on wrong usage, 130 or 143 when stopped."""
    try:
        with shown_log(), remembering():
            app(prog_name="qsm-dask")
    except (ConfigError, InputError) as error:
        complain(str(error))
        sys.exit(2)
    except (QsmError, OSError) as error:  # of a disk that is full, or a file that may not be written
        complain(str(error))
        sys.exit(1)
    except (Interrupted, KeyboardInterrupt):
        _stopped(_STOPPED)
    except SystemExit as end:
        if end.code == _STOPPED:  # Ctrl-C before the command itself began
            _stopped(_STOPPED)
        if end.code == _TERMINATED:
            _stopped(_TERMINATED)
        raise


def _stopped(code: int) -> NoReturn:
    complain("stopped; what is done is kept: run the same command again to go on from there")
    sys.exit(code)
