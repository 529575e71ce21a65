"""What a run is predicted to cost: the arithmetic by hand, and bytes and objects against a run."""

from contextlib import nullcontext
from pathlib import Path

import pytest

from qsm_dask import calibration
from qsm_dask.cohort.costs import OVERHEAD_S, Costs, samples
from qsm_dask.engine import SerialEngine
from qsm_dask.engine.fleet import Fleet
from qsm_dask.errors import ConfigError
from qsm_dask.pipeline import Pipeline
from qsm_dask.scan import Geometry
from qsm_dask.store import CohortStore
from qsm_dask.workflow import plan, process
from tests.cohort.test_costs import PLAN, Work, measured
from tests.workflow import cohorts

GIB = 2**30
FLEET = Fleet(nodes=2, slots_per_node=2, worker_memory=4 * GIB, limit=2 * GIB, price=3.0)
ENGINE = SerialEngine(4 * GIB)


def test_the_last_of_many_tasks():
    assert plan.makespan([3.0, 3.0, 2.0, 2.0, 2.0], 2) == 7.0  # two of 3, two of 2, and the last alone
    assert plan.makespan([1.0, 1.0, 1.0], 3, pace=2.0) == 5.0  # the driver sends the third after 4 s
    assert plan.makespan([], 4) == 0.0


def test_hours_and_money_by_hand():
    costs = Costs.of([measured()])
    found = plan.run([(Work(PLAN, ("maps",)), 10)], costs, FLEET, needed_bytes=GIB)
    scan = 4.0 + 0.3 + OVERHEAD_S
    (phase,) = found.phases
    assert phase.slot_hours == pytest.approx(10 * scan / 3600)
    # ten scans on four slots take three turns; the driver sends the ninth when eight were sent
    assert 3 * scan <= 3600 * phase.wall_hours <= 3 * scan + 10 * plan.DRIVER_S
    assert found.wall_hours == pytest.approx(phase.wall_hours + plan.START_S / 3600)
    assert found.node_hours == pytest.approx(2 * found.wall_hours)
    assert found.busy_node_hours == pytest.approx(10 * scan / 2 / 3600)
    assert found.cost == pytest.approx(3.0 * found.node_hours)
    assert found.seconds == pytest.approx({"inversion.tkd": 4.0, "storing": 0.3})
    assert found.store_objects == 40
    assert found.read_bytes == pytest.approx(found.written_bytes + 10 * 1250, abs=10)


def test_faster_nodes_take_less():
    work = [(Work(PLAN, ("maps",)), 1)]
    slow, fast = (
        plan.run(work, Costs.of([measured()]), Fleet(1, 1, GIB, GIB, speed=speed), needed_bytes=1)
        for speed in (1.0, 2.0)
    )
    assert fast.phases[0].slot_hours * 3600 == pytest.approx(4.3 / 2 + OVERHEAD_S)
    assert slow.phases[0].slot_hours * 3600 == pytest.approx(4.3 + OVERHEAD_S)
    assert slow.cost is None


def test_ingest_comes_before_all_else():
    work = Work(PLAN, ("ingest", "field", "maps"))
    found = plan.run([(work, 4)], Costs.of([measured()]), FLEET, needed_bytes=GIB)
    assert [phase.name for phase in found.phases] == ["ingest", "process"]
    assert found.phases[0].slot_hours == pytest.approx(4 * (3.0 + 0.8 + OVERHEAD_S) / 3600)
    assert found.wall_hours == pytest.approx(sum(phase.wall_hours for phase in found.phases) + plan.START_S / 3600)


def test_scans_that_fit_no_worker_are_not_counted():
    costs, small = Costs.of([measured()]), Fleet(1, 1, 1, limit=PLAN.task_bytes() - 1)
    with pytest.raises(ConfigError, match=r"`memory` of at least 1\.00 GiB"):
        plan.run([(Work(PLAN, ("maps",)), 3)], costs, small, needed_bytes=GIB)
    large = Pipeline.from_mapping(cohorts.PIPELINE).plan(
        Geometry((64, 64, 64), (1.0, 1.0, 1.0), (0.01, 0.02)), cohorts_sources()
    )
    one = Fleet(1, 1, 1, limit=PLAN.task_bytes())
    found = plan.run([(Work(PLAN, ("maps",)), 3), (Work(large, ("maps",)), 2)], costs, one, needed_bytes=GIB)
    assert (found.scans, found.too_large) == (3, 2)


