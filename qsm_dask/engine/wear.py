"""Workers that have run for long are started anew: what libraries leak or leave in pieces goes with the process.

A worker that is worn takes no further scan, waits until the driver has its last result, and ends; its nanny starts
another. A scan that waited for it is submitted again and charged with nothing.
"""

# mypy: disable-error-code="no-untyped-call"
# distributed is typed in part only

import asyncio
import os
import time
from dataclasses import dataclass
from typing import Any

from distributed import WorkerPlugin

from qsm_dask.engine.resources import resident

RECYCLED = "qsm-dask-recycled"
"""Where a worker says that it is started anew."""

_GLANCE_S, _LAST_WORD_S = 0.05, 0.2
_REST_S = 60.0
"""How long a worn worker waits for its driver to take its last result; then it works on."""


def plugin_name(topic: str) -> str:
    """The name of the plugin that keeps account of a worker's wear for the engine of this topic."""
    return f"{topic}-wear"


@dataclass
class Wear(WorkerPlugin):
    """Keeps account of one worker, and ends it when it is worn.

    Attributes
    ----------
    scans : after so many it is worn; None for any number.
    growth : worn when its memory has grown so much since its first scan [bytes]; None however much.
    """

    scans: int | None
    growth: int | None

    def setup(self, worker: Any) -> None:
        """Runs on the worker when it joins."""
        self.worker, self.done, self.start = worker, 0, 0
        self.worn = self.leaving = False

    def rest(self) -> None:
        """Let a worn worker end before it begins another scan; runs in the thread of its tasks."""
        end = time.monotonic() + _REST_S
        while self.leaving or (self.worn and time.monotonic() < end):
            time.sleep(_GLANCE_S)
        self.worn = False

    def note(self) -> None:
        """A scan is done; runs in the thread of tasks."""
        size = resident()
        self.done += 1
        self.start = self.start or size
        counted = self.scans is not None and self.done >= self.scans
        if (counted or (self.growth is not None and size - self.start > self.growth)) and self.worker.nanny:
            self.worn = True
            self.worker.loop.add_callback(self._leave, self.worker.get_current_task())

    async def _leave(self, last: Any) -> None:
        """End when the result of the last task has been taken and dropped, lest it be computed again."""
        while self.worn:
            if last not in self.worker.state.tasks:
                self.leaving = True
                self.worker.log_event(RECYCLED, {"worker": self.worker.address})
                await asyncio.sleep(_LAST_WORD_S)
                os._exit(0)
            await asyncio.sleep(_GLANCE_S)
