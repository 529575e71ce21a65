"""Coordinates of strip plots, computed by hand."""

import math

import numpy as np
import pytest

from qsm_dask.report.charts import LABEL_WIDTH, WIDTH, Value, nice_ticks, strip_plot


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 10.0, [0, 2, 4, 6, 8, 10]),
        (-0.03, 0.19, [-0.05, 0.0, 0.05, 0.1, 0.15, 0.2]),
        (21.0, 29.0, [20, 22, 24, 26, 28, 30]),
        (2.0, 2.0, [1.8, 1.9, 2.0, 2.1, 2.2]),
        (0.0, 0.0, [-0.1, -0.05, 0.0, 0.05, 0.1]),
    ],
)
def test_ticks_are_round_and_enclose_the_values(low: float, high: float, ticks: list[float]) -> None:
    assert nice_ticks(low, high) == pytest.approx(ticks)


def test_values_lie_where_the_axis_says() -> None:
    values = {
        ("putamen", "left"): [Value("sub-01", 0.0), Value("sub-02", 0.10)],
        ("putamen", "right"): [Value("sub-01", 0.05)],
        ("pallidum", ""): [Value("sub-01", 0.10)],
    }
    chart = strip_plot("Median susceptibility", "ppm", values)
    assert chart is not None
    assert [row.structure for row in chart.rows] == ["pallidum", "putamen"]  # medians 0.10 and 0.05
    left, right = chart.rows[1].strips
    assert (left.side, right.side) == ("left", "right")
    assert left.y < right.y
    start, end = LABEL_WIDTH + 14, WIDTH - 14  # 0 and 0.10 ppm, the outermost ticks
    assert [mark.x for mark in left.marks] == [start, end]
    assert right.marks[0].x == pytest.approx((start + end) / 2)
    assert right.marks[0].text == "0.05 ppm"
    assert left.middle == pytest.approx((start + end) / 2)
    assert (left.low, left.high) == pytest.approx((start + (end - start) / 4, start + (end - start) * 3 / 4))
    assert chart.ticks[0] == (start, "0.00")
    assert chart.ticks[-1] == (end, "0.10")
    assert chart.summary == "pallidum 0.1 ppm; putamen 0.05 ppm"


def test_negative_numbers_get_a_minus_sign() -> None:
    chart = strip_plot("x", "ppm", {("white_matter", ""): [Value("a", -0.03), Value("b", -0.02)]})
    assert chart is not None
    assert chart.ticks[0][1].startswith("\N{MINUS SIGN}")
    assert chart.rows[0].strips[0].marks[0].text == "\N{MINUS SIGN}0.03 ppm"


def test_many_scans_are_a_box_and_outliers() -> None:
    """1000 even values from 0 to 1 have quartiles 0.25 and 0.75; with one at 9, only that lies outside the fences."""
    values = [Value(f"s{i}", i / 999) for i in range(1000)] + [Value("odd", 9.0)]
    chart = strip_plot("x", "ppm", {("putamen", "left"): values})
    assert chart is not None
    (strip,) = chart.rows[0].strips
    assert strip.count == 1001
    assert [mark.scan for mark in strip.marks] == ["odd"]


def test_nothing_finite_is_no_chart() -> None:
    assert strip_plot("x", "ppm", {("putamen", ""): [Value("a", math.nan), Value("b", float(np.inf))]}) is None
    assert strip_plot("x", "ppm", {}) is None
