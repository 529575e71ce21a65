"""Which steps run on a scan, how they are grouped into commits, and what depends on what."""

import numpy as np
import pytest

from qsm_dask.errors import ConfigError, StageError
from qsm_dask.pipeline import Pipeline
from qsm_dask.quantities import MOST_T1W_VOXELS, RAW
from qsm_dask.scan import Geometry
from tests.pipeline.toys import STEPS, TOYS

GEOMETRY = Geometry((3, 2, 2), (1.0, 1.0, 1.0), (0.5, 1.0))
SOURCES = {name: f"digest of {name}" for name in (*RAW, "dseg")}
NODES = ("field", "maps", "regions")


def pipeline(steps=STEPS, **other):
    return Pipeline.from_mapping({"name": "toy", "steps": steps, **other}, TOYS)


def arrays():
    magnitude = np.ones((2, 3, 2, 2), dtype=np.float32)
    return {
        "magnitude": magnitude,
        "phase": np.full((2, 3, 2, 2), 0.25, dtype=np.float32),
        "te": np.array([0.5, 1.0]),
        "b0": 3.0,
        "b0_dir": np.array([0.0, 0.0, 1.0]),
        "voxel_size": np.ones(3),
        "affine": np.eye(4),
    }


def from_ingest(given):
    """Look quantities up among ingested ones only."""
    return lambda node, name: given.get(name) if node == "ingest" else pytest.fail(f"{name} of {node} was asked for")


def stages(plan):
    return {node.name: [step.stage for step in node.steps] for node in plan.nodes}


def test_steps_are_grouped_into_the_commits_they_belong_to():
    plan = pipeline().plan(GEOMETRY, SOURCES)
    assert stages(plan) == {
        "field": ["mask.level", "field.first", "background.peel"],
        "maps": ["inversion.gain", "relaxometry.decay"],
        "regions": ["roi.sum"],
    }
    assert plan.nodes[0].stores == ("mask", "total_field", "local_field")
    assert plan.nodes[1].reads == ("local_field", "mask", "magnitude", "te")
    assert plan.left_out == ()


def test_results_are_those_worked_out_by_hand():
    results = {result.node: result for result in pipeline().plan(GEOMETRY, SOURCES).run(from_ingest(arrays()), NODES)}
    # phase 0.25 / te 0.5 * scale 2 = 1; the first of three slabs is peeled; gain 2.
    expected = np.full((3, 2, 2), 2.0, dtype=np.float32)
    expected[0] = 0.0
    np.testing.assert_array_equal(results["maps"].outputs["chi"], expected)
    assert not results["field"].outputs["mask"][0].any()
    assert results["regions"].outputs["region_values"][0, 0, 0] == 16.0
    assert results["maps"].steps[0]["solved"] == {"iterations": 3, "residual": 0.5, "converged": True}


def test_a_mask_is_told_of_beside_how_an_iteration_ended():
    steps = ["mask.level", "field.first", "background.slow", "inversion.gain"]
    (result,) = pipeline(steps).plan(GEOMETRY, SOURCES).run(from_ingest(arrays()), ("field",))
    told = result.steps[-1]
    assert told["solved"]["iterations"] == 7
    # Eight voxels of 1 mm3 are left of twelve: twice eight over the sum of both is the Dice coefficient.
    assert told["figures"]["volume_ml"] == pytest.approx(0.008)
    assert told["figures"]["dice"] == pytest.approx(16 / 20)


def test_a_parameter_changes_its_step_and_what_follows_and_nothing_else():
    before = pipeline().plan(GEOMETRY, SOURCES).digests(SOURCES)
    steps = [*STEPS[:3], {"inversion.gain": {"gain": 3.0}}, *STEPS[4:]]
    after = pipeline(steps).plan(GEOMETRY, SOURCES).digests(SOURCES)
    assert after["field"] == before["field"]
    assert after["maps"] != before["maps"]
    assert after["regions"] != before["regions"]


def test_a_default_that_is_written_out_changes_no_key():
    before = pipeline().plan(GEOMETRY, SOURCES).digests(SOURCES)
    steps = [*STEPS[:2], {"background.peel": {"depth": 1}}, *STEPS[3:]]
    assert pipeline(steps).plan(GEOMETRY, SOURCES).digests(SOURCES) == before


def test_an_input_that_no_step_reads_changes_no_key_and_one_that_is_read_does():
    plan = pipeline().plan(GEOMETRY, SOURCES)
    before = plan.digests(SOURCES)
    assert plan.digests({**SOURCES, "affine": "another"}) == before
    changed = plan.digests({**SOURCES, "phase": "another"})
    assert all(changed[node] != before[node] for node in NODES)
    only_regions = plan.digests({**SOURCES, "dseg": "another"})
    assert {node: only_regions[node] != before[node] for node in NODES} == {
        "field": False,
        "maps": False,
        "regions": True,
    }