def cohorts_sources() -> tuple[str, ...]:
    return ("phase", "magnitude", "te", "b0", "b0_dir", "voxel_size", "affine", "dseg")


@pytest.fixture
def half_done(tmp_path: Path) -> CohortStore:
    """Two scans of four are processed."""
    cohort = cohorts.create(tmp_path / "cohort")
    for number in range(4):
        cohorts.ingest(cohort, f"sub-0{number}", seed=number)
    process.run(cohort, ENGINE, Pipeline.from_mapping(cohorts.PIPELINE), participants=["00", "01"])
    return cohort


def size_of(cohort: CohortStore) -> tuple[int, int]:
    assert cohort.place.folder is not None
    files = [file for file in (cohort.place.folder / "scans").rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files), len(files)


def test_bytes_and_objects_are_those_of_the_run(half_done: CohortStore):
    pipeline = Pipeline.from_mapping(cohorts.PIPELINE)
    found = plan.pending(half_done, pipeline)
    assert (found.done, found.refused, [count for _, count in found.works]) == (2, 0, [2])
    told = plan.run(found.works, Costs.of(samples(half_done)), FLEET, needed_bytes=GIB)
    before = size_of(half_done)
    process.run(half_done, ENGINE, pipeline)
    size, objects = (after - earlier for after, earlier in zip(size_of(half_done), before, strict=True))
    assert told.store_objects == objects
    assert told.store_bytes == pytest.approx(size, rel=0.03)
    assert plan.pending(half_done, pipeline).works == []


def test_a_scan_that_failed_at_ingest_is_refused_and_one_without_phase_is_done(half_done: CohortStore):
    cohorts.record(half_done, "sub-08", "ingest", "failed", "echo 2 is truncated")
    cohorts.record(half_done, "sub-09", "ingest", "skipped", "no phase")
    found = plan.pending(half_done, Pipeline.from_mapping(cohorts.PIPELINE))
    assert (found.done, found.refused) == (3, 1)


def test_what_was_done_last_is_among_the_samples(half_done: CohortStore):
    other = [{"inversion.tkd": {"threshold": 0.3}} if isinstance(step, dict) else step
             for step in cohorts.PIPELINE["steps"]]  # fmt: skip
    process.run(half_done, ENGINE, Pipeline.from_mapping(cohorts.PIPELINE))
    process.run(half_done, ENGINE, Pipeline.from_mapping({**cohorts.PIPELINE, "steps": other}), participants=["02"])
    (one,) = samples(half_done, most=1)
    assert one.commits["maps"].provenance["steps"][0]["parameters"]["threshold"] == 0.3
    assert len(samples(half_done, most=2)) == 2
    assert len(samples(half_done)) == 4


def test_a_cohort_without_scans_is_told(tmp_path: Path):
    with pytest.raises(ConfigError, match="holds no scan yet"):
        plan.pending(cohorts.create(tmp_path), Pipeline.from_mapping(cohorts.PIPELINE))


def test_calibration_measures_what_was_not_and_leaves_the_cohort_alone(
    half_done: CohortStore, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(calibration, "_engine", lambda _threads: nullcontext(ENGINE))
    monkeypatch.setattr(calibration.compile_ahead, "run", lambda *_: None)
    other = Pipeline.from_mapping(
        {**cohorts.PIPELINE, "steps": [{"inversion.tkd": {"threshold": 0.3}} if isinstance(step, dict) else step
                                       for step in cohorts.PIPELINE["steps"]]}
    )  # fmt: skip
    found = plan.pending(half_done, other)
    known = samples(half_done)
    assert plan.unmeasured(found.works, Costs.of(known)) == [0]
    assert half_done.place.folder is not None
    before = sorted(half_done.place.folder.rglob("*"))
    known += calibration.on_copies(half_done, found.examples[:1], other, rounds=2)
    assert sorted(half_done.place.folder.rglob("*")) == before
    assert len(known) == 4
    assert plan.unmeasured(found.works, Costs.of(known)) == []
    told = plan.run(found.works, Costs.of(known), FLEET, needed_bytes=GIB)
    assert (told.scans, told.measured_scans) == (4, 4)
    assert told.seconds["inversion.tkd"] > 0.0


def test_a_described_study_is_ingested_and_processed():
    geometry = Geometry((64, 64, 48), (1.0, 1.0, 1.0), (0.006, 0.012))
    ((work, count),) = plan.described(geometry, 32, 40_000, Pipeline.from_yaml("consensus"))
    assert (count, work.coils, work.nodes) == (40_000, 32, ("ingest", "field", "maps", "regions"))
