"""`verify --repair` brings back what was damaged, bit for bit, and touches nothing else."""

import json
import shutil
from pathlib import Path

import pytest

from qsm_dask.errors import StoreError
from qsm_dask.scan import ScanKey
from qsm_dask.store import CohortStore
from tests.cli.conftest import digests, labels


@pytest.fixture
def cohort(study, tmp_path) -> Path:
    shutil.copytree(study.place.folder, tmp_path / "cohort")
    return tmp_path / "cohort"


def markers(cohort: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in cohort.glob("scans/*/*/*/COMMIT.json")}


def one(cohort: Path, pattern: str) -> Path:
    (found,) = cohort.glob(f"scans/{pattern}")
    return found


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink])
@pytest.mark.parametrize(
    ("victim", "marker"),
    [
        ("sub-01/maps/*/*/chi/c.0.0.0", "sub-01/maps/*/COMMIT.json"),
        ("sub-02/field/*/*/mask/zarr.json", "sub-02/field/*/COMMIT.json"),
        ("sub-02/regions/*/COMMIT.json", "sub-02/regions/*/COMMIT.json"),
    ],
)
def test_a_damaged_node_is_computed_anew(told, qsm, cohort, damage, victim, marker):
    expected, before = digests(told("status", cohort)), markers(cohort)
    broken = one(cohort, marker)
    damage(one(cohort, victim))
    assert qsm("verify", cohort, "--quiet")[0] == 1
    assert markers(cohort).keys() | {broken} == before.keys()  # to look changes nothing
    (found,) = told("verify", cohort, "--repair")
    scan, node = broken.parts[-4:-2]
    assert (found["scan"], found["node"], found["repaired"]) == (scan, node, True)
    after = markers(cohort)
    assert {path for path in before if before[path] != after[path]} == {broken}
    assert digests(told("status", cohort)) == expected
    assert told("verify", cohort) == []


def test_a_damaged_ingest_is_withdrawn_and_read_again_by_the_next_run(told, qsm, bids, cohort):
    expected = digests(told("status", cohort))
    flip(one(cohort, "sub-01/ingest/*/*/phase/c.0.0.0.0"))
    code, out, _ = qsm("verify", cohort, "--repair", "--json")
    assert (code, [one["repaired"] for one in json.loads(out)]) == (1, [False])
    code, out, _ = qsm("status", cohort, "--json")
    assert code == 1
    (failed,) = [row for row in json.loads(out) if row["state"] == "failed"]
    assert failed["reason"].startswith(
        "its ingest was damaged and is withdrawn: run the same `qsm-dask run` or `ingest`"
    )
    again = told("run", bids, cohort, *labels(bids), "--cluster", "serial")
    assert (again["ingested"]["converted"], again["nodes_computed"]) == (1, 0)
    assert digests(told("status", cohort)) == expected


def test_what_an_earlier_pipeline_made_is_withdrawn_and_not_computed(told, cohort):
    store = CohortStore.open(cohort)
    scan = ScanKey.parse("sub-01")
    maps = store.index().set_index(["scan", "node"]).loc[("sub-01", "maps"), "key"]
    commit = store.commit(scan, "maps", maps)
    given = {"attributes": {}, "provenance": {}, "seconds": 0.0, "peak_bytes": 0}
    old = store.write(scan, "maps", "feed", store.read(commit), **given)
    rows = told("status", cohort)
    flip(cohort / old.folder / "chi" / "c.0.0.0")
    assert [(one["key"], one["repaired"]) for one in told("verify", cohort, "--repair")] == [("feed", True)]
    assert store.commit(scan, "maps", "feed") is None
    assert told("status", cohort) == rows


def test_what_could_not_be_read_is_not_taken_for_damaged(qsm, cohort, monkeypatch):
    """A server that does not answer must not cost a result."""
    before, commit = markers(cohort), CohortStore.commit

    def fail(self, scan, node, key):
        if (str(scan), node) == ("sub-02", "maps"):
            raise StoreError("cannot read it: the server does not answer")
        return commit(self, scan, node, key)

    monkeypatch.setattr(CohortStore, "commit", fail)
    code, out, err = qsm("verify", cohort, "--repair")
    assert code == 1
    assert out == "sub-02: could not be verified: cannot read it: the server does not answer\n"
    assert "0 damaged nodes withdrawn; 1 scans are not whole yet" in err
    assert markers(cohort) == before


def test_a_damaged_index_is_told_of_and_made_anew(told, qsm, cohort):
    expected = digests(told("status", cohort))
    segments = sorted(cohort.glob("index/*.parquet"))
    for segment in segments:
        flip(segment)
    code, _, err = qsm("status", cohort)
    assert code == 1
    assert "--repair` makes it anew from the commits" in " ".join(err.split())
    code, _, err = qsm("verify", cohort, "--repair")
    assert code == 0
    assert err.count("the index was damaged") == len(segments)
    assert digests(told("status", cohort)) == expected
    assert told("process", cohort, "-c", "serial")["nodes_computed"] == 0
