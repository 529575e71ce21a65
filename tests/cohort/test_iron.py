"""Iron from susceptibility, by hand."""

import math
from pathlib import Path

import pytest

from qsm_dask import phantom
from qsm_dask.cohort.iron import CALIBRATIONS, Calibration, calibration, check_reference, obstacle
from qsm_dask.errors import ConfigError

LINE = Calibration(2.0, 0.1, 10.0, 3.0, ("csf",), "by hand")


def test_iron_and_its_error_by_hand() -> None:
    """0.21 ppm is 200 ppb above the intercept: 100 ug/g; errors of 4, 3 and 100 * 0.1 ppb go through the slope of 2."""
    content, error = LINE.iron(0.21, 0.004)
    assert content == pytest.approx(100.0)
    assert error == pytest.approx(math.sqrt(4**2 + 3**2 + 10**2) / 2)


def test_the_error_is_that_of_many_draws() -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    slope, intercept, chi = (rng.normal(mean, sd, 200_000) for mean, sd in ((2.0, 0.1), (10.0, 3.0), (210.0, 4.0)))
    assert LINE.iron(0.21, 0.004)[1] == pytest.approx(((chi - intercept) / slope).std(), rel=0.02)


def test_the_simulated_line_is_that_of_the_phantom() -> None:
    fluid = 0.019
    for content in (0.0, 106.77, 203.41):
        assert calibration("simulated").iron(phantom.chi_of_iron(content) - fluid, 0.0)[0] == pytest.approx(content)


def test_what_is_not_known_has_no_error() -> None:
    assert math.isnan(calibration("langkammer2012").iron(0.1, 0.001)[1])


def test_every_calibration_says_where_it_comes_from() -> None:
    for line in CALIBRATIONS.values():
        assert line.source
        assert line.references
        assert line.slope > 0


@pytest.mark.parametrize("name", ["Left-Putamen", "putamen_right", "R_Pall", "Nucleus ruber (R)", "GPe L", "dentate"])
def test_deep_grey_matter_is_taken(name: str) -> None:
    assert obstacle(name.replace("Pall", "Pallidum")) == ""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Left-Cerebral-White-Matter", "myelin"),
        ("frontal_wm_left", "myelin"),
        ("genu", "myelin"),
        ("internal capsule L", "myelin"),
        ("Left-Lateral-Ventricle", "fluid"),
        ("veins", "fluid"),
        ("ctx-lh-precuneus", "no deep grey"),
        ("whole_brain", "no deep grey"),
        ("label_7", "no deep grey"),
    ],
)
def test_other_tissue_is_refused_with_the_reason(name: str, words: str) -> None:
    assert words in obstacle(name)


def test_a_reference_that_the_line_does_not_hold_for_is_refused() -> None:
    check_reference("zheng2013", "csf")
    with pytest.raises(ConfigError, match="holds for susceptibility relative to csf, not to whole_brain"):
        check_reference("zheng2013", "whole_brain")


def test_calibrations_of_ones_own_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(
        "{slope: 0.9, slope_se: 0.05, intercept: -3, intercept_se: 1, references: [whole_brain], source: ours}"
    )
    assert calibration(str(file)) == Calibration(0.9, 0.05, -3.0, 1.0, ("whole_brain",), "ours")
    file.write_text("{slope: -0.9, slope_se: 0.05, intercept: -3, intercept_se: 1, references: [csf], source: ours}")
    with pytest.raises(ConfigError, match="must be positive"):
        calibration(str(file))
    file.write_text("{slope: 0.9}")
    with pytest.raises(ConfigError, match="is no iron calibration"):
        calibration(str(file))
    with pytest.raises(ConfigError, match="did you mean 'zheng2013'"):
        calibration("zheng2012")
