"""Append rows to the cohort index in batches: one object for many outcomes, and none kept back for long."""

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from qsm_dask.store.cohort import CohortStore

_ROWS = 256
_SECONDS = 5.0


class Recorder:
    """Collects rows and records them when there are many, when they get old, and at the end of its `with` block.

    A driver that is killed loses rows, never results: commits are the truth, and the next
    run finds them and records them again.
    """

    def __init__(self, cohort: CohortStore) -> None:
        self._cohort = cohort
        self._waiting: list[Mapping[str, Any]] = []
        self._flushed = time.monotonic()

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take rows as `CohortStore.record` does.

        Raises
        ------
        StoreError : they were due to be written, and that failed.
        """
        self._waiting += rows
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
