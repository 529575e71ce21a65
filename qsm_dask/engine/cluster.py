"""From the description of a cluster to an engine that runs on it.

A kind of cluster is one function and one line of `KINDS`. The function's keyword arguments are
the options of its YAML file, with their defaults.
"""

import inspect
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from difflib import get_close_matches
from types import FrameType
from typing import Any

from qsm_dask.engine.base import Engine, SerialEngine
from qsm_dask.engine.resources import Machine
from qsm_dask.engine.sizing import AUTO, plan, task_limit, whole
from qsm_dask.errors import ConfigError


@contextmanager
def open_engine(spec: Mapping[str, Any]) -> Iterator[Engine]:
    """Start what a cluster file describes, and shut it down at the end.

    SIGTERM ends the block in order, as Ctrl-C does, while the engine is open in the main thread.

    Parameters
    ----------
    spec : `kind`, one of `KINDS`, and that kind's options; `name` is ignored.

    Yields
    ------
    Engine : with `slots`, `limit`, `threads` and `dashboard` of the cluster.

    Raises
    ------
    ConfigError : an option is unknown, or does not fit this machine.
    """
    options = {name: value for name, value in spec.items() if name not in {"kind", "name"}}
    kind = str(spec.get("kind", ""))
    if kind not in KINDS:
        raise ConfigError(f"cluster: kind {kind!r} is unknown{_hint(kind, KINDS)}")
    known = inspect.signature(KINDS[kind]).parameters
    for name in options:
        if name not in known:
            raise ConfigError(f"cluster of kind {kind}: option {name!r} is unknown{_hint(name, known)}")
    with _orderly_sigterm(), KINDS[kind](**options) as engine:
        yield engine


@contextmanager
def _serial(*, threads_per_worker: int = 1, memory: str | int = AUTO) -> Iterator[Engine]:
    threads = whole("threads_per_worker", threads_per_worker)
    _, size = plan(Machine.here(), workers=1, threads=threads, memory=memory)
    yield SerialEngine(task_limit(size), threads)


@contextmanager
def _local(
    *, workers: str | int = AUTO, threads_per_worker: int = 1, memory: str | int = AUTO, scratch: str | None = None
) -> Iterator[Engine]:
    from qsm_dask.engine.local import local_engine  # distributed takes a third of a second to import

    threads = whole("threads_per_worker", threads_per_worker)
    count, size = plan(Machine.here(), workers=workers, threads=threads, memory=memory)
    with local_engine(count, size, task_limit(size), threads, scratch) as engine:
        yield engine


KINDS: dict[str, Callable[..., AbstractContextManager[Engine]]] = {
    "serial": _serial,
    "local": _local,
}


@contextmanager
def _orderly_sigterm() -> Iterator[None]:
    """Let SIGTERM unwind the stack, where nobody handles it otherwise."""
    mine = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if not mine:
        yield
        return

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _hint(name: str, known: Mapping[str, Any]) -> str:
    close = get_close_matches(name, known, 1)
    return (f": did you mean {close[0]!r}?" if close else ".") + f" Known are: {', '.join(known)}"
