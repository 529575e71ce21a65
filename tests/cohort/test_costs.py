"""What commits say of costs, told of other geometries: every figure by hand."""

import math
from typing import Any

import pytest

from qsm_dask.cohort.costs import Costs, Sample, Work, middle, work_of
from qsm_dask.pipeline import Pipeline
from qsm_dask.scan import Geometry, ScanKey
from qsm_dask.store import Commit

SMALL = Geometry((10, 10, 10), (1.0, 1.0, 1.0), (0.01, 0.02))
LARGE = Geometry((20, 10, 10), (1.0, 1.0, 1.0), (0.01, 0.02, 0.03))
PIPELINE = Pipeline.from_mapping(
    {
        "steps": [
            "mask.magnitude",
            "unwrap.laplacian",
            "field.weighted_mean",
            "background.vsharp",
            {"inversion.tkd": {"threshold": 0.2}},
        ]
    }
)
SOURCES = ("phase", "magnitude", "te", "b0", "b0_dir", "voxel_size", "affine")
PLAN = PIPELINE.plan(SMALL, SOURCES)
STEPS = {step.stage: step for node in PLAN.nodes for step in node.steps}
SECONDS = {
    "mask.magnitude": 0.5,
    "unwrap.laplacian": 1.0,
    "field.weighted_mean": 0.25,
    "background.vsharp": 2.0,
    "inversion.tkd": 4.0,
}
VOXELS = 1000


