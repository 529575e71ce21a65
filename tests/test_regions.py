"""Names of regions as the label tables of several atlases write them."""

import pytest

from qsm_dask.regions import column_name, split_side


@pytest.mark.parametrize(
    ("name", "structure", "side"),
    [
        ("putamen_left", "putamen", "left"),
        ("Left-Cerebral-White-Matter", "cerebral_white_matter", "left"),  # FreeSurfer
        ("ctx-rh-precuneus", "ctx_precuneus", "right"),  # FreeSurfer, cortex
        ("R_Accu", "accu", "right"),  # FSL FIRST
        ("GPe L", "gpe", "left"),
        ("whole_brain", "whole_brain", ""),
        ("Brain-Stem", "brain_stem", ""),
        ("left_right_commissure", "left_right_commissure", ""),
        ("left", "left", ""),
        ("area_l_4", "area_l_4", ""),
    ],
)
def test_side_of_a_region(name: str, structure: str, side: str) -> None:
    assert split_side(name) == (structure, side)


def test_column_name_puts_the_side_last() -> None:
    assert column_name("Left-Putamen") == "putamen_left"
    assert column_name("Nucleus ruber (R)") == "nucleus_ruber_right"
