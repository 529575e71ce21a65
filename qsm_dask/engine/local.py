"""Worker processes on this machine: the cluster of a laptop, a workstation, one node of a batch system."""

# mypy: disable-error-code="no-untyped-call"
# distributed is typed in part only

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import dask
from distributed import Client, LocalCluster

from qsm_dask import numba_cache
from qsm_dask.engine.base import Engine, gibibytes
from qsm_dask.engine.dask import DaskEngine
from qsm_dask.engine.resources import Machine
from qsm_dask.engine.settings import SETTINGS, quiet, thread_environment
from qsm_dask.engine.sizing import BASELINE
from qsm_dask.engine.window import NoRoomError
from qsm_dask.errors import ConfigError
from qsm_dask.scratch import own_folder

_SETTINGS = {
    **SETTINGS,
    # Dask closes for good the nanny of a worker that died, and is restarting once more when this
    # time is over. Nannies of this machine restart their workers as long as they live.
    "distributed.deploy.lost-worker-timeout": "1000 hours",
}
_PATIENCE, _PAUSE_S = 600, 0.1
_WORTHWHILE = 1.25  # as much larger, at least, a worker must be for a scan to try again
_LOOPBACK = "127.0.0.1"
_LOG = logging.getLogger(__name__)


@contextmanager
def local_engine(
    workers: int,
    memory: int,
    limit: int,
    threads: int,
    scratch: str | None,
    wear: tuple[int | None, int | None] = (None, None),
) -> Iterator[Engine]:
    """Start worker processes with one task each, reachable from this machine only; end them at exit.

    Parameters
    ----------
    workers : number of processes.
    memory : of each; a worker that takes more than 95 % of it is killed [bytes].
    limit : memory that one task may take [bytes].
    threads : how many threads one task may use in its kernels.
    scratch : where a folder for the workers' files is made, and removed at exit.
    wear : see `DaskEngine`.

    Yields
    ------
    Engine : on those workers.
    """
    with _scratch(scratch) as folder, _environment(threads), quiet(), dask.config.set(_SETTINGS):
        held = _Signals()
        with held:
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                memory_limit=memory,
                host=_LOOPBACK,
                dashboard_address=f"{_LOOPBACK}:0",
                worker_dashboard_address=f"{_LOOPBACK}:0",
                local_directory=folder,
                preload=["qsm_dask.engine.preload"],
                silence_logs=logging.ERROR,
            )
        try:
            held.deliver()
            with Client(cluster, set_as_default=False) as client:
                yield DaskEngine(
                    client,
                    slots=workers,
                    limit=limit,
                    threads=threads,
                    own_python=True,
                    wear=wear,
                    larger=lambda: _larger(cluster, client, memory),
                )
        finally:
            _stop(cluster)


@contextmanager
def _scratch(parent: str | None) -> Iterator[str]:
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(own_folder(parent, "qsm-dask-"))
        except OSError as error:
            raise ConfigError(
                f"cluster: no folder for the workers' files can be made in {parent or 'the temporary folder'} "
                f"({error.strerror or error}): name another one (`scratch` in the cluster file), or free some space"
            ) from error
        yield folder


@contextmanager
def _larger(cluster: Any, client: Client, memory: int) -> Iterator[str]:
    """Let one worker take twice its memory, or what the machine has, while the others do nothing."""
    idle = (len(cluster.workers) - 1) * BASELINE
    room = min(2 * memory, int(0.9 * Machine.here().memory) - idle)
    if room < _WORTHWHILE * memory:
        raise NoRoomError(f"this machine has no room for a larger one than {gibibytes(memory)}")
    nanny = _ready(cluster, client)
    nanny.memory_manager.memory_limit = room
    try:
        yield nanny.worker_address
    finally:
        nanny.memory_manager.memory_limit = memory


def _ready(cluster: Any, client: Client) -> Any:
    """A nanny whose worker the scheduler knows; one that starts its worker again has none for a while."""
    for _ in range(_PATIENCE):
        known = client.scheduler_info(n_workers=-1)["workers"]
        found = next((one for one in cluster.workers.values() if one.worker_address in known), None)
        if found is not None:
            return found
        time.sleep(_PAUSE_S)
    raise NoRoomError(f"no worker came back within {_PATIENCE * _PAUSE_S:g} s")


class _Signals:
    """Holds back Ctrl-C and SIGTERM in a `with` block: half a cluster takes a minute to end, a whole one a second."""

    def __init__(self) -> None:
        self.mine = threading.current_thread() is threading.main_thread()
        self.came: list[int] = []
        self.handlers: dict[int, Any] = {}

    def __enter__(self) -> None:
        if self.mine:
            for number in (signal.SIGINT, signal.SIGTERM):
                self.handlers[number] = signal.signal(number, lambda came, _frame: self.came.append(came))

    def __exit__(self, *_error: object) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def deliver(self) -> None:
        """Let the signals that came have their effect now."""
        for number in self.came:
            signal.raise_signal(number)


def _stop(cluster: Any) -> None:
    """End workers at once: what they have not committed is lost, as it would be in a crash.

    An orderly end would wait seconds for tasks that cannot be interrupted. Nannies are told
    first, lest they start new workers; one that is starting a worker just now complains.
    """
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    nannies = list(cluster.workers.values())
    for nanny in nannies:
        nanny.close_gracefully()
    for pid in [nanny.pid for nanny in nannies if nanny.pid]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    try:
        cluster.close()
    except Exception:  # noqa: BLE001 -- what was computed is not worth less for it
        _LOG.warning("dask did not close in order", exc_info=True)


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    """Workers inherit the driver's environment, and dask writes into it: both end with the cluster."""
    before = dict(os.environ)
    numba_cache.configure()
    os.environ.update(thread_environment(threads))
    # Workers are killed at the end, and the tracker of their semaphores tells people that it cleaned up.
    tracker = "ignore:resource_tracker:UserWarning"
    os.environ["PYTHONWARNINGS"] = ",".join(filter(None, (os.environ.get("PYTHONWARNINGS"), tracker)))
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
