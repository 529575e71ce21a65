"""The index: newest row wins, drivers do not meet, segments stay few, damage is loud."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qsm_dask.errors import DamageError, StoreError
from qsm_dask.scan import ScanKey
from qsm_dask.store import CohortStore
from qsm_dask.store.index import SCHEMA, STATES, Index, facts_of
from tests.store.conftest import KEY, Write, segments_of

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def row(scan: str = "sub-01", node: str = "field", state: str = "done", **more: Any) -> dict[str, Any]:
    return {"scan": scan, "node": node, "state": state, **more}


def states(store: CohortStore) -> dict[tuple[str, str], str]:
    index = store.index()
    return dict(zip(zip(index["scan"], index["node"], strict=True), index["state"], strict=True))


def test_a_new_cohort_has_an_empty_index_with_all_columns(store: CohortStore) -> None:
    assert list(store.index().columns) == SCHEMA.names
    assert len(store.index()) == 0
    assert store.scans() == ()


def test_rows_come_back_with_their_types(store: CohortStore) -> None:
    store.record(
        [
            row(key="ab", digest="cd", seconds=1.5, peak_bytes=2**40, facts={"labels": {"1": "putamen"}}, time=NOON),
            row(node="maps", state="failed", reason="no phase"),
        ]
    )
    done, failed = store.index().to_dict("records")
    assert (done["key"], done["digest"], done["seconds"], done["peak_bytes"]) == ("ab", "cd", 1.5, 2**40)
    assert done["time"] == pd.Timestamp(NOON)
    assert facts_of(done["facts"]) == {"labels": {"1": "putamen"}}
    assert (failed["key"], failed["digest"], failed["reason"]) == ("", "", "no phase")
    assert pd.isna(failed["seconds"])
    assert pd.isna(failed["peak_bytes"])
    assert facts_of(failed["facts"]) == {}
    assert abs(failed["time"].to_pydatetime() - datetime.now(UTC)) < timedelta(minutes=5)


def test_the_row_of_a_commit_says_what_tables_need(write: Write, store: CohortStore, scan: ScanKey) -> None:
    store.record([(commit := write(attributes={"labels": {"1": "putamen"}, "facts": {"left_out": ["r2star"]}})).row()])
    (found,) = store.index().to_dict("records")
    assert (found["scan"], found["node"], found["state"]) == (str(scan), "field", "done")
    assert (found["key"], found["digest"]) == (KEY, commit.digest)
    assert (found["seconds"], found["peak_bytes"]) == (1.5, 1000)
    assert facts_of(found["facts"]) == {"labels": {"1": "putamen"}, "left_out": ["r2star"]}


def test_the_newest_row_of_each_node_counts(store: CohortStore) -> None:
    store.record([row(time=NOON), row(node="maps", state="skipped", time=NOON)])
    store.record([row(state="failed", time=NOON + timedelta(seconds=1)), row("sub-02", time=NOON)])
    store.record([row(state="done", time=NOON - timedelta(seconds=1))])
    assert states(store) == {("sub-01", "field"): "failed", ("sub-01", "maps"): "skipped", ("sub-02", "field"): "done"}


def test_rows_of_one_instant_count_in_the_order_they_were_given(store: CohortStore) -> None:
    store.record([row(state=state, time=NOON) for state in STATES])
    store.record([row(state="skipped", time=NOON)])
    assert states(store) == {("sub-01", "field"): "skipped"}


def test_two_drivers_never_write_one_object_and_see_each_other(store: CohortStore) -> None:
    other = CohortStore.open(store.place.folder)
    for n in range(3):
        store.record([row(f"sub-a{n}")])
        other.record([row(f"sub-b{n}")])
    assert len(segments_of(store)) == 6
    assert len({path.name.split("-")[0] for path in segments_of(store)}) == 2
    assert store.scans() == other.scans()
    assert [str(scan) for scan in store.scans()] == ["sub-a0", "sub-a1", "sub-a2", "sub-b0", "sub-b1", "sub-b2"]


def test_nothing_is_written_for_no_rows(store: CohortStore) -> None:
    store.record([])
    assert segments_of(store) == []


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"scan": "sub-01", "node": "field"}, "missing or unknown: .*state"),
        (row(speed=3), "missing or unknown: .*speed"),
        (row(state="lost"), "sub-01 field: state 'lost' is none of done, failed"),
    ],
)
def test_a_row_that_makes_no_sense_is_refused(store: CohortStore, bad: dict[str, Any], words: str) -> None:
    with pytest.raises(StoreError, match=words):
        store.record([row(), bad])
    assert segments_of(store) == []


def test_segments_stay_few_and_nothing_is_lost(store: CohortStore) -> None:
    for n in range(200):
        store.record([row(f"sub-{n:03d}"), row(f"sub-{n:03d}", "maps", "failed")])
    assert len(segments_of(store)) <= 129
    assert len(CohortStore.open(store.place.folder).index()) == 400


def test_who_merges_the_index_does_not_hold_it(store: CohortStore) -> None:
    """A driver that appends for hours would otherwise keep every row of the cohort."""
    for count in range(65):
        store.record([{"scan": f"sub-{count:02d}", "node": "field", "state": "done"}])
    assert any("-merged-" in name for name in store._files.names("index"))
    assert store._index._read == {}
    assert len(store.index()) == 65


def test_merging_keeps_the_segments_that_others_add_meanwhile(
    store: CohortStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = CohortStore.open(store.place.folder)
    for n in range(64):
        store.record([row(f"sub-{n:03d}")])
    put = store._files.put

    def late(key: str, data: bytes) -> None:
        if len(segments_of(store)) == 64:
            other._index._put(other.index().pipe(_table, "sub-late"))
        put(key, data)

    monkeypatch.setattr(store._files, "put", late)
    store.record([row("sub-064")])
    names = [str(scan) for scan in CohortStore.open(store.place.folder).scans()]
    assert names == [f"sub-{n:03d}" for n in range(65)] + ["sub-late"]
    assert len(segments_of(store)) == 3


def _table(index: pd.DataFrame, name: str) -> Any:
    import pyarrow as pa

    return pa.Table.from_pandas(index.iloc[:1].assign(scan=name), schema=SCHEMA, preserve_index=False)


def test_a_reader_whose_segments_are_merged_away_lists_again(
    store: CohortStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(64):
        store.record([row(f"sub-{n:03d}")])
    reader = CohortStore.open(store.place.folder)
    get, merged = reader._files.get, []

    def late(key: str) -> bytes | None:
        if not merged:
            merged.append(key)
            store.record([row("sub-064")])
        return get(key)

    monkeypatch.setattr(reader._files, "get", late)
    assert len(reader.index()) == 65
    assert len(segments_of(store)) == 2


def test_a_listing_that_a_rival_tears_is_made_again(store: CohortStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing reads a folder bit by bit: here a rival merges while it runs.

    The merged segment appeared behind the place it had reached, the others were gone before it came to them.
    """
    for n in range(64):
        store.record([row(f"sub-{n:03d}")])
    reader = CohortStore.open(store.place.folder)
    names, torn = reader._files.names, []

    def listed(prefix: str) -> list[str]:
        before = names(prefix)
        if prefix == "index" and not torn:
            torn.append(prefix)
            store.record([row("sub-064")])
            return [name for name in before if name in names(prefix)]
        return names(prefix)

    monkeypatch.setattr(reader._files, "names", listed)
    assert len(reader.index()) == 65
    assert torn


