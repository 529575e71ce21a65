"""The engine on dask.distributed: one coarse task a key, fed through a sliding window.

A task that its worker died of runs again alone, after all the others, until it succeeds or has
used up its deaths; `blame` finds out which task that was. When the worker was stopped for its
memory, the task gets twice the room, once. What was merely waiting for the same
worker is submitted again for free.
"""

# mypy: disable-error-code="no-untyped-call"
# distributed is typed in part only

import asyncio
import logging
import math
import os
import signal
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from distributed import CancelledError, Client, Future, KilledWorker, Nanny, get_worker

from qsm_dask.engine.admission import REFUSED, Admission
from qsm_dask.engine.base import (
    Activity,
    Outcome,
    Record,
    attempt,
    failure,
    gibibytes,
    overtime,
    refusal,
    require_here,
)
from qsm_dask.engine.blame import Blame, Verdict
from qsm_dask.engine.packages import advice, lacking
from qsm_dask.engine.preload import LEAVING
from qsm_dask.engine.wear import RECYCLED, Wear
from qsm_dask.errors import ConfigError, EngineError

K = TypeVar("K")
_LOG = logging.getLogger(__name__)
_WINDOW = 2  # tasks in flight for each slot: one runs, one waits
_FREE_LOSSES = 3  # as often a task may be lost with its worker, uncharged, before it must run alone
_PULSE_S = 5.0
_HOPE_S = 60.0  # how long to wait for better workers when those that came do not suit
_LOOK_S = 2.0
_ADVICE = "Give workers more memory (`memory` in the cluster file), or leave this scan out"
_MEMORY_TOPIC = "worker-restart-memory"  # where a nanny says that it stopped a worker for its memory


class NoRoomError(Exception):
    """No worker can be had that is larger than the others."""


