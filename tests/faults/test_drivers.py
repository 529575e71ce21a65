"""The command itself is lost, or there are two of it; the same command again goes on from what is committed."""

import json
import os
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from qsm_dask.engine import SerialEngine
from qsm_dask.pipeline import Pipeline
from qsm_dask.store import CohortStore
from qsm_dask.workflow import gc, process
from tests.engine.processes import eventually, running
from tests.faults.study import PIPELINE, ROOM, SCANS, Faults, Study, finish, labels, start

NODES_IN_ALL = 9
KILLED = -signal.SIGKILL
VICTIM = "sub-02"


def command(cohort: CohortStore) -> list[str]:
    """A run in one process: whatever is killed in it, is the driver."""
    return ["process", str(cohort.place), "--pipeline", PIPELINE, "--cluster", "serial", "--json"]


def resumed(cohort: CohortStore) -> process.Summary:
    return process.run(cohort, SerialEngine(ROOM), Pipeline.from_yaml(PIPELINE))


def markers(cohort: CohortStore) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path(str(cohort.place)).glob("scans/*/*/*/COMMIT.json")}


@pytest.mark.parametrize(
    ("point", "committed"),
    [
        ("document: drafted", 0),
        pytest.param("maps: attempt written", 4, marks=pytest.mark.slow),
        ("maps marker: drafted", 4),
        ("maps marker: replaced", 5),
        pytest.param("index: draft torn", 9, marks=pytest.mark.slow),
        ("index: replaced", 9),
    ],
)
def test_killed_at_a_write(study: Study, cohort: CohortStore, faults: Faults, point: str, committed: int) -> None:
    faults.arm(point, scan=None if committed in (0, 9) else VICTIM)
    finish(start(faults, *command(cohort)), KILLED)
    assert faults.met() == 1
    before = markers(cohort)
    assert len(before) == len(SCANS) + committed
    summary = resumed(cohort)
    assert (summary.done, summary.computed, summary.reused) == (3, NODES_IN_ALL - committed, committed)
    assert {path: markers(cohort)[path] for path in before} == before
    study.assert_whole(cohort)


def test_killed_while_it_merges_the_index(study: Study, cohort: CohortStore, faults: Faults) -> None:
    """What the merged segment holds is there twice for a while: never gone, never counted twice."""
    rows = cohort.index().drop(columns=["driver", "n", "time"]).to_dict("records")
    for _ in range(63):  # with the one that is there, as many as are merged
        CohortStore.open(str(cohort.place)).record([{str(name): value for name, value in rows[0].items()}])
    faults.arm("merged index: replaced")
    finish(start(faults, *command(cohort)), KILLED)
    assert faults.met() == 1
    assert len(cohort.index()) == len(SCANS)
    assert resumed(cohort).reused == NODES_IN_ALL
    study.assert_whole(cohort)


def begin(study: Study, faults: Faults, folder: Path) -> "subprocess.Popen[str]":
    """A run on two workers which, when all others are done, hangs in a step of one scan."""
    faults.arm("step inversion.tkd", "hang", scan=VICTIM)
    (folder / "scratch").mkdir()
    run = start(faults, *whole_run(study, folder))
    others = {scan for scan in SCANS if scan != VICTIM}
    eventually(lambda: run.poll() is not None or (faults.met() and others <= accounted(folder)), 120)
    assert run.poll() is None, run.communicate()
    return run


def accounted(folder: Path) -> set[str]:
    """The scans that the driver knows to be done, by its log."""
    log = folder / "log"
    lines = map(json.loads, log.read_text().splitlines()) if log.exists() else ()
    return {line["scan"] for line in lines if (line["node"], line["step"], line["state"]) == ("regions", None, "done")}


def whole_run(study: Study, folder: Path) -> list[Any]:
    cluster = folder / "cluster.yaml"
    cluster.write_text(
        json.dumps({"kind": "local", "workers": 2, "memory": "1 GiB", "scratch": str(folder / "scratch")})
    )
    options = ["--pipeline", PIPELINE, "--derivatives", labels(study.bids), "--cluster", cluster, "--json"]
    return ["--log", folder / "log", "run", study.bids, folder / "c", *options]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_ended_from_outside(study: Study, faults: Faults, tmp_path: Path, number: signal.Signals) -> None:
    run = begin(study, faults, tmp_path)
    family = family_of(run.pid)
    assert len(family) >= 3
    os.kill(run.pid, number)
    orderly = number is signal.SIGTERM
    _, complaints = finish(run, 128 + number if orderly else KILLED)
    eventually(lambda: not running(family))
    cohort = CohortStore.open(tmp_path / "c")
    left = list((tmp_path / "scratch").iterdir())
    if orderly:
        assert complaints == "error: stopped; what is done is kept: run the same command again to go on from there\n"
        assert left == []
        done = cohort.index()
        assert len(done[done["state"] == "done"]) == len(SCANS) + 6  # the hung scan's own rows come with its end
    else:
        assert len(left) == 1
    out, _ = finish(start(faults, *whole_run(study, tmp_path)))
    told = json.loads(out)
    assert (told["ingested"]["unchanged"], told["nodes_computed"], told["nodes_reused"]) == (3, 2, 7)
    assert list((tmp_path / "scratch").iterdir()) == []
    study.assert_whole(cohort)
    assert faults.steps() - study.once() == Counter([(VICTIM, "inversion.tkd")])


def test_a_scan_that_never_ends(study: Study, cohort: CohortStore, faults: Faults) -> None:
    faults.arm("step inversion.tkd", "hang", scan=VICTIM)
    finish(start(faults, *command(cohort), "--timeout", "0.05"), 1)
    [failed] = [row for row in cohort.index().itertuples() if row.state == "failed"]
    assert (failed.scan, failed.node) == (VICTIM, "maps")
    assert f"{VICTIM} ran longer than 3 s and was stopped" in failed.reason
    assert resumed(cohort).computed == 2
    study.assert_whole(cohort)


def family_of(pid: int) -> list[int]:
    """A process and all that it started."""
    import psutil  # type: ignore[import-untyped]

    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


def test_two_drivers_at_once(study: Study, cohort: CohortStore, faults: Faults) -> None:
    """Both write the first scan's maps and wait for one another just before they commit."""
    for _ in range(2):
        faults.arm("maps: attempt verified", "rendezvous", scan="sub-01")
    drivers = [start(faults, *command(cohort)) for _ in range(2)]
    told = [json.loads(finish(driver)[0]) for driver in drivers]
    assert faults.met() == 2
    assert [one["done"] for one in told] == [3, 3]
    assert faults.steps()[("sub-01", "inversion.tkd")] == 2
    assert max(faults.steps().values()) == 2
    assert sum(one["nodes_computed"] for one in told) <= 2 * NODES_IN_ALL
    study.assert_whole(cohort)
    orphans = gc.run(cohort, older_than_h=0, delete=True).found
    assert {(str(one.scan), one.node) for one in orphans} >= {("sub-01", "maps")}
    study.assert_whole(cohort)
    assert resumed(cohort).computed == 0
