"""What every engine promises, and the engine that needs no cluster.

An engine runs one task a key and hands back one `Outcome` a key, in order of completion. A
failure is an `Outcome` too: nothing that a task does ends the others.
"""

import logging
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Protocol, TypeVar

from qsm_dask.engine.packages import advice, lacking
from qsm_dask.engine.resources import resident
from qsm_dask.errors import ConfigError, EngineError

K = TypeVar("K")
_LOG = logging.getLogger(__name__)
_REASON_LENGTH = 1000
_TRACEBACK_LENGTH = 20_000


@dataclass(frozen=True)
class Outcome:
    """What became of one key.

    Attributes
    ----------
    key : the key as it was given.
    ok : whether the task returned.
    value : what the task returned; None when it failed.
    error : why it failed, in one line; empty when it did not.
    error_type : name of the exception's class; `EngineError` when the worker died, ran out of
        time or is too small.
    traceback : the exception's traceback; empty where there is none.
    seconds : how long the last attempt ran [s].
    worker : where the last attempt ran.
    attempts : how often the task was started: tries that ended in an exception, and worker
        deaths charged to it, included. 0 when it was refused.
    """

    key: Any
    ok: bool
    value: Any
    error: str
    error_type: str
    traceback: str
    seconds: float
    worker: str
    attempts: int


@dataclass(frozen=True)
class Activity:
    """What an engine does just now.

    Attributes
    ----------
    running : tasks that have started and not ended.
    workers : processes that run tasks, as far as known.
    memory : what these processes take together [bytes]; 0 where unknown.
    """

    running: int = 0
    workers: int = 0
    memory: int = 0


class Engine(Protocol):
    """Runs one task for each of many keys.

    Attributes
    ----------
    name_of : what a key is called where others may look: in task names, hence on the dashboard.
    """

    name_of: Callable[[Any], str]

    @property
    def slots(self) -> int:
        """How many tasks run at once."""
        ...

    @property
    def limit(self) -> int:
        """Memory that one task may take, beside its process's own [bytes]."""
        ...

    @property
    def threads(self) -> int:
        """How many threads one task may use in its kernels."""
        ...

    @property
    def dashboard(self) -> str | None:
        """Address of a page that shows the work, or None."""
        ...

    def activity(self) -> Activity:
        """What is under way, at once and from any thread; figures may be some seconds old."""
        ...

    def require(self, packages: Mapping[str, str]) -> None:
        """Make sure that tasks find the packages they import, on workers that join later too.

        Parameters
        ----------
        packages : modules, with the extra of qsm-dask that brings each.

        Raises
        ------
        ConfigError : one is not installed where tasks run; the message says how to come by it.
        """
        ...

    def map(
        self,
        task: Callable[[K], Any],
        keys: Iterable[K],
        *,
        memory: Callable[[K], int],
        retries: int = 0,
        timeout_s: float | None = None,
    ) -> Iterator[Outcome]:
        """Run `task(key)` for every key; outcomes come in order of completion.

        Tasks may run more than once (a worker dies after the work and before the answer), so
        they must be idempotent; they return figures, never volumes. Keys are drawn as slots
        fall free, so `keys` may be long. Closing the iterator drops what has not started.

        Parameters
        ----------
        task : picklable, and so is what it returns.
        keys : picklable; `str(key)` names the key in messages, `name_of` on the dashboard.
        memory : projected peak of one key [bytes]; above `limit` the key is refused unrun.
        retries : how often a task that raised is tried again. Worker deaths are counted apart.
        timeout_s : a task that runs longer fails; it is not tried again.

        Raises
        ------
        EngineError : the engine itself is gone: nothing can run any more.
        """
        ...


@dataclass(frozen=True)
class Record:
    """How one attempt ended: what `Outcome` says of it, in values that pickle.

    `again` tells a failure that another try may cure from one that it cannot.
    """

    ok: bool
    value: Any = None
    error: str = ""
    error_type: str = ""
    traceback: str = ""
    seconds: float = 0.0
    again: bool = False

    @classmethod
    def of_error(cls, error: BaseException, seconds: float = 0.0, *, skip: int = 0, again: bool = True) -> "Record":
        """A failure as text: exceptions may hold what cannot be pickled, or fail to print.

        `skip` frames of the traceback, the engine's own, are left out.
        """
        try:
            reason = " ".join(str(error).split())
        except Exception:  # noqa: BLE001 -- any code may stand in a foreign exception's __str__
            reason = "(its message cannot be printed)"
        frames = error.__traceback__
        for _ in range(skip):
            frames = frames.tb_next if frames else None
        try:
            text = "".join(traceback.format_exception(type(error), error, frames))
        except Exception:  # noqa: BLE001 -- see above
            text = "".join(traceback.format_tb(frames))
        name = type(error).__name__
        return cls(False, None, reason[:_REASON_LENGTH] or name, name, text[-_TRACEBACK_LENGTH:], seconds, again)

    def outcome(self, key: Any, worker: str, attempts: int) -> Outcome:
        """The outcome of a key whose last attempt ended this way."""
        return Outcome(
            key, self.ok, self.value, self.error, self.error_type, self.traceback, self.seconds, worker, attempts
        )


