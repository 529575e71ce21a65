"""One call of the dask engine's `map`: a sliding window of tasks, and what becomes of each.

A task that its worker died of runs again alone, after all the others, until it succeeds or has
used up its deaths; `blame` finds out which task that was. When the worker was stopped for its
memory, the task gets twice the room, once. What was merely waiting for the same
worker is submitted again for free.
"""

# mypy: disable-error-code="no-untyped-call"
# distributed is typed in part only

import asyncio
import logging
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from distributed import CancelledError, Future, KilledWorker

from qsm_dask.engine.base import Outcome, Record, failure, gibibytes, overtime, refusal
from qsm_dask.engine.blame import Blame, Verdict
from qsm_dask.engine.job import Job, Start, kill_worker, perform
from qsm_dask.errors import EngineError

if TYPE_CHECKING:
    from qsm_dask.engine.dask import DaskEngine

_LOG = logging.getLogger(__name__)
_WINDOW = 2  # tasks in flight for each slot: one runs, one waits
_FREE_LOSSES = 3  # as often a task may be lost with its worker, uncharged, before it must run alone
_PULSE_S = 5.0
_HOPE_S = 60.0  # how long to wait for better workers when those that came do not suit
_ADVICE = "Give workers more memory (`memory` in the cluster file), or leave this scan out"


class NoRoomError(Exception):
    """No worker can be had that is larger than the others."""


@dataclass
class Window:
    """One call of `DaskEngine.map`. Everything but `_watch` runs in the caller's thread.

    Attributes
    ----------
    engine : whose workers it uses.
    task, keys, memory, retries, timeout_s : see `Engine.map`.
    running : jobs that are submitted, by number.
    suspects : jobs that a worker may have died of; they wait to run alone.
    blame : finds out which job a worker died of.
    events : starts and ends of submissions, by number, as other threads hear of them.
    name : of this call, in the names of its tasks.
    submissions : how many there were.
    alone : whether but one job runs at a time from now on.
    room : holds the larger worker while a task runs there, alone.
    unmanned_since : when the last worker had gone; None while there is one.
    """

    engine: "DaskEngine"
    task: Callable[[Any], Any]
    keys: Iterator[Any]
    memory: Callable[[Any], int]
    retries: int
    timeout_s: float | None
    running: dict[int, Job] = field(default_factory=dict)
    suspects: deque[Job] = field(default_factory=deque)
    blame: Blame = field(default_factory=Blame)
    events: "SimpleQueue[tuple[int, Any]]" = field(default_factory=SimpleQueue)
    name: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    submissions: int = 0
    alone: bool = False
    room: ExitStack = field(default_factory=ExitStack)
    unmanned_since: float | None = None

    def outcomes(self) -> Iterator[Outcome]:
        """One outcome a key, in order of completion.

        Raises
        ------
        EngineError : the scheduler was lost, or there has been no worker for the engine's patience.
        """
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
                    if isinstance(event, Start):
                        job.worker, job.started = event.worker, event.at
                        self.blame.started(number, event.worker)
                        self.engine.departures.recycled.discard(event.worker)
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
                self._submit(Job(key))
            else:
                yield refused.outcome(key, "", 0)
        while not self.running:
            self.room.close()
            if not self.suspects:
                return
            self.alone = True
            yield from self._run_alone(self.suspects.popleft())

    def _run_alone(self, job: Job) -> Iterator[Outcome]:
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

    def _submit(self, job: Job, worker: str | None = None) -> None:
        client = self.engine.client
        job.number, job.worker, job.started = self.submissions, "", None
        self.submissions += 1
        task_name = getattr(getattr(self.task, "func", self.task), "__name__", "task")
        job.future = client.submit(
            perform,
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
        patience, refused = self.engine.patience_s, self.engine.departures.refused
        if refused and now - self.unmanned_since > min(patience, _HOPE_S):
            raise EngineError(f"no worker suits: the last that came {refused}. Then run the command again")
        if now - self.unmanned_since > patience:
            raise EngineError(
                f"no worker for {patience:g} s: look at why workers do not start (memory, disk, "
                "queue), then run the command again; what is committed is kept"
            )

    # -- judging

    def _settle(self, job: Job, event: Any) -> Iterator[Outcome]:
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

    def _bury(self, job: Job, death: KilledWorker) -> Iterator[Outcome]:
        """Find out whether a worker died of this job, and what to do with it."""
        worker = death.last_worker.address
        overfull = worker in self.engine.departures.overfull
        if self.engine.departures.of_its_own_accord(worker) and not overfull and job.losses < _FREE_LOSSES:
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

    def _obituary(self, job: Job, worker: str) -> str:
        taken = self.engine.departures.overfull.get(worker)
        if taken is not None:  # it may say that it leaves when it is stopped for its memory, too
            alone = " alone, with about twice the room" if job.cramped > 1 and self.engine.larger else ""
            cause = f"stopped at {gibibytes(taken)} of memory, more than it may take{alone}"
        elif worker in self.engine.departures.left:
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
                self.engine.client.run(kill_worker, workers=[job.worker], nanny=True, on_error="ignore")
            yield failure(reason, seconds).outcome(job.key, job.worker, job.tries + job.deaths + 1)

    def _close(self) -> None:
        self.room.close()
        client = self.engine.client
        outstanding = [job.future for job in self.running.values()]
        self.running.clear()
        del self.engine.maps[self.name]
        if outstanding and client.status == "running":
            client.cancel(outstanding, force=True)
