"""What the images install has all that a pipeline may need on a worker."""

import re
import tomllib
from pathlib import Path

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


def test_packages_of_a_stage_come_with_an_extra_that_exists():
    assert {extra for stage in STAGES.values() for extra in stage.packages.values()} <= EXTRAS.keys()
    assert STAGES["anatomy.register"].packages
    assert STAGES["mask.bet"].packages
