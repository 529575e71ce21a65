"""Steps that use an atlas: digests follow its content, and what it takes is known before the run."""

import pytest

from qsm_dask.atlas import Pin
from qsm_dask.errors import ConfigError, StageError
from qsm_dask.pipeline import Pipeline
from qsm_dask.pipeline.plan import call
from qsm_dask.quantities import RAW
from qsm_dask.scan import Geometry

GEOMETRY = Geometry((30, 32, 28), (2.0, 2.0, 2.0), (0.004, 0.008, 0.012))
STEPS = [
    *("mask.magnitude", "unwrap.laplacian", "field.weighted_mean", "background.vsharp", "inversion.tkd"),
    {"anatomy.register": {"template": "here"}},
    {"anatomy.labels": {"atlas": "here"}},
    "roi.statistics",
]
SOURCES = {name: f"digest of {name}" for name in RAW}


def settled(content, name="here", voxels=100):
    pipeline = Pipeline.from_mapping({"name": "p", "steps": STEPS}).with_atlas(name)
    return pipeline.settled(lambda _, part: Pin(content[part], voxels))


def keys(pipeline):
    return pipeline.plan(GEOMETRY, SOURCES).digests(SOURCES)


def changed(before, after):
    one, other = keys(before), keys(after)
    assert one.keys() == other.keys() == {"field", "maps", "registration", "regions"}
    return {node for node in one if one[node] != other[node]}


def test_results_depend_on_the_content_of_an_atlas_and_not_on_its_place():
    first = settled({"template": "a", "regions": "b"})
    assert changed(first, settled({"template": "a", "regions": "b"}, name="there")) == set()
    assert changed(first, settled({"template": "c", "regions": "b"})) == {"registration", "regions"}
    assert changed(first, settled({"template": "a", "regions": "c"})) == {"regions"}


def test_a_settled_pipeline_survives_its_document():
    first = settled({"template": "a", "regions": "b"})
    assert Pipeline.from_mapping(first.source) == first
    assert first.source["atlases"]["here"]["template"] == {
        "digest": "a",
        "voxels": 100,
        "probabilities": 0,
    }


def test_an_atlas_that_was_not_settled_gives_no_digests_and_no_result():
    open_pipeline = Pipeline.from_mapping({"name": "p", "steps": STEPS})
    with pytest.raises(ConfigError, match="not settled"):
        keys(open_pipeline)
    with pytest.raises(StageError, match="cannot be read here"):
        call(open_pipeline.slots[6][0], [None, None, None])


def test_the_size_of_the_atlas_counts_in_the_memory():
    small, large = (settled({"template": "a", "regions": "b"}, voxels=n) for n in (10, 10**8))
    assert large.plan(GEOMETRY, SOURCES).peak_bytes() > small.plan(GEOMETRY, SOURCES).peak_bytes() + 8 * 10**8


def test_only_a_pipeline_that_takes_an_atlas_can_be_given_one():
    with pytest.raises(ConfigError, match="no step that takes an atlas"):
        Pipeline.from_yaml("consensus").with_atlas("here")
    with pytest.raises(ConfigError, match="needs a value for 'template'"):
        Pipeline.from_mapping({"name": "p", "steps": [*STEPS[:5], "anatomy.register"]})
    with pytest.raises(ConfigError, match="written by the program"):
        Pipeline.from_mapping({"name": "p", "steps": STEPS, "atlases": {"here": "there"}})


def test_the_packages_of_a_plan_are_those_of_the_methods_that_it_names():
    def packages(step):
        pipeline = Pipeline.from_mapping({"name": "p", "steps": [*STEPS[:5], step, *STEPS[6:]]})
        return pipeline.plan(GEOMETRY, RAW).packages

    assert packages({"anatomy.register": {"template": "here", "method": "ants"}}) == {"ants": "ants"}
    assert set(packages(STEPS[5])) == {"picsl_greedy", "SimpleITK"}


EITHER = [*STEPS[:6], {"any": [{"anatomy.probabilities": {"atlas": "here"}}, STEPS[6]]}, STEPS[7]]


def chosen(probabilities, available=RAW):
    pipeline = Pipeline.from_mapping({"name": "p", "goal": ["chi"], "steps": EITHER})
    settled = pipeline.settled(lambda _, part: Pin(part, 100, probabilities if part == "regions" else 0))
    plan = settled.plan(GEOMETRY, available)
    return {step.stage for node in plan.nodes for step in node.steps}, plan


def test_probabilities_are_carried_where_the_atlas_has_them():
    stages, plan = chosen(0)
    assert "anatomy.labels" in stages
    assert "anatomy.probabilities" not in stages
    stages, more = chosen(200)
    assert "anatomy.probabilities" in stages
    assert "anatomy.labels" not in stages
    assert more.geometry.probabilities == 200
    assert plan.peak_bytes() < 200 * 4 * GEOMETRY.voxels < more.peak_bytes()


@pytest.mark.parametrize("own", ["dseg", "probseg"])
def test_regions_that_were_ingested_are_never_mixed_with_those_of_an_atlas(own):
    stages, plan = chosen(5, [*RAW, own])
    assert not stages & {"anatomy.register", "anatomy.labels", "anatomy.probabilities"}
    assert any(f"{own} was ingested" in reason for reason in plan.left_out)
