"""What a worker process does before its first task and after its last; dask imports it by name."""

import asyncio
import os
import signal
from typing import Any

from qsm_dask import numba_cache

LEAVING = "qsm-dask-leaving"
"""Where a worker says that it leaves of its own accord: no task of its own is to blame."""

_LAST_WORD_S = 0.1


def dask_setup(worker: Any) -> None:
    """Use the shared cache of compiled kernels, leave Ctrl-C to the driver, and tell of a SIGTERM.

    The terminal sends its interrupt to every process; the driver ends its workers in order. A
    batch system sends SIGTERM to all processes of a job whose walltime is over, or that makes
    room for another: no task is to blame for that.
    """
    numba_cache.configure()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, _leave, worker)


def _leave(worker: Any) -> None:
    dask_teardown(worker)
    asyncio.get_running_loop().call_later(_LAST_WORD_S, os._exit, 128 + signal.SIGTERM)


def dask_teardown(worker: Any) -> None:
    """Say that this is no death: the worker's time is over, or its job was called back."""
    worker.log_event(LEAVING, {"worker": worker.address})
