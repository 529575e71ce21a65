"""What the images install has all that a pipeline may need on a worker."""

import re
import tomllib
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from qsm_dask.stages import STAGES

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def plain(requirement: str) -> str:
    return re.split(r"[<>=!~\[; ]", requirement)[0].lower().replace("_", "-")


@pytest.mark.parametrize("extra", ["anatomy", "cloud", "hpc", "kubernetes"])
def test_images_hold_what_each_extra_of_workers_brings(extra):
    pinned = {plain(line) for line in (ROOT / "cluster" / "requirements.txt").read_text().splitlines()}
    assert {plain(one) for one in (*PROJECT["dependencies"], *EXTRAS[extra])} <= pinned


def options(stage):
    """The stage's parameters, with each value that brings packages of its own."""
    chosen = [(name, value) for name, values in stage.chosen_packages.items() for value in values]
    return [dict(stage.parameters), *({**stage.parameters, name: value} for name, value in chosen)]


def test_packages_of_a_stage_come_with_an_extra_that_exists():
    assert {extra for one in STAGES.values() for each in options(one) for extra in one.needs(each).values()} <= {
        *EXTRAS
    }
    assert STAGES["mask.bet"].packages


def test_registration_needs_the_packages_of_its_method_alone():
    register = STAGES["anatomy.register"]
    assert register.needs(register.parameters) == {"picsl_greedy": "anatomy", "SimpleITK": "anatomy"}
    assert register.needs({**register.parameters, "method": "ants"}) == {"ants": "ants"}
    methods = get_args(get_type_hints(register.kernel)["method"])
    assert set(register.chosen_packages["method"]) == set(methods)
