"""The commands of the cohort cube, on maps that were made by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from qsm_dask.store import CohortStore
from tests.store.conftest import flip
from tests.store.test_cubes import THREE, scan_done, stacked


@pytest.fixture
def cohort(tmp_path: Path) -> CohortStore:
    store = CohortStore.create(tmp_path / "cohort")
    for name in THREE:
        scan_done(store, name)
    return store


def test_the_cube_is_built_once_and_told(qsm, cohort):
    place = cohort.place.folder
    code, _, err = qsm("cube", place)
    assert (code, "cube      3 scans appended in 1 segments; chi_standard" in err) == (0, True)
    code, out, _ = qsm("cube", place, "--json")
    assert (code, json.loads(out)) == (0, {"appended": {"chi_standard": 0}, "segments": 0, "failures": {}})
    np.testing.assert_array_equal(cohort.cube().values, stacked(THREE))


def test_a_damaged_segment_is_repaired_by_appending_again(qsm, told, cohort):
    place = cohort.place.folder
    told("cube", place)
    flip(next((place / "cubes").rglob("c.0.0.0.0")), 40)
    assert qsm("verify", place, "--quiet")[0] == 1
    (found,) = told("verify", place, "--repair")
    assert (found["scan"], found["node"], found["repaired"]) == ("cube", "chi_standard", True)
    assert told("verify", place) == []
    np.testing.assert_array_equal(cohort.cube().values, stacked(THREE))
    rows = json.loads(qsm("gc", place, "--older-than", "0", "--json")[1])
    assert [(row["scan"], row["node"], row["kind"]) for row in rows] == [("", "chi_standard", "orphan")]


def test_a_cohort_without_such_maps_is_left_alone(told, tmp_path):
    CohortStore.create(tmp_path / "empty")
    assert told("cube", tmp_path / "empty") == {"appended": {}, "segments": 0, "failures": {}}


def test_a_template_needs_scans_in_standard_space(qsm, cohort, tmp_path):
    code, _, err = qsm("template", cohort.place.folder, tmp_path / "out", "--cluster", "serial")
    assert code == 2
    assert "process it with a pipeline that has the step anatomy.standard" in err.replace("\n", " ")
    assert not (tmp_path / "out").exists()
