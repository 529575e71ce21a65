"""Workers that others set up: whether they suit the engine, which runs one scan a worker at a time."""

# mypy: disable-error-code="no-untyped-call"
# distributed is typed in part only

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from qsm_dask.engine.base import gibibytes
from qsm_dask.errors import ConfigError, EngineError
from qsm_dask.provenance import software

if TYPE_CHECKING:
    from distributed import Client

_LOG = logging.getLogger(__name__)


def suited_workers(client: "Client", where: str, wait: float) -> Mapping[str, Mapping[str, Any]]:
    """The workers there are, once one is there; all run one task at a time, within a limit of memory.

    Parameters
    ----------
    client : of the scheduler.
    where : names the cluster in messages.
    wait : how long the first worker may take [s].

    Raises
    ------
    EngineError : no worker came in time.
    ConfigError : a worker does not suit: several threads, no memory limit, or no qsm_dask.
    """
    try:
        client.wait_for_workers(1, timeout=wait)
    except TimeoutError as error:
        raise EngineError(
            f"{where} has had no worker for {wait:g} s: look at why none starts, or allow it longer (`start`)"
        ) from error
    workers: Mapping[str, Mapping[str, Any]] = client.scheduler_info(n_workers=-1)["workers"]
    for name, worker in workers.items():
        if worker["nthreads"] != 1:
            raise ConfigError(
                f"worker {name} has {worker['nthreads']} threads, so it would run as many scans at once in one "
                "memory: start workers with `--nthreads 1` (and `threads_per_worker` here for more threads a scan)"
            )
        if not worker["memory_limit"]:
            raise ConfigError(f"worker {name} has no memory limit: start workers with `--memory-limit`")
    here = _version()
    for name, answer in client.run(_version, on_error="return").items():
        if answer != here and not isinstance(answer, OSError):  # it has gone, or cannot be reached now
            found = f"cannot run qsm_dask ({answer})" if isinstance(answer, BaseException) else f"has qsm_dask {answer}"
            raise ConfigError(f"worker {name} {found}: install version {here} there, as here")
    _LOG.info("%d workers, the least of %s", len(workers), gibibytes(least_memory(workers)))
    return workers


def least_memory(workers: Mapping[str, Mapping[str, Any]]) -> int:
    """The limit of the smallest worker [bytes]."""
    return int(min(worker["memory_limit"] for worker in workers.values()))


def _version() -> str:
    """Runs on a worker too, which must find this module to do so."""
    return software()["qsm-dask"]
