"""Values that no scan could be computed with are refused before the run, and kernels agree on which those are."""

import math
from typing import get_args

import numpy as np
import pytest

from qsm_dask.errors import ConfigError
from qsm_dask.pipeline import Pipeline
from qsm_dask.pipeline.ranges import RANGES, check
from qsm_dask.stages import STAGES
from tests.kernels import every_stage

STEPS = ["mask.magnitude", "unwrap.laplacian", "field.weighted_mean", "background.vsharp"]
LABELS = {"labels", "leave_out", "vein_labels"}


def numeric(kind):
    kinds = {kind, *get_args(kind), *(inner for one in get_args(kind) for inner in get_args(one))}
    return bool(kinds & {int, float})


NUMBERS = [(s, p) for s, method in sorted(STAGES.items()) for p, kind in method.types.items() if numeric(kind)]
BOUNDED = [(s, p) for s, p in NUMBERS if p not in LABELS]


def allowed(stage, parameter):
    return RANGES.get(f"{stage}.{parameter}", RANGES.get(parameter))


@pytest.mark.parametrize(("stage", "parameter"), BOUNDED)
def test_every_number_has_a_range_and_its_default_lies_in_it(stage, parameter):
    assert allowed(stage, parameter) is not None
    check(stage, parameter, STAGES[stage].parameters[parameter])


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (
            {"inversion.tkd": {"threshold": 2}},
            r"inversion\.tkd: threshold: 2 is out of range: .* above 0 and below 1/3",
        ),
        ({"inversion.rts": {"max_iterations": 0}}, "max_iterations: 0 is out of range: it must be above 0"),
        ({"inversion.ndi": {"damping": "-1e-3"}}, "damping: -0.001 is out of range"),
        ({"inversion.tkd": {"extensions": -1}}, "extensions: -1 is out of range: it must be at least 0"),
        ({"weighting.swi": {"highpass_voxels": [4, -4, 0]}}, "highpass_voxels: -4 is out of range"),
        ({"mask.deepbet": {"threshold": 3}}, r"mask\.deepbet: threshold: 3 is out of range: .* above 0 and below 1"),
        ({"mask.deepbet": {"echo": 0}}, "echo: 0 is out of range: it must be above 0"),
        ({"anatomy.labels": {"atlas": "a", "threshold": 1.01}}, "threshold: 1.01 is out of range: .* at most 1"),
        ({"anatomy.probabilities": {"atlas": "a", "threshold": 1.5}}, "threshold: 1.5 is out of range: .* at most 1"),
        (
            {"background.vsharp": {"radius_min_mm": 6, "radius_mm": 5}},
            "vsharp: radius_min_mm: 6 is out of range: it must be at most radius_mm, which is 5",
        ),
    ],
)
def test_a_value_out_of_range_is_refused_when_the_pipeline_is_read(step, message):
    with pytest.raises(ConfigError, match=message):
        Pipeline.from_mapping({"name": "p", "goal": [], "steps": [*STEPS, step]})


def test_limits_that_a_stage_takes_are_taken():
    Pipeline.from_mapping({"name": "p", "steps": [*STEPS, {"inversion.tkd": {"extensions": 0, "threshold": 0.3333}}]})
    Pipeline.from_mapping(
        {"name": "p", "steps": [{"mask.magnitude": {"percentile": "none"}}, *STEPS[1:], "inversion.tkd"]}
    )


@pytest.mark.parametrize("stage", ["anatomy.labels", "anatomy.probabilities"])
def test_a_certain_region_may_be_asked_for(stage):
    check(stage, "threshold", 1.0)


@pytest.fixture(scope="module")
def head():
    return every_stage.head(every_stage.EVEN_TE)


def outside(stage, parameter):
    """The nearest values on the wrong side of each limit."""
    limits, whole = allowed(stage, parameter), STAGES[stage].types[parameter] is int
    step = 1 if whole else 1e-6
    kind = int if whole else float
    if math.isfinite(limits.low):
        yield kind(limits.low - step if limits.least else limits.low)
    if math.isfinite(limits.high):
        yield kind(limits.high + step if limits.most else limits.high)


@pytest.mark.parametrize(
    ("stage", "parameter"), [(s, p) for s, p in BOUNDED if s in every_stage.STAGES and s != "weighting.swi"]
)
def test_the_kernel_refuses_what_the_range_leaves_out(head, stage, parameter):
    for value in outside(stage, parameter):
        with pytest.raises(ValueError, match=r"\S"):
            every_stage.run(stage, head, **{parameter: value})


def test_the_high_pass_filter_too(head):
    with pytest.raises(ValueError, match="highpass_voxels"):
        every_stage.run("weighting.swi", head, highpass_voxels=(4.0, np.nextafter(0.0, -1.0), 0.0))