def entry(packed: int, *, chunks: int = 1) -> dict[str, Any]:
    sizes = {f"{index}": packed // chunks for index in range(chunks)}
    return {"chunks": sizes, "metadata": {"size": 100, "digest": ""}}


def commit(node: str, arrays: dict[str, Any], **about: Any) -> Commit:
    rest = {"attributes": {}, "provenance": {}, "seconds": 0.0} | about
    return Commit(ScanKey.parse("sub-01"), node, "k", "a", "d", arrays, **rest, peak_bytes=0)


def ingest(*, coils: int = 1, seconds: float = 3.0) -> Commit:
    combined = {"coils": coils} if coils > 1 else {}
    attributes = {
        "geometry": SMALL.to_dict(),
        "sources": {"magnitude": {"from": "raw", **combined}},
        "files": {"one": {"size": 3000 * coils}, "other": {"size": 1000 * coils}},
    }
    arrays = {"phase": entry(4000, chunks=2), "magnitude": entry(2000, chunks=2)}
    provenance = {"store_seconds": 0.8}
    return commit("ingest", arrays, attributes=attributes, provenance=provenance, seconds=seconds)


def record(stage: str, seconds: float) -> dict[str, Any]:
    step = STEPS[stage]
    version, parameters = step.method.version, dict(step.parameters)
    return {"stage": stage, "version": version, "parameters": parameters, "seconds": seconds}


def measured(factor: float = 1.0) -> Sample:
    commits = {"ingest": ingest()}
    for node in PLAN.nodes:
        arrays = {name: entry(250 if name == "mask" else 1000) for name in node.stores}
        steps = [record(step.stage, factor * SECONDS[step.stage]) for step in node.steps]
        commits[node.name] = commit(node.name, arrays, provenance={"steps": steps, "store_seconds": 0.3})
    return Sample(SMALL, 1, commits)


def test_work_is_voxels_echoes_or_transforms_of_the_padded_matrix():
    assert work_of(STEPS["mask.magnitude"], LARGE) == 2000 * 3
    assert work_of(STEPS["unwrap.laplacian"], LARGE) == 2000 * 3
    grid = 40 * 30 * 30  # 20 mm behind every axis; 40 and 30 are products of 2, 3 and 5
    assert work_of(STEPS["inversion.tkd"], LARGE) == pytest.approx(grid * math.log2(grid))
    assert work_of(STEPS["background.vsharp"], LARGE) == pytest.approx(grid * math.log2(grid))


def test_what_was_measured_on_a_scan_is_told_of_its_like():
    costs = Costs.of([measured()])
    found = costs.of_scan(Work(PLAN, ("field", "maps")))
    assert found["field"].steps == pytest.approx({name: SECONDS[name] for name in list(SECONDS)[:4]})
    assert found["maps"].seconds == pytest.approx(4.0 + 0.3)


def test_steps_scale_with_their_own_work():
    found = Costs.of([measured()]).of_scan(Work(PIPELINE.plan(LARGE, SOURCES), ("field", "maps")))
    small, large = 30**3, 40 * 30 * 30
    transforms = large * math.log2(large) / (small * math.log2(small))
    assert found["field"].steps["unwrap.laplacian"] == pytest.approx(1.0 * 2 * 3 / 2)
    assert found["field"].steps["background.vsharp"] == pytest.approx(2.0 * transforms)
    assert found["maps"].steps["inversion.tkd"] == pytest.approx(4.0 * transforms)
    assert found["maps"].storing == pytest.approx(0.3 * 2)


def test_bytes_and_objects_of_the_store():
    costs = Costs.of([measured()])
    node = next(node for node in PLAN.nodes if node.name == "maps")
    assert node.stores == ("chi",)
    found = costs.of_scan(Work(PLAN, ("maps",)))["maps"]
    assert found.objects == 4  # commit, group, and metadata and one chunk of the map
    frame = len(measured().commits["maps"].to_json()) + 100 + 150
    assert found.written == pytest.approx(1000 + frame)
    assert found.read == pytest.approx(1000 + 250)  # local field and mask, of the node before


def test_what_a_task_holds_already_is_not_read_again():
    costs = Costs.of([measured()])
    both = costs.of_scan(Work(PLAN, ("field", "maps")))
    assert both["field"].read == pytest.approx(4000 + 2000)
    assert both["maps"].read == 0.0


def test_ingest_reads_files_and_stores_a_chunk_an_echo():
    costs = Costs.of([measured()])
    found = costs.of_scan(Work(PIPELINE.plan(LARGE, SOURCES), ("ingest",)))["ingest"]
    assert found.objects == 2 + 2 * (1 + 3)
    assert found.read == pytest.approx(4000 * 3)  # a volume is twice as large, and there are three for two
    assert found.seconds == pytest.approx((3.0 + 0.8) * 3)


def test_the_cost_of_coils_is_a_line_through_what_was_measured():
    two = Sample(SMALL, 2, {"ingest": ingest(coils=2, seconds=5.0)})
    eight = Sample(SMALL, 8, {"ingest": ingest(coils=8, seconds=11.0)})
    costs = Costs.of([two, eight])
    at = {coils: costs.of_scan(Work(PLAN, ("ingest",), coils))["ingest"] for coils in (2, 8, 32)}
    assert [one.steps["reading"] for one in at.values()] == pytest.approx([5.0, 11.0, 11.0 + 24])
    assert at[32].read == pytest.approx(32 * 4000)
    alone = Costs.of([two]).of_scan(Work(PLAN, ("ingest",), 4))["ingest"]
    assert alone.steps["reading"] == pytest.approx(10.0)


def test_a_first_scan_that_was_slow_counts_little():
    assert middle([9.0, 1.0, 2.0, 3.0, 1.0, 50.0]) == 2.5
    found = Costs.of([measured(), measured(), measured(30.0)]).of_scan(Work(PLAN, ("maps",)))
    assert found["maps"].steps["inversion.tkd"] == pytest.approx(4.0)
    with pytest.raises(ValueError, match="nothing was measured"):
        middle([])


def test_other_parameters_are_another_cost():
    costs = Costs.of([measured()])
    other = Pipeline.from_mapping(
        {"steps": ["mask.magnitude", "unwrap.laplacian", "field.weighted_mean", "background.vsharp", "inversion.tkd"]}
    ).plan(SMALL, SOURCES)
    assert costs.unmeasured(PLAN, ("field", "maps")) == ()
    assert costs.unmeasured(other, ("field", "maps")) == ("inversion.tkd",)
    assert Costs().unmeasured(PLAN, ("ingest", "maps")) == ("ingest", "inversion.tkd")
    with pytest.raises(ValueError, match=r"inversion\.tkd"):
        costs.of_scan(Work(other, ("maps",)))