class DaskEngine:
    """Runs tasks on the workers of a dask cluster, one task a worker at a time.

    Parameters
    ----------
    client : connected to a scheduler whose workers have one thread each. `allowed-failures: 0`
        on the scheduler lets this engine see every death; otherwise dask repeats a task on its
        own first.
    slots : how many tasks run at once when the cluster has its full size.
    limit : memory that one task may take [bytes].
    threads : how many threads one task may use in its kernels.
    deaths : a task is given up when as many workers died of it.
    patience_s : the engine gives up when there has been no worker for so long [s].
    own_python : whether workers run the Python of this process, so that it tells what they have before they are there.
    wear : after how many scans, and after what growth of its memory [bytes], a worker that has a nanny is started
        anew; None for never.
    larger : makes a worker of about twice the room for the time of a `with` block, and hands out
        its address; raises `NoRoomError` if it cannot. It is called while nothing else runs.

    Raises
    ------
    EngineError : the client is closed.
    """

    def __init__(
        self,
        client: Client,
        *,
        slots: int,
        limit: int,
        threads: int = 1,
        deaths: int = 3,
        patience_s: float = 60.0,
        own_python: bool = False,
        wear: tuple[int | None, int | None] = (None, None),
        larger: Callable[[], AbstractContextManager[str]] | None = None,
    ) -> None:
        if client.loop is None:
            raise EngineError("the dask client is closed: open it anew")
        self.client = client
        self.loop = client.loop
        self.slots = slots
        self.limit = limit
        self.threads = threads
        self.deaths = deaths
        self.patience_s = patience_s
        self.own_python = own_python
        self.larger = larger
        self.name_of: Callable[[Any], str] = str
        self.overfull: dict[str, int] = {}
        """Workers that were stopped for their memory, and what they had taken [bytes]."""
        self.left: set[str] = set()
        """Workers that ended in order: their time was over, or their job was called back."""
        self.recycled: set[str] = set()
        """Workers that were worn and ended between two scans."""
        self.refused = ""
        """Why workers that came were sent away."""
        self.topic = f"qsm-dask-{uuid.uuid4().hex}"
        self.maps: dict[str, _Map] = {}
        """Those under way, by name."""
        self.seen = Activity()
        self.looked_at = -math.inf
        client.subscribe_topic(_MEMORY_TOPIC, self._note_overfull)
        client.subscribe_topic(LEAVING, self._note_leaving)
        client.subscribe_topic(REFUSED, self._note_refused)
        client.subscribe_topic(RECYCLED, self._note_recycled)
        client.subscribe_topic(self.topic, self._note_start)
        self._admit({})
        if wear != (None, None):
            client.register_plugin(Wear(*wear), name=_wear_of(self.topic))

    @property
    def dashboard(self) -> str | None:
        """Address of dask's dashboard; None where it is not installed."""
        return self.client.dashboard_link if find_spec("bokeh") else None

    def map(
        self,
        task: Callable[[K], Any],
        keys: Iterable[K],
        *,
        memory: Callable[[K], int],
        retries: int = 0,
        timeout_s: float | None = None,
    ) -> Iterator[Outcome]:
        """See `Engine.map`. Closing the iterator cancels what waits; what runs, runs to its end."""
        return _Map(self, task, iter(keys), memory, retries, timeout_s).outcomes()

    def require(self, packages: Mapping[str, str]) -> None:
        """See `Engine.require`."""
        if self.own_python:
            require_here(packages)
        for worker, missing in self.client.run(lacking, dict(packages), on_error="return").items():
            if missing:
                what = missing if isinstance(missing, BaseException) else advice(missing)
                raise ConfigError(f"this pipeline needs what the worker {worker} has not got: {what}")
        self._admit(packages)

    def _admit(self, packages: Mapping[str, str]) -> None:
        """From now on, workers that join must suit."""
        self.client.register_plugin(Admission(packages), name=self.topic)

    def release(self) -> None:
        """Let the scheduler take in whomever it likes; for one that outlives this engine."""
        with suppress(OSError):  # it is gone already
            self.client.unregister_worker_plugin(self.topic)

    def activity(self) -> Activity:
        """See `Engine.activity`."""
        if time.monotonic() - self.looked_at > _LOOK_S:
            self.looked_at = time.monotonic()
            self.loop.add_callback(self._look)
        jobs = [job for one in tuple(self.maps.values()) for job in tuple(one.running.values())]
        return replace(self.seen, running=sum(job.started is not None for job in jobs))

    async def _look(self) -> None:
        """Runs in the client's event loop."""
        with suppress(OSError, AttributeError):  # of a lost scheduler, the tasks tell
            scheduler: Any = self.client.scheduler
            workers = (await scheduler.identity(n_workers=-1))["workers"].values()
            self.seen = Activity(0, len(workers), sum(int(worker["metrics"]["memory"]) for worker in workers))

    def _note_overfull(self, event: tuple[float, dict[str, Any]]) -> None:
        self.overfull[event[1]["worker"]] = int(event[1]["rss"])

    def _note_leaving(self, event: tuple[float, dict[str, Any]]) -> None:
        self.left.add(event[1]["worker"])

    def _note_recycled(self, event: tuple[float, dict[str, Any]]) -> None:
        self.recycled.add(event[1]["worker"])

    def _note_refused(self, event: tuple[float, dict[str, Any]]) -> None:
        worker, fault = event[1]["worker"], event[1]["fault"]
        self.left.add(worker)
        if fault != self.refused:
            _LOG.warning("worker %s does not take part: it %s", worker, fault)
        self.refused = fault

    def _note_start(self, event: tuple[float, dict[str, Any]]) -> None:
        start = _Start(event[1]["worker"], time.monotonic())
        told = self.maps.get(event[1]["map"])
        if told is not None:
            told.events.put((event[1]["number"], start))


@dataclass(frozen=True)
class _Start:
    """A task says that it has started, and where."""

    worker: str
    at: float


@dataclass(eq=False)
class _Job:
    """One key under way. A job has one submission at a time, known by its number."""

    key: Any
    tries: int = 0
    deaths: int = 0
    losses: int = 0
    cramped: int = 0
    """How often its worker was stopped for its memory."""
    number: int = -1
    future: "Future[Any] | None" = None
    worker: str = ""
    started: float | None = None

    @property
    def seconds(self) -> float:
        return 0.0 if self.started is None else time.monotonic() - self.started