def test_drivers_that_append_all_the_time_do_not_keep_a_reader_from_ending(
    store: CohortStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds of jobs of an array: between any two listings somebody has appended."""
    store.record([row("sub-000")])
    reader = CohortStore.open(store.place.folder)
    names, count = reader._files.names, []

    def listed(prefix: str) -> list[str]:
        count.append(prefix)
        store.record([row(f"sub-{len(count):03d}")])
        return names(prefix)

    monkeypatch.setattr(reader._files, "names", listed)
    assert list(reader.index()["scan"]) == ["sub-000", "sub-001"]
    assert "sub-002" in set(reader.index()["scan"])


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["sub-1", "sub-2"]), st.sampled_from(["field", "maps"]), st.sampled_from(STATES),
        st.integers(0, 3), st.integers(0, 2),
    ),
    max_size=30,
)  # fmt: skip


@given(history=ROWS)
@settings(max_examples=20, deadline=None)
def test_merging_never_changes_what_the_index_says(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[str, str, str, int, int]]
) -> None:
    path = tmp_path_factory.mktemp("cohort")
    store = CohortStore.create(path)
    drivers = [CohortStore.open(path) for _ in range(3)]
    for scan, node, state, second, driver in history:
        drivers[driver].record([row(scan, node, state, time=NOON + timedelta(seconds=second))])
    before = store.index()
    index = Index(store._files)
    index.read()
    index._compact()
    assert len(segments_of(store)) <= 1
    pd.testing.assert_frame_equal(CohortStore.open(path).index(), before)


def test_what_the_caller_does_to_the_table_does_not_stay(store: CohortStore) -> None:
    store.record([row()])
    index = store.index()
    index["state"] = "failed"
    assert states(store) == {("sub-01", "field"): "done"}


def test_a_damaged_segment_is_named_with_its_remedy(store: CohortStore) -> None:
    store.record([row(reason=f"the {n}th") for n in range(50)])
    (path,) = segments_of(store)
    content = path.read_bytes()
    flipped = [content[:n] + bytes([content[n] ^ 1]) + content[n + 1 :] for n in range(0, len(content), 37)]
    for damaged in (b"", content[:-1], *flipped):
        path.write_bytes(damaged)
        with pytest.raises(DamageError, match=rf"{path} is damaged.*verify .* --repair"):
            CohortStore.open(store.place.folder).index()
