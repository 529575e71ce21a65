"""Append news to the cohort index in batches: one object for many outcomes, and none kept back for long."""

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from qsm_dask.digests import digest_of
from qsm_dask.store.cohort import CohortStore
from qsm_dask.store.index import facts_text

_ROWS = 256
_SECONDS = 5.0
_SAID = ("state", "key", "digest", "reason", "facts")
"""Columns in which rows differ that say something new; the others tell what it cost, who did it and when."""


class Recorder:
    """Collects rows and records them when there are many, when they get old, and at the end of its `with` block.

    A row that says what the index says already is left out: it would hide what the real run
    cost, and every run of a cohort that is done would add as many rows as the cohort has.

    A driver that is killed loses rows, never results: commits are the truth, and the next
    run finds them and records them again.
    """

    def __init__(self, cohort: CohortStore) -> None:
        self._cohort = cohort
        self._waiting: list[Mapping[str, Any]] = []
        self._flushed = time.monotonic()
        columns = ["scan", "node", *_SAID]
        rows = (dict(zip(columns, values, strict=True)) for values in cohort.index()[columns].itertuples(index=False))
        self._known = {(row["scan"], row["node"]): _said(row) for row in rows}

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take rows as `CohortStore.record` does.

        Raises
        ------
        StoreError : they were due to be written, and that failed.
        """
        for row in rows:
            place, said = (str(row["scan"]), row["node"]), _said(row)
            if self._known.get(place) != said:
                self._known[place] = said
                self._waiting.append(row)
        if len(self._waiting) >= _ROWS or time.monotonic() - self._flushed >= _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Record what is waiting.

        Raises
        ------
        StoreError : writing failed.
        """
        waiting, self._waiting = self._waiting, []
        self._cohort.record(waiting)
        self._flushed = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()


def _said(row: Mapping[str, Any]) -> str:
    """A digest of what a row says: the rows of ten thousand scans would fill the driver's memory."""
    return digest_of([*(str(row.get(name) or "") for name in _SAID[:-1]), facts_text(row)])
