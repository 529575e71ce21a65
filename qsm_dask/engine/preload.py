"""What a worker process does before its first task and after its last; dask imports it by name."""

import signal
from typing import Any

from qsm_dask import numba_cache

LEAVING = "qsm-dask-leaving"
"""Where a worker says that it leaves of its own accord: no task of its own is to blame."""


def dask_setup(_worker: Any) -> None:
    """Use the shared cache of compiled kernels, and leave Ctrl-C to the driver.

    The terminal sends its interrupt to every process; the driver ends its workers in order.
    """
    numba_cache.configure()
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def dask_teardown(worker: Any) -> None:
    """Say that this is no death: the worker's time is over, or its job was called back."""
    worker.log_event(LEAVING, {"worker": worker.address})
