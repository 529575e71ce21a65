"""From the description of a cluster to an engine that runs on it.

A kind of cluster is one dataclass and one line of `KINDS`. Its fields are the options of its
YAML file, with their defaults; `open` starts it, `describe` tells what would be started.
"""

import signal
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from qsm_dask import resources
from qsm_dask.engine.base import Engine, SerialEngine, gibibytes
from qsm_dask.engine.batch import HtCondor, Lsf, Pbs, Sge, Slurm
from qsm_dask.engine.hosted import Aws, Azure, Coiled, Gateway, Gcp
from qsm_dask.engine.kubernetes import Kubernetes
from qsm_dask.engine.recycling import Recycling
from qsm_dask.engine.resources import Machine
from qsm_dask.engine.running import Running
from qsm_dask.engine.sizing import AUTO, plan, task_limit, whole
from qsm_dask.engine.ssh import Ssh
from qsm_dask.errors import ConfigError

NODE = "node"
"""Where a cluster file describes the machines that its workers run on, for `qsm-dask plan` alone."""


class Cluster(Protocol):
    """What a cluster file describes."""

    @property
    def threads_per_worker(self) -> int:
        """Threads that the kernels of one scan use."""
        ...

    def open(self) -> AbstractContextManager[Engine]:
        """Start it, and shut it down at the end."""
        ...

    def describe(self) -> str:
        """What would be started or submitted, as text."""
        ...


def read_spec(name: str | Path) -> Mapping[str, Any]:
    """The description behind `--cluster`: a shipped name, a file's path, or a scheduler's address.

    Raises
    ------
    ConfigError : there is no such file, or it is no description.
    """
    if "://" in str(name):
        return {"kind": "running", "address": str(name)}
    return resources.load("cluster", name)


def parse(spec: Mapping[str, Any]) -> Cluster:
    """Check a description.

    Parameters
    ----------
    spec : `kind`, one of `KINDS`, and that kind's options; `name` is ignored, and so is `node` (see `fleet.Node`).

    Raises
    ------
    ConfigError : an option is unknown, or its value cannot be meant.
    """
    options = {name: value for name, value in spec.items() if name not in {"kind", "name", NODE}}
    kind = str(spec.get("kind", ""))
    if kind not in KINDS:
        raise ConfigError(f"cluster: kind {kind!r} is unknown{_hint(kind, KINDS)}")
    known = [field.name for field in fields(KINDS[kind])]
    for name in options:
        if name not in known:
            raise ConfigError(f"cluster of kind {kind}: option {name!r} is unknown{_hint(name, known)}")
    cluster: Cluster = KINDS[kind](**options)
    return cluster


@contextmanager
def open_engine(spec: Mapping[str, Any]) -> Iterator[Engine]:
    """Start what a cluster file describes, and shut it down at the end.

    SIGTERM ends the block in order, as Ctrl-C does, while the engine is open in the main thread.

    Parameters
    ----------
    spec : see `parse`.

    Yields
    ------
    Engine : with `slots`, `limit`, `threads` and `dashboard` of the cluster.

    Raises
    ------
    ConfigError : an option is unknown, or does not fit this machine.
    """
    with _orderly_sigterm(), parse(spec).open() as engine:
        yield engine


@dataclass(frozen=True, kw_only=True)
class Serial:
    """One scan after another in this process. The options are told in `cluster/serial.yaml`."""

    threads_per_worker: int = 1
    memory: str | int = AUTO

    @contextmanager
    def open(self) -> Iterator[Engine]:
        """An engine that needs no start."""
        threads, size = self._plan()
        yield SerialEngine(task_limit(size), threads)

    def describe(self) -> str:
        """How much memory there is."""
        threads, size = self._plan()
        return f"one scan after another in this process: {gibibytes(size)} of memory, {threads} threads"

    def _plan(self) -> tuple[int, int]:
        threads = whole("threads_per_worker", self.threads_per_worker)
        return threads, plan(Machine.here(), workers=1, threads=threads, memory=self.memory)[1]


@dataclass(frozen=True, kw_only=True)
class Local(Recycling):
    """Worker processes on this machine. The options are told in `cluster/local.yaml`."""

    workers: str | int = AUTO
    threads_per_worker: int = 1
    memory: str | int = AUTO
    scratch: str | None = None

    @contextmanager
    def open(self) -> Iterator[Engine]:
        """Start the workers."""
        from qsm_dask.engine.local import local_engine  # distributed takes a third of a second to import

        threads, count, size = self._plan()
        with local_engine(count, size, task_limit(size), threads, self.scratch, self.wear()) as engine:
            yield engine

    def describe(self) -> str:
        """How many workers there are, and their memory."""
        threads, count, size = self._plan()
        task_limit(size)
        return f"{count} worker processes on this machine, each with {gibibytes(size)} of memory, {threads} threads"

    def _plan(self) -> tuple[int, int, int]:
        threads = whole("threads_per_worker", self.threads_per_worker)
        return threads, *plan(Machine.here(), workers=self.workers, threads=threads, memory=self.memory)


KINDS: dict[str, Any] = {
    "serial": Serial,
    "local": Local,
    "ssh": Ssh,
    "slurm": Slurm,
    "pbs": Pbs,
    "sge": Sge,
    "lsf": Lsf,
    "htcondor": HtCondor,
    "kubernetes": Kubernetes,
    "aws": Aws,
    "gcp": Gcp,
    "azure": Azure,
    "coiled": Coiled,
    "gateway": Gateway,
    "running": Running,
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


def _hint(name: str, known: Iterable[str]) -> str:
    known = list(known)
    close = get_close_matches(name, known, 1)
    return (f": did you mean {close[0]!r}?" if close else ".") + f" Known are: {', '.join(known)}"