def test_a_stage_that_does_not_apply_is_left_out_with_the_reason():
    single = Geometry((3, 2, 2), (1.0, 1.0, 1.0), (0.5,))
    plan = pipeline().plan(single, SOURCES)
    assert plan.left_out == ("relaxometry.decay: needs 2 echoes, the scan has 1",)
    assert stages(plan)["maps"] == ["inversion.gain"]


def test_a_choice_takes_the_first_that_applies():
    steps = [*STEPS[:3], {"any": ["inversion.hollow", "inversion.gain"]}]
    assert stages(pipeline(steps).plan(GEOMETRY, SOURCES))["maps"] == ["inversion.hollow"]


@pytest.mark.parametrize(
    ("ingested", "expected"),
    [
        ({"mask"}, {"field": ["field.first", "background.peel"]}),
        ({"local_field"}, {"field": ["mask.level"]}),
        ({"chi"}, {"field": ["mask.level"], "maps": ["relaxometry.decay"]}),
    ],
)
def test_what_was_ingested_is_not_made_again(ingested, expected):
    plan = pipeline().plan(GEOMETRY, {*RAW, *ingested})
    everything = {"maps": ["inversion.gain", "relaxometry.decay"], "regions": ["roi.sum"]}
    assert stages(plan) == {**everything, **expected}


def test_a_goal_that_cannot_be_reached_is_an_error_that_says_why():
    with pytest.raises(ConfigError, match=r"chi cannot be computed: field.first: lacks phase"):
        pipeline().plan(GEOMETRY, set(RAW) - {"phase"})


def test_a_goal_is_stored_and_so_is_a_kept_second_output():
    two = pipeline([*STEPS[:3]], goal=["local_field"], keep=["mask"]).plan(GEOMETRY, {*SOURCES, "local_field"})
    assert stages(two)["field"] == ["mask.level"]
    goal = pipeline([{"mask.level": {"writes": {"mask": "mask_strong"}}}], goal=["mask_strong"])
    assert goal.plan(GEOMETRY, SOURCES).nodes[0].stores == ("mask_strong",)


def test_kept_quantities_are_stored_and_others_dropped():
    lean = pipeline([{"mask.level": {"writes": {"mask": "mask_strong"}}}, *STEPS], keep=["mask_strong"])
    assert "mask_strong" in lean.plan(GEOMETRY, SOURCES).nodes[0].stores


def committed(plan):
    """Everything a run commits, by node, with a `load` for runs that go on from it."""
    nodes = {"ingest": arrays()}
    nodes |= {result.node: result.outputs for result in plan.run(from_ingest(arrays()), NODES)}
    return nodes, lambda node, name: nodes[node].get(name)


def test_a_node_that_is_committed_is_not_run_and_its_arrays_are_looked_up():
    plan = pipeline().plan(GEOMETRY, SOURCES)
    nodes, load = committed(plan)
    del nodes["ingest"]["phase"]
    assert [result.node for result in plan.run(load, ("maps", "regions"))] == ["maps", "regions"]


@pytest.mark.parametrize("missing", [("field",), ("maps",), ("regions",), ("field", "regions"), ("field", "maps")])
def test_any_nodes_that_are_lost_come_out_equal(missing):
    """A quantity that two nodes write is read in the version that the whole run would read."""
    plan = pipeline([*STEPS[:4], "mask.shrink", STEPS[-1]]).plan(GEOMETRY, SOURCES)
    assert "mask" in plan.nodes[0].stores
    assert "mask" in plan.nodes[1].stores
    nodes, load = committed(plan)
    assert nodes["maps"]["mask"].sum() < nodes["field"]["mask"].sum()
    for result in plan.run(load, missing):
        assert result.outputs.keys() == nodes[result.node].keys()
        for name, array in result.outputs.items():
            np.testing.assert_array_equal(array, nodes[result.node][name])


def test_a_map_with_holes_is_refused():
    steps = [*STEPS[:3], "inversion.hollow"]
    with pytest.raises(StageError, match="maps: chi has 12 voxels that are NaN"):
        list(pipeline(steps).plan(GEOMETRY, SOURCES).run(from_ingest(arrays()), NODES))


def test_a_kernel_that_refuses_is_named():
    def refuse(magnitude, /):
        raise ValueError("no brain found")

    from qsm_dask.stages import Stage

    table = {**TOYS, "mask.level": Stage(refuse, ("mask",), lambda geometry, parameters: 0)}
    plan = Pipeline.from_mapping({"steps": STEPS}, table).plan(GEOMETRY, SOURCES)
    with pytest.raises(StageError, match="mask.level: no brain found"):
        list(plan.run(from_ingest(arrays()), NODES))


