"""Why workers are gone: they, or the nannies beside them, say so on topics of the scheduler before they end."""

# mypy: disable-error-code="no-untyped-call"
# distributed is typed in part only

import logging
from typing import Any

from distributed import Client

from qsm_dask.engine.admission import REFUSED
from qsm_dask.engine.preload import LEAVING
from qsm_dask.engine.wear import RECYCLED

_LOG = logging.getLogger(__name__)
_MEMORY_TOPIC = "worker-restart-memory"  # where a nanny says that it stopped a worker for its memory


class Departures:
    """Keeps account of the workers that said why they end, from now on.

    Parameters
    ----------
    client : connected to their scheduler.

    Attributes
    ----------
    overfull : workers that were stopped for their memory, and what they had taken [bytes].
    left : workers that ended in order: their time was over, or their job was called back.
    recycled : workers that were worn and ended between two scans, until one begins a scan at the same address.
    refused : why workers that came were sent away; empty if none was.
    """

    def __init__(self, client: Client) -> None:
        self.overfull: dict[str, int] = {}
        self.left: set[str] = set()
        self.recycled: set[str] = set()
        self.refused = ""
        client.subscribe_topic(_MEMORY_TOPIC, self._note_overfull)
        client.subscribe_topic(LEAVING, self._note_leaving)
        client.subscribe_topic(REFUSED, self._note_refused)
        client.subscribe_topic(RECYCLED, self._note_recycled)

    def of_its_own_accord(self, worker: str) -> bool:
        """Whether a worker is gone without a scan to blame for it."""
        return worker in self.left or worker in self.recycled

    def _note_overfull(self, event: tuple[float, dict[str, Any]]) -> None:
        self.overfull[event[1]["worker"]] = int(event[1]["rss"])

    def _note_leaving(self, event: tuple[float, dict[str, Any]]) -> None:
        self.left.add(event[1]["worker"])

    def _note_recycled(self, event: tuple[float, dict[str, Any]]) -> None:
        self.recycled.add(event[1]["worker"])

    def _note_refused(self, event: tuple[float, dict[str, Any]]) -> None:
        worker, fault = event[1]["worker"], event[1]["fault"]
        self.left.add(worker)
        if fault != self.refused:
            _LOG.warning("worker %s does not take part: it %s", worker, fault)
        self.refused = fault
