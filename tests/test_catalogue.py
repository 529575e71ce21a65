"""What the catalogue tells of stages: read from signatures and docstrings, and complete for every stage."""

import re
from typing import Literal

import pytest

from qsm_dask.catalogue import HEAD, UNITS, describe, meanings, type_in_words, units_of
from qsm_dask.quantities import quantity
from qsm_dask.stages import STAGES, Stage


def kernel(phase, mask, /, *, radius_mm: float = 2.0, labels: tuple[int, ...], mode: Literal["a", "b"] = "a"):
    """Do nothing.

    At all.

    Parameters
    ----------
    phase, mask : (echo, x, y, z) wrapped [rad]; as it comes.
    radius_mm : of the sphere [mm]. Half of what
        the mask loses [mm].
    labels : numbers: one or more.
    mode : `a` or `b`.

    Returns
    -------
    nothing : that is a parameter.
    """


def test_a_docstring_read_by_hand():
    assert meanings(kernel) == {
        "phase": "(echo, x, y, z) wrapped [rad]; as it comes.",
        "mask": "(echo, x, y, z) wrapped [rad]; as it comes.",
        "radius_mm": "of the sphere [mm]. Half of what the mask loses [mm].",
        "labels": "numbers: one or more.",
        "mode": "`a` or `b`.",
    }
    told = describe("toy.nothing", Stage(kernel, ("mask",), lambda geometry, parameters: 8 * geometry.voxels))
    assert (told.summary, told.details) == ("Do nothing.", "At all.")
    assert (told.memory_bytes, told.memory_volumes) == (8 * 192 * 224 * 160, 2.0)
    assert [(one.name, one.meaning, one.image) for one in told.reads] == [
        ("phase", quantity("phase").meaning, True),
        ("mask", quantity("mask").meaning, True),
    ]
    radius, labels, mode = told.parameters
    assert (radius.type, radius.default, radius.required, radius.units) == ("number", 2.0, False, "mm")
    assert radius.meaning == "of the sphere. Half of what the mask loses [mm]."
    assert radius.brief == "of the sphere"
    assert (labels.type, labels.default, labels.required) == ("list of whole numbers", None, True)
    assert mode.type == "one of a, b"


def test_units_come_from_the_name_or_from_brackets():
    assert units_of("weight_ppm_mm", "") == "ppm mm"
    assert units_of("max_per_s", "") == "1/s"
    assert units_of("max_s", "") == "s"
    assert units_of("fidelity", "weight of the data [1/(rad mm)]; 1000") == "1/(rad mm)"
    assert units_of("tolerance", "relative change") == ""


def test_types_in_words():
    assert type_in_words(float | None) == "number or none"
    assert type_in_words(tuple[str, ...]) == "list of names"


@pytest.mark.parametrize("name", STAGES)
def test_every_argument_of_every_stage_has_a_meaning(name):
    told = describe(name, STAGES[name])
    written = meanings(STAGES[name].kernel)
    for one in (*told.reads, *told.parameters):
        assert len(one.meaning) > 3, f"{name}: the docstring's Parameters say nothing of {one.name}"
        assert one.name in written, f"{name}: the docstring's Parameters lack {one.name}"
    assert told.summary.endswith("."), f"{name}: the first line of the docstring is a sentence"
    assert 0 < told.memory_volumes < 100


@pytest.mark.parametrize("name", STAGES)
def test_every_default_is_told_with_more_than_what_it_is(name):
    """After what a parameter is, its meaning says where the default comes from, or what another value does."""
    for one in describe(name, STAGES[name]).parameters:
        more = re.split(r"^see |[;:.,] ", one.meaning, maxsplit=1)[1:]
        said = one.required or bool(more and re.search(r"[A-Za-z]{2,}", more[0]))
        assert said, f"{name}: why is {one.name} {one.default}?"


@pytest.mark.parametrize("name", STAGES)
def test_units_in_names_and_in_docstrings_agree(name):
    for parameter in STAGES[name].parameters:
        text = meanings(STAGES[name].kernel)[parameter]
        carried = next((units for ending, units in UNITS.items() if parameter.endswith(ending)), None)
        if carried is not None:
            bracket = re.search(r"\[([^\]]+)\]", text)
            assert bracket is not None, f"{name}: {parameter} has no units in brackets"
            assert bracket[1] == carried, f"{name}: {parameter}"


def test_memory_is_told_for_a_full_head():
    assert (HEAD.shape, HEAD.echoes) == ((192, 224, 160), 4)
