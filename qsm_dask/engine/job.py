"""One key under way in the dask engine: what the driver knows of it, and what of it runs on a worker."""

# mypy: disable-error-code="no-untyped-call"
# distributed is typed in part only

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from distributed import Future, Nanny, get_worker

from qsm_dask.engine.base import Record, attempt
from qsm_dask.engine.wear import plugin_name

K = TypeVar("K")


@dataclass(frozen=True)
class Start:
    """A task says that it has started.

    Attributes
    ----------
    worker : where.
    at : when the driver heard of it, by `time.monotonic` [s].
    """

    worker: str
    at: float


@dataclass(eq=False)
class Job:
    """One key under way. A job has one submission at a time, known by its number.

    Attributes
    ----------
    key : as it was given.
    tries : how often the task returned or raised.
    deaths : of workers that are charged to it.
    losses : how often it was lost with its worker, uncharged.
    cramped : how often its worker was stopped for its memory.
    number : of its last submission.
    future : of its last submission.
    worker : where it has started; empty before that.
    started : when, by `time.monotonic` [s]; None before that.
    """

    key: Any
    tries: int = 0
    deaths: int = 0
    losses: int = 0
    cramped: int = 0
    number: int = -1
    future: "Future[Any] | None" = None
    worker: str = ""
    started: float | None = None

    @property
    def seconds(self) -> float:
        """For how long it has run [s]; 0 before it has started."""
        return 0.0 if self.started is None else time.monotonic() - self.started


def perform(task: Callable[[K], Any], key: K, topic: str, name: str, number: int) -> tuple[Record, str]:
    """Run the task of a submission, and say that it starts; runs on a worker.

    Parameters
    ----------
    task, key : what to run.
    topic : of the engine, where it listens.
    name, number : which map and which of its submissions this is.

    Returns
    -------
    tuple : what became of it, and the worker's address.
    """
    worker = get_worker()
    wear: Any = worker.plugins.get(plugin_name(topic))
    if wear is not None:
        wear.rest()
    worker.log_event(topic, {"map": name, "number": number, "worker": worker.address})
    record = attempt(task, key)
    if wear is not None:
        wear.note()
    return record, worker.address


def kill_worker(dask_worker: Nanny) -> None:
    """End a worker; runs in its nanny, which starts another: a task in native code hears nothing else."""
    if dask_worker.pid:
        os.kill(dask_worker.pid, signal.SIGKILL)
