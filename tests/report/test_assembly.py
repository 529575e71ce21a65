"""Which regions and columns a page shows, and in which words."""

import math
from collections import Counter

import pandas as pd

from qsm_dask.report import assembly
from qsm_dask.report.charts import Value


def table() -> pd.DataFrame:
    rows = [
        ("sub-01", "chi", "putamen", "left", 0.03),
        ("sub-01", "chi", "putamen", "right", 0.04),
        ("sub-02", "chi", "putamen", "right", 0.05),
        ("sub-01", "chi", "whole_brain", None, 0.0),
        ("sub-01", "r2star", "putamen", "left", 25.0),
    ]
    return pd.DataFrame(rows, columns=["scan", "map", "structure", "hemisphere", "value"])


def test_values_by_map_structure_and_side() -> None:
    found = assembly.medians(table())
    assert found["chi"]["putamen", "right"] == [Value("sub-01", 0.04), Value("sub-02", 0.05)]
    assert found["chi"]["whole_brain", ""] == [Value("sub-01", 0.0)]
    assert list(found["r2star"]) == [("putamen", "left")]


def test_cells_keep_left_and_right_apart_and_missing_ones_open() -> None:
    cells = assembly.value_cells(assembly.medians(table())["chi"], ("putamen", "whole_brain"))
    assert cells["sub-01"] == ((0.03, 0.04), (0.0,))
    assert math.isnan(cells["sub-02"][0][0])
    assert cells["sub-02"][0][1] == 0.05
    assert math.isnan(cells["sub-02"][1][0])


def test_deep_grey_nuclei_come_first_and_the_whole_brain_last() -> None:
    names = ["whole_brain", "insula", "putamen", "left_out", "caudate", "globus_pallidus"]
    assert assembly.important(names, 4) == ("caudate", "putamen", "globus_pallidus", "insula")
    assert assembly.important(["whole_brain"], 4) == ("whole_brain",)


def test_charts_tell_how_many_structures_they_leave_out() -> None:
    values = {"chi": {(f"area_{n:02d}", ""): [Value("sub-01", 0.01 * n)] for n in range(assembly.CHARTED + 5)}}
    (chart,), hidden = assembly.charts(values)  # type: ignore[arg-type]
    assert (len(chart.rows), chart.unit, hidden) == (assembly.CHARTED, "ppm", 5)


def test_columns_of_participants() -> None:
    people = pd.DataFrame(
        {
            "participant_id": ["sub-01", "sub-02"],
            "empty": [None, None],
            "iq": [101, 99],
            "Age": [41.5, None],
            "sex": ["F", "M"],
        }
    )
    columns = assembly.person_columns(people)
    assert columns == ("Age", "sex", "iq")
    assert assembly.person_cells(people, columns) == {"sub-01": ("41.5", "F", "101"), "sub-02": ("n/a", "M", "99")}
    assert assembly.person_columns(None) == ()
    assert assembly.person_cells(None, ()) == {}


def test_origins_are_words_that_scans_share() -> None:
    assert assembly.origin({"from": "raw", "files": ["sub-01/anat/x.nii.gz"]}) == "raw data"
    assert assembly.origin({"from": "raw", "files": [], "key": "EchoTime"}) == "raw data (EchoTime)"
    assert (
        assembly.origin({"from": "derivatives", "files": ["derivatives/truth/sub-01/anat/x.nii.gz"]})
        == "derivatives/truth"
    )
    assert assembly.origin({"from": "derivatives", "files": []}) == "derivatives"


def test_sources_stand_in_the_order_of_quantities() -> None:
    lines = assembly.sources({"chi": Counter(computed=3), "phase": Counter({"raw data": 2, "other": 1})})
    assert [(line.quantity, line.units, line.origins) for line in lines] == [
        ("phase", "rad", (("raw data", 2), ("other", 1))),
        ("chi", "ppm", (("computed", 3),)),
    ]


def test_steps_in_words() -> None:
    (line,) = assembly.step_lines(
        [{"stage": "a.b", "parameters": {"radius_mm": 12.0, "labels": [1, 2], "limit": None}}]
    )
    assert (line.stage, line.parameters, line.cite) == ("a.b", "radius_mm 12, labels 1 2, limit –", "")
