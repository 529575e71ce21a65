"""Rows are batched, and none is kept back for long or lost at the end."""

from pathlib import Path

import pytest

from qsm_dask.store import CohortStore, Recorder
from qsm_dask.store import recorder as recorder_module


def _segments(store: CohortStore) -> list[Path]:
    return list((store.path / "index").glob("*.parquet"))


def _row(n: int) -> dict[str, str]:
    return {"scan": f"sub-{n}", "node": "field", "state": "done"}


def test_many_rows_become_few_segments(store: CohortStore) -> None:
    with Recorder(store) as recorder:
        for n in range(600):
            recorder.add([_row(n)])
    assert len(_segments(store)) == 3
    assert len(store.index()) == 600


def test_old_rows_are_written_without_waiting_for_more(store: CohortStore, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(recorder_module.time, "monotonic", lambda: now[0])
    with Recorder(store) as recorder:
        recorder.add([_row(1)])
        assert _segments(store) == []
        now[0] += 6
        recorder.add([_row(2)])
        assert len(store.index()) == 2


def test_rows_are_written_when_the_block_ends_in_an_error(store: CohortStore) -> None:
    def interrupted() -> None:
        with Recorder(store) as recorder:
            recorder.add([_row(1)])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [str(scan) for scan in store.scans()] == ["sub-1"]
