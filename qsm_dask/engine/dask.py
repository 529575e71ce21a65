"""The engine on dask.distributed: one coarse task a key, fed through a sliding window.

`window` is one call of `map`, `job` one key of it; `departures` knows why workers are gone.
"""

# mypy: disable-error-code="no-untyped-call"
# distributed is typed in part only

import math
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, TypeVar

from distributed import Client

from qsm_dask.engine.admission import Admission
from qsm_dask.engine.base import Activity, Outcome, require_here
from qsm_dask.engine.departures import Departures
from qsm_dask.engine.job import Start
from qsm_dask.engine.packages import advice, lacking
from qsm_dask.engine.wear import Wear, plugin_name
from qsm_dask.engine.window import Window
from qsm_dask.errors import ConfigError, EngineError

K = TypeVar("K")
_LOOK_S = 2.0


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
        self.departures = Departures(client)
        self.topic = f"qsm-dask-{uuid.uuid4().hex}"
        self.maps: dict[str, Window] = {}
        """Those under way, by name."""
        self.seen = Activity()
        self.looked_at = -math.inf
        client.subscribe_topic(self.topic, self._note_start)
        self._admit({})
        if wear != (None, None):
            client.register_plugin(Wear(*wear), name=plugin_name(self.topic))

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
        return Window(self, task, iter(keys), memory, retries, timeout_s).outcomes()

    def require(self, packages: Mapping[str, str]) -> None:
        """See `Engine.require`."""
        if self.own_python:
            require_here(packages)
        for worker, missing in self.client.run(lacking, dict(packages), on_error="return").items():
            if missing and not isinstance(missing, OSError):  # it has gone, or cannot be reached now
                what = missing if isinstance(missing, BaseException) else advice(missing)
                raise ConfigError(f"this pipeline needs what the worker {worker} has not got: {what}")
        self._admit(packages)

    def _admit(self, packages: Mapping[str, str]) -> None:
        """From now on, workers that join must suit."""
        self.client.register_plugin(Admission(packages, self.client.id), name=self.topic)

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

    def _note_start(self, event: tuple[float, dict[str, Any]]) -> None:
        start = Start(event[1]["worker"], time.monotonic())
        told = self.maps.get(event[1]["map"])
        if told is not None:
            told.events.put((event[1]["number"], start))
