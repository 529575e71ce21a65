"""A worker is lost while it works on a scan: only what it had not committed is computed again."""

from collections import Counter
from typing import Any

import pytest

from qsm_dask.engine import Engine
from qsm_dask.pipeline import Pipeline
from qsm_dask.store import CohortStore
from qsm_dask.workflow import process, status
from tests.faults.study import NODES, PIPELINE, SCANS, Faults, Study

VICTIM = "sub-02"
BEFORE_THE_COMMIT = [
    "attempt begun",
    "chunk torn",
    "attempt written",
    "attempt verified",
    "marker: draft torn",
    "marker: drafted",
]
AFTER_THE_COMMIT = ["marker: replaced", "committed"]


def run(cohort: CohortStore, engine: Engine, **options: Any) -> process.Summary:
    return process.run(cohort, engine, Pipeline.from_yaml(PIPELINE), **options)


def point(node: str, name: str) -> str:
    return f"{node} {name}" if name.startswith("marker") else f"{node}: {name}"


@pytest.mark.parametrize("stage", ["background.vsharp", "inversion.tkd", "roi.statistics"])
def test_killed_in_mid_step(study: Study, cohort: CohortStore, engine: Engine, faults: Faults, stage: str) -> None:
    faults.arm(f"step {stage}", scan=VICTIM)
    summary = run(cohort, engine)
    assert faults.met() == 1
    assert (summary.done, summary.failures) == (3, {})
    study.assert_whole(cohort)
    node = next(node for node in NODES if stage in study.steps[node])
    begun = study.steps[node][: study.steps[node].index(stage) + 1]
    assert faults.steps() - study.once() == Counter((VICTIM, one) for one in begun)


@pytest.mark.parametrize("name", BEFORE_THE_COMMIT)
def test_killed_before_the_commit(study: Study, cohort: CohortStore, engine: Engine, faults: Faults, name: str) -> None:
    """The node in flight is computed twice; those before it are not."""
    faults.arm(point("maps", name), scan=VICTIM)
    summary = run(cohort, engine)
    assert faults.met() == 1
    assert (summary.done, summary.failures) == (3, {})
    study.assert_whole(cohort)
    assert faults.steps() - study.once() == study.once("maps", scan=VICTIM)


@pytest.mark.parametrize("name", AFTER_THE_COMMIT)
def test_killed_after_the_commit(study: Study, cohort: CohortStore, engine: Engine, faults: Faults, name: str) -> None:
    """What is committed is not computed again, though the worker could not tell of it."""
    faults.arm(point("maps", name), scan=VICTIM)
    summary = run(cohort, engine)
    assert faults.met() == 1
    assert (summary.done, summary.reused) == (3, 2)
    study.assert_whole(cohort)
    assert faults.steps() == study.once()


def test_a_death_in_every_scan_at_once(study: Study, cohort: CohortStore, engine: Engine, faults: Faults) -> None:
    for scan, node in zip(SCANS, NODES, strict=True):
        faults.arm(point(node, "attempt verified"), scan=scan)
    assert run(cohort, engine).done == 3
    assert faults.met() == 3
    study.assert_whole(cohort)
    twice = [study.once(node, scan=scan) for scan, node in zip(SCANS, NODES, strict=True)]
    assert faults.steps() - study.once() == sum(twice, Counter())


def test_killed_for_its_memory(study: Study, cohort: CohortStore, engine: Engine, faults: Faults) -> None:
    """The scan comes back once, alone, in a worker of twice the memory, and goes on from its last commit."""
    faults.arm("step inversion.tkd", "feast", scan=VICTIM)
    faults.arm("step inversion.tkd", "feast", scan=VICTIM)
    summary = run(cohort, engine)
    assert faults.met() == 2
    assert (summary.done, summary.failures) == (3, {})
    study.assert_whole(cohort)
    assert faults.steps() - study.once() == Counter([(VICTIM, "inversion.tkd")])


def failure(cohort: CohortStore) -> tuple[str, str]:
    """The one node that failed, and why; the other scans are done."""
    rows = status.run(cohort).rows
    (found,) = [row for row in rows if row["state"] == "failed"]
    assert found["scan"] == VICTIM
    assert {row["state"] for row in rows if row["scan"] != VICTIM} == {"done"}
    return found["node"], found["reason"]


@pytest.mark.parametrize(
    ("act", "starts", "reason"),
    [
        ("kill", 3, "its worker died 3 times"),
        pytest.param("gorge", 2, "GiB of memory, more than it may take alone", marks=pytest.mark.slow),
    ],
)
def test_a_scan_that_always_ends_its_worker(
    study: Study, cohort: CohortStore, engine: Engine, faults: Faults, act: str, starts: int, reason: str
) -> None:
    faults.arm("step inversion.tkd", act, scan=VICTIM, always=True)
    summary = run(cohort, engine)
    assert (summary.done, list(summary.failures)) == (2, [VICTIM])
    node, told = failure(cohort)
    assert node == "maps"
    assert reason in told
    assert told == summary.failures[VICTIM]
    expected = study.once() - study.once("maps", "regions", scan=VICTIM)
    assert faults.steps() == expected + Counter({(VICTIM, "inversion.tkd"): starts})
    faults.clear()
    again = run(cohort, engine)
    assert (again.done, again.computed) == (3, 2)
    study.assert_whole(cohort)
    assert faults.steps() == study.once("maps", "regions", scan=VICTIM)


def test_a_scan_that_never_ends(study: Study, cohort: CohortStore, engine: Engine, faults: Faults) -> None:
    faults.arm("step inversion.tkd", "hang", scan=VICTIM, always=True)
    summary = run(cohort, engine, timeout_s=6.0)
    assert (summary.done, list(summary.failures)) == (2, [VICTIM])
    node, reason = failure(cohort)
    assert node == "maps"
    assert "ran longer than 6 s and was stopped" in reason
    assert (
        faults.steps() + study.once("regions", scan=VICTIM) + Counter([(VICTIM, "reference.whole_brain")])
        == study.once()
    )
    faults.clear()
    assert run(cohort, engine).computed == 2
    study.assert_whole(cohort)
