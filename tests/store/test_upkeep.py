"""The upkeep of a cohort: what the index has lost is known from the commits, and what must not count is withdrawn."""

import pandas as pd

from qsm_dask.scan import ScanKey
from qsm_dask.store import INGEST_KEY, CohortStore
from tests.store.conftest import KEY, Write, segments_of


def test_a_lost_index_is_rebuilt_from_the_commits(store: CohortStore, write: Write) -> None:
    names = ["sub-01", "sub-02_T2starw", "sub-03_ses-1_run-2"]
    for name in names:
        store.record([write(scan=ScanKey.parse(name), node="ingest", key=INGEST_KEY).row()])
    before = store.index()
    (store.place.folder / "scans" / "someone's notes").mkdir()
    for path in segments_of(store):
        path.unlink()
    assert store.scans() == ()
    assert store.upkeep.rebuild_index() == 3
    columns = ["scan", "node", "state", "key", "digest", "facts"]
    pd.testing.assert_frame_equal(store.index()[columns], before[columns])


def test_the_index_catches_up_with_what_a_killed_driver_did_not_record(store: CohortStore, write: Write) -> None:
    known, missed = (write(scan=ScanKey.parse(name), node="ingest", key=INGEST_KEY) for name in ("sub-01", "sub-02"))
    store.record([known.row()])
    (store.place.folder / "scans" / "sub-03" / "ingest" / INGEST_KEY / "attempt").mkdir(parents=True)
    assert store.upkeep.unindexed(store.index()) == [missed.scan, ScanKey.parse("sub-03")]
    assert store.upkeep.catch_up() == 1
    assert store.scans() == (known.scan, missed.scan)


def test_what_a_damaged_segment_told_is_recorded_anew_but_no_scan_that_failed_since_counts_as_done(
    store: CohortStore, write: Write
) -> None:
    whole, broken = (write(scan=ScanKey.parse(name), node="ingest", key=INGEST_KEY) for name in ("sub-01", "sub-02"))
    store.record([whole.row(), broken.row()])
    (damaged,) = segments_of(store)
    store.record([{"scan": "sub-02", "node": "ingest", "state": "failed", "reason": "an echo is gone"}])
    damaged.write_bytes(damaged.read_bytes()[:-1])
    again = CohortStore.open(store.place.folder)
    assert again.upkeep.mend_index() == [damaged.name]
    index = again.index()
    assert dict(zip(index["scan"], index["state"], strict=True)) == {"sub-01": "done", "sub-02": "failed"}


def test_a_withdrawn_commit_does_not_count_and_its_arrays_stay(store: CohortStore, scan: ScanKey, write: Write) -> None:
    commit = write()
    store.upkeep.withdraw(scan, "field", KEY)
    assert store.commit(scan, "field", KEY) is None
    assert (store.place.folder / commit.folder).is_dir()
