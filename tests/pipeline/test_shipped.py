"""Shipped pipelines say what they cost, and what they say is so."""

import math
import re
from pathlib import Path

import pytest

from qsm_dask import resources
from qsm_dask.atlas import Pin
from qsm_dask.catalogue import HEAD
from qsm_dask.pipeline import Pipeline
from qsm_dask.quantities import RAW

SPEED = Path(__file__).parents[2] / "docs" / "speed.md"
TEMPLATE = 193 * 229 * 193
"""Voxels of the 1 mm template that the summary of `regions` names; it is read with its mask."""

SHIPPED = resources.names("pipelines")


def declared_volumes(pipeline):
    """The peak that its stages declare on the head of the summaries, given all that it may read."""
    sizes = {"template": 2 * TEMPLATE, "regions": TEMPLATE, "grid": TEMPLATE}
    settled = pipeline.settled(lambda _, part: Pin("any", sizes[part]))
    given = (*RAW, "r2", *(("t1w", "t1w_affine") if "dseg" in pipeline.goal else ("dseg",)))
    return settled.plan(HEAD, given).peak_bytes() / (4 * HEAD.voxels)


def stated(pipeline):
    """Seconds and volumes of a summary, which says them in the same words in every pipeline."""
    shape = "x".join(map(str, HEAD.shape))
    said = re.search(
        rf"head of {shape} with four echoes takes about (\d+) s of one core and at most (\d+) float32 volumes",
        pipeline.summary,
    )
    assert said, f"{pipeline.name} does not say in the usual words what it takes"
    return int(said[1]), int(said[2])


@pytest.mark.parametrize("name", SHIPPED)
def test_a_summary_states_the_memory_that_the_stages_declare(name):
    pipeline = Pipeline.from_yaml(name)
    declared = declared_volumes(pipeline)
    assert stated(pipeline)[1] == math.ceil(declared), f"{name}: its stages declare {declared:.1f} volumes"


def test_a_summary_states_the_time_that_the_speed_table_shows():
    table = SPEED.read_text(encoding="utf-8").partition("## Pipelines")[2].partition("## Stages")[0]
    rows = re.findall(r"^\| `([^`]+)` \| ([\d.]+) \|", table, re.MULTILINE)
    assert rows
    for name, seconds in rows:
        said, measured = stated(Pipeline.from_yaml(name))[0], float(seconds)
        assert 2 / 3 < said / measured < 3 / 2, f"{name} says {said} s and docs/speed.md {measured} s: correct it"
