"""Which workers may take part: those of the driver's version that have the packages of a run, whenever they join."""

# mypy: disable-error-code="no-untyped-call"
# distributed is typed in part only

import asyncio
import os
from collections.abc import Mapping
from typing import Any

from distributed import WorkerPlugin

from qsm_dask.engine.packages import advice, lacking
from qsm_dask.provenance import software

REFUSED = "qsm-dask-refused"
"""Where a worker says why it does not take part."""

_LAST_WORD_S = 0.5


class Admission(WorkerPlugin):
    """Ends a worker that joins and does not suit, before it is given a task, for as long as the driver lives.

    Parameters
    ----------
    packages : modules that tasks import, with the extra of qsm-dask that brings each.
    driver : the driver's client, as the scheduler knows it.
    """

    def __init__(self, packages: Mapping[str, str], driver: str) -> None:
        self.driver = driver
        self.version = software()["qsm-dask"]
        self.packages = dict(packages)

    async def setup(self, worker: Any) -> None:
        """Runs on the worker when it has joined; it hears of tasks only when this is over."""
        fault = self.fault()
        if fault and await self._driven(worker):
            worker.log_event(REFUSED, {"worker": worker.address, "fault": fault})
            await asyncio.sleep(_LAST_WORD_S)
            os._exit(1)  # in order it cannot end: its nanny waits for it to have begun

    async def _driven(self, worker: Any) -> bool:
        """Whether the driver is there still: one that was killed leaves this on a scheduler that outlives it."""
        told = await worker.scheduler.events(topic=self.driver)  # forgotten a while after it has gone
        return bool(told) and told[-1][1].get("action") != "remove-client"

    def fault(self) -> str:
        """Why this process must not take part; empty if it may."""
        version = software()["qsm-dask"]
        if version != self.version:
            return f"has qsm_dask {version}: install version {self.version} there, as here"
        missing = lacking(self.packages)
        return f"lacks {advice(missing)}" if missing else ""
