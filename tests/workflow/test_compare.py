"""The region tables, against values written into small cohorts by hand."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from qsm_dask.errors import ConfigError
from qsm_dask.quantities import COORDINATES
from qsm_dask.store import CohortStore
from qsm_dask.workflow import compare
from tests.workflow import cohorts

STATISTICS = COORDINATES["statistic"]
MEDIANS = {0: 0.0, 1: 0.06, 2: 0.05, 7: 0.11}


def long_table(cohort: CohortStore) -> pd.DataFrame:
    return pd.read_parquet(cohort.place.folder / "tables/regions.parquet")


def tsv(cohort: CohortStore, name: str) -> pd.DataFrame:
    data = cohort.read_document(f"tables/{name}.tsv")
    assert data is not None
    return pd.read_csv(io.BytesIO(data), sep="\t", na_values=["n/a"]).set_index("scan")


@pytest.fixture
def cohort(tmp_path: Path) -> CohortStore:
    """Two sessions of one participant and one of another, the latter with a single echo."""
    made = cohorts.create(tmp_path)
    cohorts.add_participants(
        made, [{"participant_id": "sub-01", "age": 41, "sex": "F"}, {"participant_id": "sub-02", "age": 60, "sex": "M"}]
    )
    cohorts.add(made, "sub-02", {0: 0.001, 1: 0.07, 2: 0.08, 7: 0.12}, te=(0.004,))
    cohorts.add(made, "sub-01_ses-2", {0: 0.0, 1: 0.065, 2: 0.055, 7: 0.115}, {0: 18.0, 1: 26.0, 2: 25.0, 7: 33.0})
    cohorts.add(made, "sub-01_ses-1", MEDIANS, {0: 18.5, 1: 25.0, 2: 24.0, 7: 32.0})
    return made


def test_long_table(cohort: CohortStore) -> None:
    summary = compare.run(cohort)
    assert (summary.scans, summary.with_values, summary.without, summary.warnings) == (3, 3, {}, ())
    table = long_table(cohort)
    assert list(table.columns) == [
        "scan", "participant_id", "session_id", "map", "region", "structure", "hemisphere", "label", "statistic",
        "value", "unit", "reference",
    ]  # fmt: skip
    # two scans with two maps, one with chi only; four regions and twenty statistics each
    assert len(table) == 2 * 2 * 80 + 80
    assert table["scan"].drop_duplicates().tolist() == ["sub-01_ses-1", "sub-01_ses-2", "sub-02"]
    row = table[(table["scan"] == "sub-01_ses-2") & (table["map"] == "chi") & (table["label"] == 2)].set_index(
        "statistic"
    )
    assert row.loc["median", "value"] == 0.055
    assert row.loc["mean", "value"] == pytest.approx(0.053)  # two places before the median, a thousandth each
    assert set(row["region"]) == {"Right-Putamen"}
    assert set(row["structure"]) == {"putamen"}
    assert set(row["hemisphere"]) == {"right"}
    assert set(row["participant_id"]) == {"sub-01"}
    assert set(row["session_id"]) == {"ses-2"}
    assert row.loc[["n", "volume_mm3", "median"], "unit"].tolist() == ["1", "mm3", "ppm"]
    assert row.loc["median", "reference"] == "whole_brain"
    assert row.loc[["n", "volume_mm3"], "reference"].isna().all()


def test_r2star_has_its_unit_and_no_reference(cohort: CohortStore) -> None:
    compare.run(cohort)
    table = long_table(cohort)
    rates = table[table["map"] == "r2star"]
    assert set(rates["scan"]) == {"sub-01_ses-1", "sub-01_ses-2"}
    assert rates["reference"].isna().all()
    assert set(rates[rates["statistic"] == "median"]["unit"]) == {"1/s"}


def test_wide_table_is_joined_with_participants(cohort: CohortStore) -> None:
    compare.run(cohort)
    table = tsv(cohort, "regions")
    assert table.index.tolist() == ["sub-01_ses-1", "sub-01_ses-2", "sub-02"]
    first = table.loc["sub-01_ses-1"]
    assert (first["participant_id"], first["session_id"], first["age"], first["sex"]) == ("sub-01", "ses-1", 41, "F")
    assert table.loc["sub-02", "age"] == 60
    assert table["chi_median_putamen_left"].tolist() == [0.06, 0.065, 0.07]
    assert table["chi_median_red_nucleus"].tolist() == [0.11, 0.115, 0.12]
    assert table["r2star_median_putamen_right"].tolist()[:2] == [24.0, 25.0]
    assert np.isnan(table.loc["sub-02", "r2star_median_putamen_right"])
    assert table["chi_n_putamen_left"].tolist() == [41, 41, 41]
    assert first[["chi_reference", "chi_reference_offset", "chi_reference_sd", "chi_reference_n"]].tolist() == [
        "whole_brain", 0.0125, 0.04, 900,
    ]  # fmt: skip


def test_counts_are_whole_numbers_and_missing_values_are_na_in_the_file(cohort: CohortStore) -> None:
    compare.run(cohort)
    lines = (cohort.place.folder / "tables/regions.tsv").read_text().splitlines()
    header = lines[0].split("\t")
    last = dict(zip(header, lines[3].split("\t"), strict=True))
    assert last["chi_n_whole_brain"] == "40"
    assert last["r2star_median_whole_brain"] == "n/a"
    assert last["session_id"] == "n/a"
    assert last["chi_median_putamen_left"] == "0.07"


def test_every_column_of_the_wide_table_is_in_the_dictionary(cohort: CohortStore) -> None:
    compare.run(cohort)
    dictionary = json.loads((cohort.place.folder / "tables/regions.json").read_text())
    assert list(dictionary) == (cohort.place.folder / "tables/regions.tsv").read_text().splitlines()[0].split("\t")
    entry = dictionary["chi_median_putamen_left"]
    assert (entry["Units"], entry["Reference"], entry["Label"]) == ("ppm", "whole_brain", "1")
    assert entry["Definition"].startswith("Median over the voxels")
    assert "Reference" not in dictionary["r2star_median_putamen_left"]
    assert dictionary["r2star_sd_putamen_left"]["Units"] == "1/s"
    assert dictionary["chi_volume_mm3_putamen_left"]["Units"] == "mm3"
    assert all(entry["Description"] for entry in dictionary.values())


def test_columns_of_the_long_table_are_described_in_the_file(cohort: CohortStore) -> None:
    compare.run(cohort)
    schema = pq.read_schema(cohort.place.folder / "tables/regions.parquet")
    assert all(schema.field(name).metadata[b"description"] for name in schema.names)


def test_the_same_cohort_gives_the_same_bytes(cohort: CohortStore) -> None:
    tables = compare.run(cohort).tables
    first = {name: cohort.read_document(name) for name in tables}
    again = compare.run(CohortStore.open(cohort.place.folder))
    assert {name: cohort.read_document(name) for name in again.tables} == first


def test_scans_without_values_are_listed_with_their_reasons(tmp_path: Path) -> None:
    cohort = cohorts.create(tmp_path)
    cohorts.add(cohort, "sub-01", MEDIANS)
    cohorts.record(cohort, "sub-02", "ingest", "skipped", "no phase")
    key = cohorts.keys(cohorts.ingest(cohort, "sub-03"))["maps"]
    cohorts.record(cohort, "sub-03", "maps", "failed", "inversion.tkd: the mask is empty", key)
    cohorts.ingest(cohort, "sub-04")
    summary = compare.run(cohort)
    assert summary.without == {
        "sub-02": "no phase",
        "sub-03": "inversion.tkd: the mask is empty",
        "sub-04": "not computed with the present pipeline and inputs",
    }
    table = tsv(cohort, "scans")
    assert table["state"].to_dict() == {"sub-01": "done", "sub-02": "skipped", "sub-03": "failed", "sub-04": "pending"}
    assert table["regions"].tolist() == [4, 0, 0, 0]
    assert table["reason"].tolist()[1:] == list(summary.without.values())
    assert tsv(cohort, "regions").index.tolist() == ["sub-01"]


def test_values_of_another_pipeline_never_enter_the_table(tmp_path: Path) -> None:
    cohort = cohorts.create(tmp_path)
    cohorts.add(cohort, "sub-01", MEDIANS)
    cohorts.create(
        tmp_path, cohorts.PIPELINE | {"steps": [*cohorts.PIPELINE["steps"][:-1], "roi.statistics"], "keep": ["mask"]}
    )
    assert compare.run(cohort).with_values == 1  # another file, the same steps
    steps = [
        {"inversion.tkd": {"threshold": 0.1}} if "inversion.tkd" in step else step for step in cohorts.PIPELINE["steps"]
    ]
    cohorts.create(tmp_path, cohorts.PIPELINE | {"steps": steps})
    assert compare.run(cohort).with_values == 0
    assert long_table(cohort).empty


def test_participants_that_do_not_match_are_told_and_nobody_is_dropped(tmp_path: Path) -> None:
    cohort = cohorts.create(tmp_path)
    cohorts.add_participants(
        cohort,
        [
            {"participant_id": "sub-01", "age": 41.0, "scan": "a"},
            {"participant_id": "sub-02", "age": 50.0, "scan": "b"},
            {"participant_id": "sub-02", "age": 51.0, "scan": "b"},
            {"participant_id": "sub-04", "age": None, "scan": "c"},
            {"participant_id": "sub-04", "age": None, "scan": "c"},
            {"participant_id": "sub-09", "age": 70.0, "scan": "d"},
        ],
    )
    for scan in ("sub-01", "sub-02", "sub-03", "sub-04"):
        cohorts.add(cohort, scan, MEDIANS)
    summary = compare.run(cohort)
    assert summary.warnings == (
        "participants.tsv has rows that differ for sub-02: their columns are n/a; keep one row a participant",
        "participants.tsv has the same row more than once for sub-04",
        "participants.tsv has no row for sub-03: their columns are n/a",
        "no scan belongs to sub-09 of participants.tsv",
    )
    table = tsv(cohort, "regions")
    assert table["age"].isna().tolist() == [False, True, True, True]
    assert table["participant_scan"].tolist()[0] == "a"  # the name `scan` is taken
    assert tsv(cohort, "scans")["participant"].tolist() == ["matched", "ambiguous", "missing", "matched"]
    assert json.loads((cohort.place.folder / "tables/warnings.json").read_text()) == list(summary.warnings)


def test_label_images_that_differ(tmp_path: Path) -> None:
    """A region that a scan lacks is told; labels without a name, or with one name twice, keep their number."""
    cohort = cohorts.create(tmp_path)
    cohorts.add(cohort, "sub-01", MEDIANS)
    cohorts.add(cohort, "sub-02", {0: 0.0, 1: 0.06, 2: 0.05}, labels={"1": "Left-Putamen", "2": "Right-Putamen"})
    cohorts.add(cohort, "sub-03", {0: 0.0}, labels={})
    cohorts.add(
        cohort, "sub-04", {0: 0.0, 1: 0.01, 2: 0.02, 5: 0.03, 7: 0.04},
        labels={"1": "Left-Putamen", "2": "putamen left", "7": "red nucleus"},
    )  # fmt: skip
    summary = compare.run(cohort)
    (warning,) = summary.warnings
    assert warning.startswith("regions that some scans lack (no such label, or none of its voxels inside the mask): ")
    assert "red_nucleus (1 of 3 scans)" in warning
    table = tsv(cohort, "regions")
    assert table.loc["sub-04", ["chi_median_putamen_left_1", "chi_median_putamen_left_2"]].tolist() == [0.01, 0.02]
    assert table.loc["sub-04", "chi_median_label_5"] == 0.03
    assert table.loc["sub-03", "chi_median_whole_brain"] == 0.0


def test_a_statistic_that_is_not_defined_stays_missing(tmp_path: Path) -> None:
    cohort = cohorts.create(tmp_path)
    ingested = cohorts.ingest(cohort, "sub-01")
    keyed = cohorts.keys(ingested)
    cohorts.maps(cohort, ingested, keyed["maps"])
    array = cohorts.values({0: 0.0, 1: 0.06})
    array[0, 1, 1:] = np.nan  # a region of no voxels has a count and nothing else
    array[0, 1, 0] = 0
    cohorts.regions(cohort, ingested, keyed["regions"], [0, 1], array)
    cohorts.add(cohort, "sub-02", {0: 0.0, 1: 0.06})
    assert compare.run(cohort).warnings[0].endswith(": putamen_left (1 of 2 scans)")
    table = long_table(cohort)
    table = table[table["scan"] == "sub-01"]
    empty = table[table["label"] == 1].set_index("statistic")["value"]
    assert empty["n"] == 0
    assert empty.drop("n").isna().all()
    assert len(empty) == len(COORDINATES["statistic"])


def test_a_damaged_commit_is_a_reason_and_the_others_go_on(cohort: CohortStore) -> None:
    chunk = next((cohort.place.folder / "scans/sub-02/regions").glob("*/*/region_values/c*"))
    chunk.unlink()
    summary = compare.run(cohort)
    assert list(summary.without) == ["sub-02"]
    assert "region_values" in summary.without["sub-02"]
    assert summary.with_values == 2


def test_an_empty_cohort_gives_empty_tables(tmp_path: Path) -> None:
    cohort = cohorts.create(tmp_path)
    summary = compare.run(cohort)
    assert (summary.scans, summary.with_values) == (0, 0)
    assert long_table(cohort).empty


def test_progress_counts_scans(cohort: CohortStore) -> None:
    seen: list[tuple[int, int, str]] = []
    compare.run(cohort, progress=lambda *step: seen.append(step))
    assert seen == [(1, 3, "sub-01_ses-1"), (2, 3, "sub-01_ses-2"), (3, 3, "sub-02")]


@pytest.fixture
def with_fluid(tmp_path: Path) -> CohortStore:
    """One scan whose fluid has 0.02 ppm, and one in which none was found."""
    made = cohorts.create(tmp_path)
    for scan, csf in (("sub-01", [0.02, 0.004, 250.0]), ("sub-02", [np.nan, np.nan, 0.0])):
        ingested = cohorts.ingest(made, scan)
        keyed = cohorts.keys(ingested)
        cohorts.maps(made, ingested, keyed["maps"])
        cohorts.regions(made, ingested, keyed["regions"], [0, 1, 2, 7], cohorts.values(MEDIANS), csf=np.array(csf))
    return made


def test_tables_under_another_reference_are_moved_and_say_so(with_fluid: CohortStore) -> None:
    stored, found = [(compare.run(with_fluid, reference=r), tsv(with_fluid, "regions"))[1] for r in (None, "csf")]
    assert stored.loc["sub-01", ["chi_csf_offset", "chi_csf_sd", "chi_csf_n"]].tolist() == [0.02, 0.004, 250]
    first, second = found.loc["sub-01"], found.loc["sub-02"]
    assert first["chi_median_putamen_left"] == pytest.approx(0.04)
    assert first["chi_sd_putamen_left"] == stored.loc["sub-01", "chi_sd_putamen_left"]
    # What was taken off the map before, 0.0125, and the fluid's 0.02; the fluid itself is zero now.
    told = ["chi_reference", "chi_reference_offset", "chi_reference_sd", "chi_reference_n", "chi_csf_offset"]
    assert first[told].tolist() == ["csf", pytest.approx(0.0325), 0.004, 250, 0]
    assert np.isnan(second["chi_median_putamen_left"])
    assert second["chi_n_putamen_left"] == 41
    long = long_table(with_fluid)
    row = long[(long["scan"] == "sub-01") & (long["map"] == "chi") & (long["label"] == 1)].set_index("statistic")
    assert row.loc["median", ["value", "reference"]].tolist() == [pytest.approx(0.04), "csf"]
    assert row.loc[["coverage", "core_n"], "reference"].isna().all()
    assert json.loads((with_fluid.place.folder / "tables/regions.json").read_text())["chi_median_putamen_left"][
        "Reference"
    ] == "csf"  # fmt: skip


def test_a_scan_without_the_reference_is_told(with_fluid: CohortStore) -> None:
    (warning,) = compare.run(with_fluid, reference="csf").warnings
    assert warning == "1 scans have no csf to refer to, and so no chi, as sub-02"


def test_several_regions_may_be_the_reference(with_fluid: CohortStore) -> None:
    """Their means are a place below their medians: 0.058 of 41 voxels and 0.048 of 42."""
    compare.run(with_fluid, reference="Left-Putamen+Right-Putamen")
    pooled = (41 * 0.058 + 42 * 0.048) / 83
    table = tsv(with_fluid, "regions")
    assert table["chi_median_red_nucleus"].tolist() == pytest.approx([0.11 - pooled] * 2)
    assert table["chi_reference_n"].tolist() == [83, 83]


def test_the_wide_table_has_the_statistics_asked_for(with_fluid: CohortStore) -> None:
    for wanted, expected in (((), compare.USUAL), (("pv_mean", "mass"), ("mass", "pv_mean")), (("all",), STATISTICS)):
        compare.run(with_fluid, statistics=wanted)
        names = [name for name in tsv(with_fluid, "regions").columns if name.endswith("_putamen_left")]
        assert names == [f"chi_{statistic}_putamen_left" for statistic in STATISTICS if statistic in expected]


@pytest.mark.parametrize(
    ("options", "words"),
    [({"reference": "Left-Putamn"}, "did you mean Left-Putamen"), ({"statistics": ["mode"]}, "no statistic 'mode'")],
)
def test_unknown_references_and_statistics_are_refused(
    with_fluid: CohortStore, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        compare.run(with_fluid, **options)


def test_candidates_are_listed_with_the_names_of_regions(tmp_path: Path) -> None:
    made = cohorts.create(tmp_path)
    rows = [[-1, 30, 36, -9.5, -0.4, 1, 2, 3, 1.25, 7, 4.5], [1, 8, 9.6, 2, 0.3, -10, 20, 30.5, 1.5, 0, np.nan]]
    for scan, found in (("sub-01", np.array(rows)), ("sub-02", np.zeros((0, 11)))):
        ingested = cohorts.ingest(made, scan)
        keyed = cohorts.keys(ingested)
        cohorts.maps(made, ingested, keyed["maps"])
        cohorts.regions(made, ingested, keyed["regions"], [0, 7], cohorts.values({0: 0.0, 7: 0.1}), candidates=found)
    assert "tables/candidates.tsv" in compare.run(made).tables
    table = tsv(made, "candidates")
    assert table.index.tolist() == ["sub-01", "sub-01"]
    assert table["kind"].tolist() == ["diamagnetic", "paramagnetic"]
    assert table["nearest_region"].tolist()[0] == "red nucleus"
    assert table.iloc[0][["n", "volume_mm3", "mass", "peak", "x_mm", "distance_mm"]].tolist() == [
        30, 36, -9.5, -0.4, 1, 4.5,
    ]  # fmt: skip
    assert table.iloc[1][["nearest_region", "distance_mm"]].isna().all()
    dictionary = json.loads((made.place.folder / "tables/candidates.json").read_text())
    assert list(dictionary) == ["scan", *table.columns]


def test_a_cohort_in_which_nobody_looked_has_no_table_of_candidates(cohort: CohortStore) -> None:
    compare.run(cohort)
    assert cohort.read_document("tables/candidates.tsv") is None
