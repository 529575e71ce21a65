"""What the commands share in speaking to people: progress, tables, warnings."""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.status import Status
from rich.table import Table
from rich.text import Text

from qsm_dask.cli.stopping import check_stopped
from qsm_dask.events import LOGGER

if TYPE_CHECKING:
    from qsm_dask.engine import Engine

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


class _View(Progress):
    """A bar, and under it what the engine does just now."""

    def __init__(self, title: str, engine: "Engine | None") -> None:
        columns = (
            TextColumn(f"{title:<9}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[name]}", markup=False),
        )
        self.engine = engine
        self.failed: set[str] = set()
        self.began = time.monotonic()
        super().__init__(*columns, console=ERR)
        self.bar = self.add_task(title, total=None, name="")

    def get_renderables(self) -> Iterator[RenderableType]:
        """What is drawn, several times a second."""
        yield from super().get_renderables()
        if self.engine is not None and not self.finished:
            yield Text(f"{'':<10}{self._activity(self.engine)}", style="dim")

    def _activity(self, engine: "Engine") -> str:
        now, done = engine.activity(), self.tasks[0].completed
        parts = [f"{now.running} running", f"{len(self.failed)} failed"]
        if done:
            parts.append(f"{3600 * done / (time.monotonic() - self.began):.3g} an hour")
        if now.memory:
            parts.append(f"{now.memory / 2**30:.1f} GiB in {now.workers} worker{'s' * (now.workers != 1)}")
        if engine.dashboard:
            parts.append(engine.dashboard)
        return " · ".join(parts)

    def note(self, record: logging.LogRecord) -> bool:
        """Count a scan that failed; it is a filter that lets everything pass."""
        if record.levelno >= logging.ERROR:
            self.failed.add(str(getattr(record, "scan", "")))
        return True


@contextmanager
def progress(title: str, *, quiet: bool, engine: "Engine | None" = None) -> Iterator[Report]:
    """A progress bar; yields what a workflow calls with (finished, in all, name), and what answers to Ctrl-C.

    It appears with the first call, or after a second without one; if none comes, it leaves no trace. With an
    engine, a line below tells what runs, what failed, how fast it goes, the workers' memory and the dashboard.
    """
    check_stopped()
    if quiet:
        yield lambda _finished, _total, _name: check_stopped()
        return
    bar = _View(title, engine)
    bar.live.transient = True  # nothing done yet: an error should stand alone

    def report(finished: int, total: int, name: str) -> None:
        check_stopped()
        bar.live.transient = False
        bar.start()
        bar.update(bar.bar, completed=finished, total=total, name=name)

    def stop() -> None:
        if bar.live.is_started:  # else it would print an empty line
            bar.stop()

    events = logging.getLogger(LOGGER)
    events.addFilter(bar.note)
    try:
        with _appearing(bar.start, stop):
            yield report
    finally:
        events.removeFilter(bar.note)


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