def test_an_output_of_the_wrong_dtype_is_refused():
    from qsm_dask.stages import Stage

    table = {**TOYS, "mask.level": Stage(lambda magnitude, /: magnitude[0], ("mask",), lambda g, p: 0)}
    plan = Pipeline.from_mapping({"steps": STEPS}, table).plan(GEOMETRY, SOURCES)
    with pytest.raises(StageError, match="mask as float32 with 3 dims; it must be bool"):
        list(plan.run(from_ingest(arrays()), NODES))


def test_peak_memory_is_the_worst_step_with_what_lives_beside_it():
    # The largest moment is the commit of `field`: magnitude (2 volumes, for R2*) and te, total
    # and local field and mask, and one more float volume held twice: bytes per voxel
    # 2*4 + 4 + 4 + 1 + 4 = 21; phase (8) and total field live while the peel runs: 8 + 4 + 1 + 4.
    voxels = GEOMETRY.voxels
    assert pipeline().plan(GEOMETRY, SOURCES).peak_bytes() == voxels * (8 + 4 + 4 + 1 + 4)


def test_what_a_step_could_take_in_makes_no_other_step_run():
    """Region values would have the gradient of the total field, but a local field was given; R2* is made for itself."""
    pipeline = Pipeline.from_yaml("consensus")
    full = Geometry((8, 8, 8), (1.0, 1.0, 1.0), (0.004, 0.008, 0.012))
    given = pipeline.plan(full, (*RAW, "local_field", "mask"))
    stages = [step.stage for node in given.nodes for step in node.steps]
    assert not [name for name in stages if name.startswith(("unwrap", "field", "offset"))]
    assert {"inversion.rts", "relaxometry.arlo", "roi.statistics"} <= set(stages)
    assert any(reason.startswith("field.weighted_mean: nothing that remains reads") for reason in given.left_out)


FULL = Geometry((64, 64, 64), (1.0, 1.0, 1.0), (0.004, 0.008, 0.012))


def planned(name, *beside, geometry=FULL):
    plan = Pipeline.from_yaml(name).plan(geometry, (*RAW, *beside))
    return [step.stage for node in plan.nodes for step in node.steps], plan


def test_a_step_that_only_serves_others_runs_where_one_takes_its_result_in_or_it_is_kept():
    t1w = ("t1w", "t1w_affine")
    assert "anatomy.align_t1w" in planned("regions", *t1w)[0]
    assert "anatomy.align_t1w" in planned("standard", *t1w, "dseg")[0]
    stages, plan = planned("regions", *t1w, "dseg")
    assert not [stage for stage in stages if stage.startswith("anatomy.")]
    assert "anatomy.align_t1w: nothing that remains reads t1w_from_scan" in plan.left_out
    steps = ["mask.magnitude", "unwrap.laplacian", "field.weighted_mean", "background.vsharp", "inversion.tkd"]
    for keep in ([], ["t1w_from_scan"]):
        alone = Pipeline.from_mapping({"name": "p", "steps": [*steps, "anatomy.align_t1w"], "keep": keep})
        nodes = alone.plan(FULL, (*RAW, *t1w)).nodes
        assert [node.name for node in nodes] == ["field", "maps", *(["registration"] if keep else [])]


@pytest.mark.parametrize("name", ["regions", "standard"])
def test_probabilities_that_were_ingested_stand_in_for_a_label_image(name):
    stages, _ = planned(name, "probseg", "probseg_labels")
    assert "roi.statistics" in stages
    assert not {"anatomy.labels", "anatomy.probabilities"} & set(stages)
    assert ("anatomy.standard" in stages) == (name == "standard")
    assert "anatomy.labels" in planned(name)[0] or "anatomy.probabilities" in planned(name)[0]


def test_an_error_tells_of_the_steps_that_lead_to_the_missing_quantity_only():
    flat = Geometry((64, 64, 1), (1.0, 1.0, 1.0), (0.004,))
    message = (
        r"dseg cannot be computed: anatomy.register: needs at least 4 .*; anatomy.labels: lacks template_position$"
    )
    with pytest.raises(ConfigError, match=message) as told:
        Pipeline.from_yaml("regions").plan(flat, (*RAW, "local_field", "chi"))
    assert not any(other in str(told.value) for other in ("relaxometry", "align_t1w", "background", "offset"))


def test_memory_is_planned_for_what_a_scan_has_not_for_what_it_could_have():
    without, having = (planned("regions", *beside)[1].peak_bytes() for beside in ((), ("t1w", "t1w_affine")))
    assert having > without + MOST_T1W_VOXELS
    assert without < 4 * MOST_T1W_VOXELS
