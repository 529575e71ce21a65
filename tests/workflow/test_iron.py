"""The iron table, against values written into small cohorts by hand."""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from qsm_dask.errors import ConfigError
from qsm_dask.quantities import COORDINATES
from qsm_dask.store import CohortStore
from qsm_dask.workflow import iron
from tests.workflow import cohorts

LABELS = {"1": "Left-Putamen", "2": "Right-Putamen", "5": "Left-Cerebral-White-Matter"}


@pytest.fixture
def cohort(tmp_path: Path) -> CohortStore:
    """A core of 0.13 +- 0.03 ppm in 100 voxels and fluid of 0.02 +- 0.01 ppm in 400; and a scan without fluid."""
    made = cohorts.create(tmp_path)
    for scan, csf in (("sub-01_ses-1", [0.02, 0.01, 400.0]), ("sub-02", [np.nan, np.nan, 0.0])):
        ingested = cohorts.ingest(made, scan, labels=LABELS)
        keyed = cohorts.keys(ingested)
        cohorts.maps(made, ingested, keyed["maps"])
        array = cohorts.values({0: 0.0, 1: 0.1, 5: -0.03})
        for name, value in (("core_mean", 0.13), ("sd", 0.03), ("core_n", 100), ("mean", 0.119), ("n", 225)):
            array[0, 1, COORDINATES["statistic"].index(name)] = value
        cohorts.regions(made, ingested, keyed["regions"], [0, 1, 5], array, csf=np.array(csf))
    return made


def table(cohort: CohortStore) -> pd.DataFrame:
    data = cohort.read_document("tables/iron.tsv")
    assert data is not None
    return pd.read_csv(io.BytesIO(data), sep="\t", na_values=["n/a"]).set_index(["scan", "region"])


def test_iron_of_each_region_with_its_error_or_the_reason(cohort: CohortStore) -> None:
    summary = iron.run(cohort, "zheng2013")
    assert (summary.scans, summary.regions, summary.without) == (2, ("Left-Putamen",), ("sub-02",))
    assert list(summary.refused) == ["Left-Cerebral-White-Matter"]
    found = table(cohort)
    row = found.loc["sub-01_ses-1", "Left-Putamen"]
    assert (row["participant_id"], row["session_id"], row["structure"], row["hemisphere"]) == (
        "sub-01", "ses-1", "putamen", "left",
    )  # fmt: skip
    error = np.sqrt(0.03**2 / 100 + 0.01**2 / 400)
    assert row[["chi", "chi_se"]].tolist() == pytest.approx([0.11, error])
    # 110 ppb at 1.10 ppb a ug/g are 100 ug/g, which carry the 0.08 of the slope.
    assert row[["iron", "iron_se"]].tolist() == pytest.approx([100.0, np.hypot(1e3 * error, 8.0) / 1.1])
    iron.run(cohort, "zheng2013", statistic="mean")
    row = table(cohort).loc["sub-01_ses-1", "Left-Putamen"]
    assert row[["chi", "chi_se"]].tolist() == pytest.approx([0.099, np.sqrt(0.03**2 / 225 + 0.01**2 / 400)])
    white = found.loc["sub-01_ses-1", "Left-Cerebral-White-Matter"]
    assert np.isnan(white["iron"])
    assert white["reason"].startswith("white matter")
    lacking = found.loc["sub-02", "Left-Putamen"]
    assert np.isnan(lacking["iron"])
    assert "lacks" in lacking["reason"]


def test_the_dictionary_names_the_calibration(cohort: CohortStore) -> None:
    iron.run(cohort, "langkammer2012")
    data = cohort.read_document("tables/iron.json")
    assert data is not None
    told = json.loads(data)
    assert (told["iron"]["Units"], told["Reference"]) == ("ug/g", "csf")
    line = told["Calibration"]
    assert (line["name"], line["slope"], line["slope_se"]) == ("langkammer2012", 0.89, None)
    assert line["recalled"].startswith("slope")


def test_nothing_is_written_for_a_reference_that_does_not_hold(cohort: CohortStore) -> None:
    with pytest.raises(ConfigError, match="not to whole_brain"):
        iron.run(cohort, "zheng2013", "whole_brain")
    with pytest.raises(ConfigError, match="cannot be told from 'mass'"):
        iron.run(cohort, "zheng2013", statistic="mass")
    assert cohort.read_document("tables/iron.tsv") is None


def test_a_calibration_of_ones_own_may_name_one_reference_and_joined_ones_are_refused(
    cohort: CohortStore, tmp_path: Path
) -> None:
    own = tmp_path / "own.yaml"
    line = {"slope": 1e-3, "slope_se": 1e-4, "intercept": 0.0, "intercept_se": 0.0, "source": "phantom", "cite": ""}
    joined = "Left-Putamen+Left-Cerebral-White-Matter"
    own.write_text(json.dumps({**line, "recalled": "", "references": "csf"}))
    assert iron.run(cohort, str(own)).without == ("sub-02",)
    own.write_text(json.dumps({**line, "recalled": "", "references": [joined]}))
    with pytest.raises(ConfigError, match="iron needs one reference by itself"):
        iron.run(cohort, str(own), joined)
