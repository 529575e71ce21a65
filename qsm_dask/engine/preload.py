"""What a worker process does before its first task; dask imports it by name."""

import signal
from typing import Any

from qsm_dask import numba_cache


def dask_setup(_worker: Any) -> None:
    """Use the shared cache of compiled kernels, and leave Ctrl-C to the driver.

    The terminal sends its interrupt to every process; the driver ends its workers in order.
    """
    numba_cache.configure()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
