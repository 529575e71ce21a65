"""What this engine asks of dask, on whichever machine its parts run."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

SETTINGS: Mapping[str, Any] = {
    # A worker's memory is that of its one task: nothing can be spilled, and a worker that was
    # paused would never run again when its task's memory is not given back to the system.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    # The engine resubmits what a dead worker had, and counts by itself.
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.worker.profile.enabled": False,
}

ENCRYPTED: Mapping[str, Any] = {"distributed.comm.require-encryption": True}

LOOPBACK = "127.0.0.1:0"
"""Where pages that ask for no password listen."""

PRELOAD = "qsm_dask.engine.preload"


def as_environment(settings: Mapping[str, Any]) -> dict[str, str]:
    """The same settings for a process on another machine, which reads them from its environment."""
    return {"DASK_" + name.upper().replace(".", "__").replace("-", "_"): str(value) for name, value in settings.items()}


def thread_environment(threads: int) -> dict[str, str]:
    """How many threads the libraries of a worker may start."""
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))


@contextmanager
def quiet() -> Iterator[None]:
    """Show of dask's log what went wrong, and not what this engine puts right or tells itself.

    Dask calls a task failed for good at its worker's first death, and a result lost with it; of a
    scheduler that is gone its client prints a traceback, or how long it looked for it.
    """

    def of_interest(record: logging.LogRecord) -> bool:
        by_client = record.name == "distributed.client"
        unreached = by_client and record.exc_info and isinstance(record.exc_info[1], OSError)
        unreached = unreached or (by_client and "Failed to reconnect to scheduler" in record.msg)
        put_right = "marked as failed because" in record.msg or "Couldn't gather keys" in record.msg
        return not unreached and not put_right

    dask_logger = logging.getLogger("distributed")
    filtered = [logging.getLogger(f"distributed.{part}") for part in ("scheduler", "client")]
    level = dask_logger.level
    dask_logger.setLevel(logging.ERROR)
    for logger in filtered:
        logger.addFilter(of_interest)
    try:
        yield
    finally:
        for logger in filtered:
            logger.removeFilter(of_interest)
        dask_logger.setLevel(level)
