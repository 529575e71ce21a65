"""What the commands share in speaking to people: progress, tables, warnings."""

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.status import Status
from rich.table import Table

from qsm_dask.cli.stopping import check_stopped

OUT = Console(soft_wrap=True)
ERR = Console(stderr=True, soft_wrap=True)

_PATIENCE_S = 1.0

Report = Callable[[int, int, str], None]


def complain(text: str) -> None:
    """An error, on the standard error stream."""
    ERR.print(f"[bold red]error:[/] {escape(text)}", highlight=False)


def warn(text: str) -> None:
    """A warning, on the standard error stream."""
    ERR.print(f"[bold yellow]warning:[/] {escape(text)}", highlight=False)


def say(text: str) -> None:
    """A line for people, on the standard error stream, so that the output stays machine-readable."""
    ERR.print(escape(text), highlight=False)


def write_json(content: Any) -> None:
    """Plain values on the standard output, for scripts."""
    print(json.dumps(content, indent=2, default=str))


def list_reasons(reasons: Mapping[str, str]) -> None:
    """Scans that did not succeed, each with the reason, on the standard error stream."""
    for scan, reason in sorted(reasons.items()):
        ERR.print(f"  [red]{escape(scan)}[/]  ", end="", highlight=False)
        ERR.print(reason, markup=False, highlight=False)


@contextmanager
def waiting(what: str, *, quiet: bool) -> Iterator[None]:
    """A spinner for work that cannot tell how far it is; it shows itself after a second and leaves no trace."""
    if quiet:
        yield
        return
    status = Status(what, console=ERR)
    with _appearing(status.start, status.stop):
        yield


@contextmanager
def progress(title: str, *, quiet: bool) -> Iterator[Report]:
    """A progress bar; yields what a workflow calls with (finished, in all, name), and what answers to Ctrl-C.

    It appears with the first call, or after a second without one; if none comes, it leaves no trace.
    """
    check_stopped()
    if quiet:
        yield lambda _finished, _total, _name: check_stopped()
        return
    columns = (
        TextColumn(f"{title:<9}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[name]}", markup=False),
    )
    bar = Progress(*columns, console=ERR)
    task = bar.add_task(title, total=None, name="")

    bar.live.transient = True  # nothing done yet: an error should stand alone

    def report(finished: int, total: int, name: str) -> None:
        check_stopped()
        bar.live.transient = False
        bar.start()
        bar.update(task, completed=finished, total=total, name=name)

    def stop() -> None:
        if bar.live.is_started:  # else it would print an empty line
            bar.stop()

    with _appearing(bar.start, stop):
        yield report


@contextmanager
def _appearing(start: Callable[[], None], stop: Callable[[], None]) -> Iterator[None]:
    """Show something unless the block ends within a second, on a terminal; end it with the block."""
    timer = threading.Timer(_PATIENCE_S, start)
    timer.daemon = True
    if ERR.is_terminal:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if timer.ident is not None:
            timer.join()  # it may be drawing just now
        stop()


def table(
    title: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]], *, numbers: Sequence[str] = ()
) -> None:
    """Print rows as a table on the standard output."""
    drawn = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    for column in columns:
        drawn.add_column(column.replace("_", " "), justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(escape(str(row.get(column, ""))) for column in columns))
    (OUT if OUT.is_terminal else Console(width=160)).print(drawn)


def show_log() -> None:
    """Send the package's own warnings to the standard error stream; other packages keep their ways."""
    log = logging.getLogger("qsm_dask")
    log.handlers = [RichHandler(console=ERR, show_time=False, show_path=False)]
    log.setLevel(logging.WARNING)
    log.propagate = False
