"""What a pipeline file may say, and what is refused before anything runs."""

import pytest

from qsm_dask.errors import ConfigError
from qsm_dask.pipeline import Pipeline
from qsm_dask.pipeline.parameters import coerce
from tests.pipeline.toys import STEPS, TOYS


def pipeline(steps=STEPS, **other):
    return Pipeline.from_mapping({"name": "toy", "steps": steps, **other}, TOYS)


def test_parameters_are_resolved_with_their_defaults():
    (step,) = pipeline().slots[1]
    assert step.parameters == {"scale": 2.0}
    (step,) = pipeline().slots[2]
    assert step.parameters == {"depth": 1}


def test_yaml_file_with_scientific_notation(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("steps: [mask.level: {level: 1e-3}, field.first, background.peel, inversion.gain]\n")
    loaded = Pipeline.from_yaml(path, TOYS)
    assert loaded.name == "mine"
    assert loaded.slots[0][0].parameters == {"level": 0.001}


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (["mask.levle"], "did you mean 'mask.level'"),
        ([{"mask.level": {"levle": 1}}], "did you mean 'level'"),
        ([{"mask.level": {"level": "high"}}], "level: 'high' is not a number"),
        ([{"mask.level": {"level": True}}], "True is not a number"),
        (["mask.level", {"background.peel": {"depth": 1.5}}], "1.5 is not a whole number"),
        (
            ["mask.level", "field.first", "background.peel", "inversion.gain", "reference.pick"],
            "needs a value for 'labels'",
        ),
        (["mask.level", "background.peel"], "reads 'total_field', which no step before it makes"),
        ([{"mask.level": {"writes": {"mask": "chi_strong"}}}], "not a branch of 'mask'"),
        ([{"mask.level": {"writes": {"mask": "masc_strong"}}}], "no quantity"),
        ([{"mask.level": {"reads": {"phase": "phase"}}}], "none of magnitude"),
        ([["mask.level"]], "a step is 'stage' or"),
        ([], "at least one stage"),
        ("mask.level", "must be a list"),
    ],
)
def test_wrong_steps_are_refused_with_the_remedy(steps, message):
    with pytest.raises(ConfigError, match=message):
        pipeline(steps)


def test_unknown_keys_and_quantities_are_refused():
    with pytest.raises(ConfigError, match="did you mean 'steps'"):
        Pipeline.from_mapping({"step": STEPS}, TOYS)
    with pytest.raises(ConfigError, match="no step makes 'field_noise'"):
        pipeline(keep=["field_noise"])
    with pytest.raises(ConfigError, match="is no quantity"):
        pipeline(goal=["ki"])


def test_a_branch_is_read_where_it_was_written():
    steps = [
        "mask.level",
        {"mask.level": {"level": 2.0, "writes": {"mask": "mask_strong"}}},
        {"field.first": {"reads": {"mask": "mask_strong"}}},
        "background.peel",
        "inversion.gain",
    ]
    (step,) = pipeline(steps).slots[2]
    assert step.inputs == ("phase", "mask_strong", "te")


def test_a_branch_must_not_overwrite_what_belongs_to_the_trunk():
    twice = [*STEPS[:-1], {"inversion.split": {"writes": {"chi": "chi_strong"}}}]
    with pytest.raises(ConfigError, match="would overwrite 'chi_reference': rename it too"):
        pipeline([*STEPS[:-1], "inversion.split", *twice[-1:]])
    renamed = {"inversion.split": {"writes": {"chi": "chi_strong", "chi_reference": "chi_reference_strong"}}}
    assert pipeline([*STEPS[:-1], "inversion.split", renamed])


@pytest.mark.parametrize("value", ["inf", "nan", float("inf")])
@pytest.mark.parametrize("kind", [int, float])
def test_numbers_are_finite(value, kind):
    with pytest.raises(ValueError, match="not a finite number"):
        coerce(value, kind)


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("1e-3", float, 0.001),
        (3, float, 3.0),
        ("4", int, 4),
        ("true", bool, True),
        ("none", float | None, None),
        ("2.5", float | None, 2.5),
        ([1, 2], tuple[int, ...], (1, 2)),
        ("1,2", tuple[int, ...], (1, 2)),
        ("0,0,1", tuple[float, float, float], (0.0, 0.0, 1.0)),
    ],
)
def test_values_are_coerced_to_the_annotation(value, kind, expected):
    result = coerce(value, kind)
    assert result == expected
    assert type(result) is type(expected)
