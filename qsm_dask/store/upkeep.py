"""What keeps a cohort whole and small: an index that knows every commit, commits that are true, and no leftovers.

Drivers that are killed leave an index that has missed something, and attempts that nobody
reads; damage leaves commits that must not count. Nothing here is on the way of a run that ends well.
"""

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from qsm_dask.scan import ScanKey
from qsm_dask.store import sweep
from qsm_dask.store.files import Files
from qsm_dask.store.index import Index
from qsm_dask.store.layout import INGEST_KEY, SCANS, marker

if TYPE_CHECKING:
    import pandas as pd

    from qsm_dask.store.cohort import CohortStore


class Upkeep:
    """The upkeep of one cohort; `CohortStore.upkeep` hands it out.

    Parameters
    ----------
    cohort : what is kept.
    files : its backend.
    index : its index.
    """

    def __init__(self, cohort: "CohortStore", files: Files, index: Index) -> None:
        self._cohort = cohort
        self._files = files
        self._index = index

    def withdraw(self, scan: ScanKey, node: str, key: str) -> None:
        """Remove the commit of a node, so that it counts as not done; its arrays stay, for `gc` to sweep.

        Raises
        ------
        StoreError : it cannot be removed.
        """
        self._files.remove(marker(scan, node, key))

    def stored_scans(self) -> list[ScanKey]:
        """Every scan that has a folder, whether or not the index knows it, by one listing."""
        found = []
        for name in self._files.names(SCANS):
            with suppress(ValueError):  # a folder that somebody else put there
                found.append(ScanKey.parse(name))
        return found

    def unindexed(self, index: "pd.DataFrame") -> list[ScanKey]:
        """Scans with a folder that the index does not know: their driver ended before it could record them."""
        known = set(index["scan"])
        return sorted(scan for scan in self.stored_scans() if str(scan) not in known)

    def catch_up(self) -> int:
        """Record the ingests that the index has missed; how many there were."""
        return self._record_ingests(self.unindexed(self._cohort.index()))

    def mend_index(self) -> list[str]:
        """Drop segments of the index that are damaged, and record anew what they may have told; names of the dropped.

        Rows of nodes come back with the next run; until then their commits tell of them. Why scans failed is lost.
        """
        dropped = self._index.drop_damaged()
        if dropped:  # what is left may be of an older commit; of one that failed since, it must not be forgotten
            index = self._cohort.index()
            failed = set(index["scan"][(index["node"] == "ingest") & (index["state"] != "done")])
            self._record_ingests(scan for scan in self.stored_scans() if str(scan) not in failed)
        return dropped

    def leftovers(
        self, scan: ScanKey, older_than_s: float, replaced: Iterable[tuple[str, str]] = ()
    ) -> list[sweep.Leftover]:
        """What a scan's folder holds that nobody will read; see `sweep.leftovers`."""
        return sweep.leftovers(self._files, scan, older_than_s, frozenset(replaced))

    def discard(self, leftover: sweep.Leftover) -> None:
        """Remove a leftover.

        Raises
        ------
        StoreError : it cannot be removed.
        """
        sweep.discard(self._files, leftover)

    def rebuild_index(self) -> int:
        """Record the ingest of every scan that has one, by listing; for an index that was lost.

        Returns
        -------
        int : how many there are. Rows of other nodes come back with the next run.
        """
        return self._record_ingests(self.stored_scans())

    def _record_ingests(self, scans: Iterable[ScanKey]) -> int:
        commits = [self._cohort.intact(scan, "ingest", INGEST_KEY) for scan in scans]
        rows = [commit.row() for commit in commits if commit is not None]
        self._cohort.record(rows)
        return len(rows)