@dataclass
class _Map:
    """One call of `DaskEngine.map`. Everything but `_watch` runs in the caller's thread."""

    engine: DaskEngine
    task: Callable[[Any], Any]
    keys: Iterator[Any]
    memory: Callable[[Any], int]
    retries: int
    timeout_s: float | None
    running: dict[int, _Job] = field(default_factory=dict)
    suspects: deque[_Job] = field(default_factory=deque)
    blame: Blame = field(default_factory=Blame)
    events: "SimpleQueue[tuple[int, Any]]" = field(default_factory=SimpleQueue)
    name: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    submissions: int = 0
    alone: bool = False
    room: ExitStack = field(default_factory=ExitStack)
    """Holds the larger worker while a task runs there, alone."""
    unmanned_since: float | None = None

    def outcomes(self) -> Iterator[Outcome]:
        self.engine.maps[self.name] = self
        try:
            while True:
                yield from self._fill()
                if not self.running:
                    return
                for number, event in self._wait():
                    job = self.running.get(number)
                    if job is None:
                        continue  # of a submission that was given up
                    if isinstance(event, _Start):
                        job.worker, job.started = event.worker, event.at
                        self.blame.started(number, event.worker)
                        continue
                    del self.running[number]
                    if job.future is not None:
                        job.future.release()  # a worn worker waits for that
                    yield from self._settle(job, event)
                yield from self._stop_overdue()
        finally:
            self._close()

    # -- submitting

    def _fill(self) -> Iterator[Outcome]:
        """Keep the window full; when nothing else is left, run one suspect."""
        while len(self.running) < _WINDOW * self.engine.slots and not (self.alone and self.running):
            try:
                key = next(self.keys)
            except StopIteration:
                break
            refused = refusal(key, self.memory, self.engine.limit)
            if refused is None:
                self._submit(_Job(key))
            else:
                yield refused.outcome(key, "", 0)
        while not self.running:
            self.room.close()
            if not self.suspects:
                return
            self.alone = True
            yield from self._run_alone(self.suspects.popleft())

    def _run_alone(self, job: _Job) -> Iterator[Outcome]:
        """Run a suspect while nothing else runs, in a larger worker if it needs one."""
        if not job.cramped or self.engine.larger is None:
            self._submit(job)
            return
        try:
            worker = self.room.enter_context(self.engine.larger())
        except NoRoomError as error:
            reason = f"{job.key}: its worker was stopped for its memory, and {error}. {_ADVICE}"
            yield failure(reason, job.seconds).outcome(job.key, job.worker, job.tries + job.deaths)
            return
        self._submit(job, worker)

    def _submit(self, job: _Job, worker: str | None = None) -> None:
        client = self.engine.client
        job.number, job.worker, job.started = self.submissions, "", None
        self.submissions += 1
        task_name = getattr(getattr(self.task, "func", self.task), "__name__", "task")
        job.future = client.submit(
            _perform,
            self.task,
            job.key,
            self.engine.topic,
            self.name,
            job.number,
            key=(f"{task_name}-{self.name}", self.engine.name_of(job.key), job.number),
            pure=False,
            workers=worker,
            allow_other_workers=worker is not None,  # it may die before it begins
        )
        self.running[job.number] = job
        self.engine.loop.add_callback(self._watch, job.number, job.future)

    async def _watch(self, number: int, future: "Future[Any]") -> None:
        """Runs in the client's event loop, one for each submission, until it ends."""
        try:
            event: Any = await future.result()
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 -- it is judged in _settle
            event = error
        self.events.put((number, event))

    # -- listening

    def _wait(self) -> list[tuple[int, Any]]:
        """What has happened; waits for the first event, the next deadline or a pulse."""
        try:
            found = [self.events.get(timeout=self._patience())]
        except Empty:
            self._check_manned()
            return []
        with suppress(Empty):
            while True:
                found.append(self.events.get_nowait())
        return found

    def _patience(self) -> float:
        pulse = min(_PULSE_S, self.engine.patience_s)
        if self.timeout_s is None:
            return pulse
        left = (self.timeout_s - job.seconds for job in self.running.values() if job.started is not None)
        return max(0.0, min(left, default=pulse))

    def _check_manned(self) -> None:
        """Give up rather than wait for ever when the workers are gone and do not come back."""
        client = self.engine.client
        with suppress(OSError):  # of a lost scheduler, the tasks tell
            if client.status != "running" or client.nthreads():
                self.unmanned_since = None
                return
        now = time.monotonic()
        self.unmanned_since = self.unmanned_since or now
        patience, refused = self.engine.patience_s, self.engine.refused
        if refused and now - self.unmanned_since > min(patience, _HOPE_S):
            raise EngineError(f"no worker suits: the last that came {refused}. Then run the command again")
        if now - self.unmanned_since > patience:
            raise EngineError(
                f"no worker for {patience:g} s: look at why workers do not start (memory, disk, "
                "queue), then run the command again; what is committed is kept"
            )

    # -- judging

    def _settle(self, job: _Job, event: Any) -> Iterator[Outcome]:
        if isinstance(event, KilledWorker):
            yield from self._bury(job, event)
            return
        if isinstance(event, BaseException) and (
            isinstance(event, CancelledError | asyncio.CancelledError) or self.engine.client.status != "running"
        ):
            raise EngineError("the scheduler was lost: run the command again; what is committed is kept") from event
        if isinstance(event, BaseException):  # it failed before the task began, or on its way back
            record, worker = Record.of_error(event, job.seconds), job.worker
        else:
            record, worker = event
        self.blame.ended(job.number)
        job.tries += 1
        if record.again and job.tries <= self.retries:
            _LOG.warning("%s failed (%s) and is tried again", job.key, record.error, extra={"scan": str(job.key)})
            self._submit(job)
            return
        yield record.outcome(job.key, worker, job.tries + job.deaths)

    def _bury(self, job: _Job, death: KilledWorker) -> Iterator[Outcome]:
        """Find out whether a worker died of this job, and what to do with it."""
        worker = death.last_worker.address
        overfull = worker in self.engine.overfull
        if worker in self.engine.recycled and not overfull:
            self.blame.ended(job.number)
            self._submit(job)
            return
        if worker in self.engine.left and not overfull and job.losses < _FREE_LOSSES:
            self.blame.ended(job.number)
            job.losses += 1
            self._submit(job)
            return
        verdict = self.blame.died(job.number, worker, alone=self.alone)
        if verdict is Verdict.INNOCENT and job.losses < _FREE_LOSSES:
            job.losses += 1
            self._submit(job)
            return
        if verdict is Verdict.GUILTY:
            job.deaths += death.allowed_failures + 1
            job.cramped += overfull
            roomier = job.cramped == 1 and overfull and self.engine.larger is not None
            if not roomier and (job.cramped > 1 or job.deaths >= self.engine.deaths):
                reason = failure(self._obituary(job, worker), job.seconds)
                yield reason.outcome(job.key, worker, job.tries + job.deaths)
                return
            how = " with more room" if roomier else ""
            _LOG.warning(
                "the worker of %s died; it will run again, alone%s", job.key, how, extra={"scan": str(job.key)}
            )
        self.suspects.append(job)

    def _obituary(self, job: _Job, worker: str) -> str:
        taken = self.engine.overfull.get(worker)
        if taken is not None:  # it may say that it leaves when it is stopped for its memory, too
            alone = " alone, with about twice the room" if job.cramped > 1 and self.engine.larger else ""
            cause = f"stopped at {gibibytes(taken)} of memory, more than it may take{alone}"
        elif worker in self.engine.left:
            cause = f"it had to leave before {job.key} was done: allow jobs more time (`walltime` in the cluster file)"
        else:
            cause = "probably out of memory, or a crash in native code"
        return f"{job.key}: its worker died {job.deaths} times; the last: {cause}. {_ADVICE}"

    def _stop_overdue(self) -> Iterator[Outcome]:
        if self.timeout_s is None or not self.events.empty():
            return  # while the caller looked at an outcome, a task may have ended in time
        for job in [job for job in self.running.values() if job.started is not None and job.seconds >= self.timeout_s]:
            del self.running[job.number]
            self.blame.stopped(job.worker)
            self.blame.ended(job.number)
            reason, seconds = overtime(job.key, self.timeout_s), job.seconds
            self.engine.client.cancel([job.future], force=True)
            with suppress(KeyError, OSError):  # the worker is gone already
                self.engine.client.run(_kill_worker, workers=[job.worker], nanny=True, on_error="ignore")
            yield failure(reason, seconds).outcome(job.key, job.worker, job.tries + job.deaths + 1)

    def _close(self) -> None:
        self.room.close()
        client = self.engine.client
        outstanding = [job.future for job in self.running.values()]
        self.running.clear()
        del self.engine.maps[self.name]
        if outstanding and client.status == "running":
            client.cancel(outstanding, force=True)


def _perform(task: Callable[[K], Any], key: K, topic: str, name: str, number: int) -> tuple[Record, str]:
    """Runs on a worker."""
    worker = get_worker()
    wear: Any = worker.plugins.get(_wear_of(topic))
    if wear is not None:
        wear.rest()
    worker.log_event(topic, {"map": name, "number": number, "worker": worker.address})
    record = attempt(task, key)
    if wear is not None:
        wear.note()
    return record, worker.address


def _wear_of(topic: str) -> str:
    """The name of the plugin that keeps account of a worker's wear."""
    return f"{topic}-wear"


def _kill_worker(dask_worker: Nanny) -> None:
    """Runs beside a worker, in its nanny, which starts another: a task in native code hears nothing else."""
    if dask_worker.pid:
        os.kill(dask_worker.pid, signal.SIGKILL)
