"""Rows are batched, and none is kept back for long or lost at the end."""

from pathlib import Path

import pytest

from qsm_dask.store import CohortStore, Recorder
from qsm_dask.store import recorder as recorder_module


def _segments(store: CohortStore) -> list[Path]:
    return list((store.place.folder / "index").glob("*.parquet"))


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


def test_a_row_that_says_nothing_new_is_left_out(store: CohortStore) -> None:
    """What it cost the second time is no news; a new reason, digest or fact is."""
    row = {"scan": "sub-1", "node": "field", "state": "failed", "reason": "too dark", "facts": {"run": ("a", 1.5)}}
    with Recorder(store) as recorder:
        recorder.add([{**row, "seconds": 9.0}])
    with Recorder(CohortStore.open(store.place.folder)) as recorder:
        recorder.add([{**row, "seconds": 0.1}])
    assert store.index()["seconds"].tolist() == [9.0]
    assert len(_segments(store)) == 1
    for change in ({"reason": "too bright"}, {"facts": {"run": ("b", 1.5)}}, {"digest": "ab"}, {"state": "done"}):
        row |= change
        with Recorder(store) as recorder:
            recorder.add([row, row])
        last = store.index().to_dict("records")[0]
        assert {name: last[name] for name in change if name != "facts"} == {
            n: v for n, v in change.items() if n != "facts"
        }
    assert len(_segments(store)) == 5
