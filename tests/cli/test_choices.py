"""`stages` and `pipelines` tell all that there is to choose from."""

import inspect
import re

import pytest

from qsm_dask.pipeline.parameters import coerce
from qsm_dask.stages import STAGES


def test_every_stage_is_listed_with_all_that_there_is_to_know(told):
    listed = told("stages")
    assert [one["stage"] for one in listed] == sorted(STAGES)
    for one in listed:
        assert set(one["parameters"]) == set(STAGES[one["stage"]].parameters)
        assert one["memory"]["bytes"] > 0
        assert one["memory"]["scan"] == "192x224x160, 4 echoes"
        assert one["doi"] is None or one["doi"].startswith("10.")
        for parameter in one["parameters"].values():
            assert set(parameter) == {"type", "default", "required", "units", "meaning"}
            assert parameter["meaning"]


def test_a_parameter_in_the_list_has_default_units_and_meaning(qsm):
    code, out, _ = qsm("stages")
    assert code == 0
    assert "radius_mm: number = 12.0 mm  largest radius" in out
    assert "doi 10.1002/mrm.23000" in out
    assert "float32 volumes" in out


def test_the_list_shows_every_default_as_it_is_given_by_hand(qsm):
    listed = "\n" + qsm("stages")[1]
    for name, stage in STAGES.items():
        about = listed.partition(f"\n{name}  ")[2].partition("takes at most")[0]
        for parameter, default in stage.parameters.items():
            shown = re.search(rf"^    {parameter}: [^=\n]*?(?:, (required)| = (\S+))", about, re.MULTILINE)
            assert shown, f"{name}: {parameter}"
            if default is inspect.Parameter.empty:
                assert shown[1] == "required"
            else:
                value = [] if shown[2] == "[]" else shown[2]
                assert coerce(value, stage.types[parameter]) == default, f"{name}: {parameter}"


def test_one_stage_is_told_in_full(qsm):
    code, out, _ = qsm("stages", "reference.region")
    assert code == 0
    assert "labels: list of whole numbers, required" in out
    assert "qsm-dask apply reference.region -i chi=FILE -i dseg=FILE -i mask=FILE --set labels=VALUE -o DIR" in out
    assert "--b0 TESLA --te SECONDS" in qsm("stages", "inversion.fansi")[1]


def test_a_family_is_a_part_of_the_list(told):
    assert [one["stage"] for one in told("stages", "offset")] == ["offset.bipolar", "offset.mcpc3ds"]


@pytest.mark.parametrize(
    ("name", "hint"), [("inversion.tdk", "'inversion.tkd'"), ("tkd", "'inversion.tkd'"), ("zzz", "families are")]
)
def test_a_stage_that_is_none_exits_2_with_a_hint(qsm, name, hint):
    code, out, err = qsm("stages", name)
    assert (code, out) == (2, "")
    assert hint in err


def test_pipelines_are_listed_with_their_steps(qsm, told):
    assert {one["name"] for one in told("pipelines")} >= {"consensus", "fast"}
    assert "relaxometry.arlo or relaxometry.loglinear" in qsm("pipelines")[1]