def failure(reason: str, seconds: float = 0.0) -> Record:
    """A failure that the engine itself states."""
    return Record(False, error=reason, error_type=EngineError.__name__, seconds=seconds)


def attempt(task: Callable[[K], Any], key: K) -> Record:
    """Run a task once, where it is meant to run; whatever it raises becomes a `Record`."""
    start = time.perf_counter()
    try:
        value = task(key)
    except (Exception, SystemExit) as error:  # noqa: BLE001 -- a failed scan is an Outcome, never a dead cohort
        return Record.of_error(error, time.perf_counter() - start, skip=1)
    seconds = time.perf_counter() - start
    try:
        pickle.dumps(value)
    except Exception as error:  # noqa: BLE001 -- pickling runs foreign code
        return failure(f"the task of {key} returned what cannot be pickled ({error}): return plain figures", seconds)
    return Record(True, value, seconds=seconds)


def refusal(key: K, memory: Callable[[K], int], limit: int) -> Record | None:
    """Why a key must not run here, or None."""
    try:
        projected = memory(key)
    except Exception as error:  # noqa: BLE001 -- a key that cannot be judged fails alone
        return Record.of_error(error, skip=1, again=False)
    if projected <= limit:
        return None
    return failure(
        f"{key} needs {gibibytes(projected)} (projected) and a task may take {gibibytes(limit)} here: "
        "give workers more memory (fewer `workers`, or a larger `memory`, in the cluster file)"
    )


def gibibytes(size: float) -> str:
    """A size for messages: `1.50 GiB`."""
    return f"{size / 2**30:.2f} GiB"


def overtime(key: object, timeout_s: float) -> str:
    """The reason of a key that ran out of time."""
    return f"{key} ran longer than {timeout_s:g} s and was stopped: allow more time, or look at why it takes so long"


def require_here(packages: Mapping[str, str]) -> None:
    """Refuse to run where this Python lacks a package; see `Engine.require`."""
    if missing := lacking(packages):
        raise ConfigError(f"this pipeline needs {advice(missing)}")


class SerialEngine:
    """Runs tasks one after another in this process: for debugging, job arrays and tests.

    A timeout needs SIGALRM, hence the main thread, and takes effect when Python code runs
    next: a kernel in native code is not interrupted. In another thread timeouts are ignored,
    with a warning in the log. A task that kills its process ends everything.

    Parameters
    ----------
    limit : memory that one task may take [bytes].
    threads : how many threads one task may use in its kernels.
    """

    slots = 1
    dashboard: str | None = None

    def __init__(self, limit: int, threads: int = 1) -> None:
        self.limit = limit
        self.threads = threads
        self.name_of: Callable[[Any], str] = str
        self.running = 0

    def activity(self) -> Activity:
        """See `Engine.activity`."""
        return Activity(self.running, 1, resident())

    def require(self, packages: Mapping[str, str]) -> None:
        """See `Engine.require`."""
        require_here(packages)

    def map(
        self,
        task: Callable[[K], Any],
        keys: Iterable[K],
        *,
        memory: Callable[[K], int],
        retries: int = 0,
        timeout_s: float | None = None,
    ) -> Iterator[Outcome]:
        """See `Engine.map`."""
        for key in keys:
            record = refusal(key, memory, self.limit)
            attempts = 0
            while record is None or (record.again and attempts <= retries):
                attempts += 1
                self.running = 1
                try:
                    record = _timed(task, key, timeout_s)
                finally:
                    self.running = 0
            yield record.outcome(key, "serial", attempts)


class _Overtime(BaseException):
    """Raised in a task by the alarm; no `except Exception` of the task swallows it."""


def _timed(task: Callable[[K], Any], key: K, timeout_s: float | None) -> Record:
    start = time.perf_counter()
    try:
        with _alarm(timeout_s):
            return attempt(task, key)
    except _Overtime:
        return failure(overtime(key, timeout_s or 0.0), time.perf_counter() - start)


@contextmanager
def _alarm(timeout_s: float | None) -> Iterator[None]:
    if timeout_s is None:
        yield
        return
    if threading.current_thread() is not threading.main_thread():
        _LOG.warning("timeouts need the main thread: %g s is ignored", timeout_s)
        yield
        return

    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise _Overtime

    previous = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, previous)
