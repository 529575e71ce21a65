"""The report of small cohorts: pictures drawn once, failures told, other people's damage survived."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qsm_dask.engine.base import SerialEngine
from qsm_dask.store import CohortStore
from qsm_dask.workflow import compare, report
from tests.workflow import cohorts

MEDIANS = {0: 0.0, 1: 0.06, 2: 0.05, 7: 0.11}


class Counting(SerialEngine):
    """Sends tasks and keys through pickle, as a cluster does, and remembers what it was asked to run."""

    def __init__(self) -> None:
        super().__init__(sys.maxsize)
        self.keys: list[str] = []

    def map(self, task, keys, **options):
        task, keys = pickle.loads(pickle.dumps((task, list(keys))))  # noqa: S301
        self.keys += [str(key) for key in keys]
        return super().map(task, keys, **options)


@pytest.fixture
def cohort(tmp_path: Path) -> CohortStore:
    made = cohorts.create(tmp_path)
    cohorts.add_participants(
        made, [{"participant_id": "sub-01", "age": 41.0}, {"participant_id": "sub-02", "age": 60.0}]
    )
    cohorts.add(made, "sub-01", MEDIANS, MEDIANS, warnings=["sub-01: Units is missing: rad was inferred"])
    cohorts.add(made, "sub-02", MEDIANS, te=(0.004,))
    cohorts.record(made, "sub-03", "ingest", "failed", "sub-03: echo 2 is truncated")
    compare.run(made)
    return made


def html(cohort: CohortStore) -> str:
    return (cohort.place.folder / "report/index.html").read_text()


def test_the_page_and_its_pictures(cohort: CohortStore) -> None:
    page = report.run(cohort)
    assert page == str(cohort.place.folder / "report/index.html")
    text = html(cohort)
    assert "Cohort by hand" in text
    assert "echo 2 is truncated" in text
    assert "Units is missing: rad was inferred" in text
    assert "inversion.tkd" in text
    assert "Susceptibility is relative to the mean over the mask." in text
    for scan, maps in {
        "sub-01": "Susceptibility, Local field, R2*, Regions on susceptibility and Magnitude",
        "sub-02": "Susceptibility, Local field, Regions on susceptibility and",
    }.items():
        assert f"{scan}: {maps}" in text
        with Image.open(cohort.place.folder / f"report/scans/{scan}.png") as image:
            assert f'src="scans/{scan}.png" width="{image.width}" height="{image.height}"' in text
    assert not (cohort.place.folder / "report/scans/sub-03.png").exists()


def test_pictures_are_drawn_again_only_when_results_changed(cohort: CohortStore) -> None:
    engine = Counting()
    report.run(cohort, engine)
    first = html(cohort)
    report.run(cohort, engine)
    assert engine.keys == ["sub-01", "sub-02"]
    assert html(cohort) == first
    cohorts.add(cohort, "sub-02", MEDIANS, te=(0.004,), seed=5)
    report.run(cohort, engine)
    assert engine.keys == ["sub-01", "sub-02", "sub-02"]


def test_tables_older_than_the_results_are_told(cohort: CohortStore) -> None:
    report.run(cohort)
    assert "run qsm-dask compare" not in html(cohort)
    cohorts.add(cohort, "sub-02", {0: 0.0, 1: 0.2}, te=(0.004,), seed=5)
    report.run(cohort)
    assert "run qsm-dask compare" in html(cohort)


def test_a_scan_that_is_only_ingested_shows_what_there_is(tmp_path: Path) -> None:
    cohort = cohorts.create(tmp_path, pipeline=None)
    cohorts.ingest(cohort, "sub-01")
    report.run(cohort)
    assert "sub-01: Local field and Magnitude, first echo, each in" in html(cohort)
    assert "Not processed yet" in html(cohort)


def test_scans_without_labels_are_told_once(tmp_path: Path) -> None:
    cohort = cohorts.create(tmp_path)
    for scan in ("sub-01", "sub-02"):
        cohorts.add(cohort, scan, {0: 0.01}, labels={})
    compare.run(cohort)
    report.run(cohort)
    assert html(cohort).count("name a folder with --derivatives DIR:dseg") == 1


def test_a_damaged_map_costs_one_picture(cohort: CohortStore) -> None:
    next((cohort.place.folder / "scans/sub-02/maps").glob("*/*/chi/c*")).unlink()
    report.run(cohort)
    assert (cohort.place.folder / "report/scans/sub-01.png").exists()
    assert not (cohort.place.folder / "report/scans/sub-02.png").exists()
    assert "No picture: sub-02 maps: " in html(cohort)


def test_a_picture_shows_the_first_echo_inside_the_mask_of_the_field(cohort: CohortStore) -> None:
    """chi is 0.05 ppm in the whole mask: half-way in its window of -0.1 to 0.2 ppm."""
    report.run(cohort)
    with Image.open(cohort.place.folder / "report/scans/sub-01.png") as image:
        picture = np.asarray(image.convert("L"), dtype=int)
    rows = picture[: picture.shape[0] // 4, 100:]
    values, counts = np.unique(rows[(rows > 40) & (rows < 180)], return_counts=True)
    assert values[np.argmax(counts)] == pytest.approx(127.5, abs=255 / 63)


def test_the_report_of_an_empty_cohort(tmp_path: Path) -> None:
    cohort = cohorts.create(tmp_path)
    report.run(cohort)
    assert "No scan yet." in html(cohort)


def test_progress_counts_pictures(cohort: CohortStore) -> None:
    seen: list[tuple[int, int, str]] = []
    report.run(cohort, progress=lambda *step: seen.append(step))
    assert seen == [(1, 2, "sub-01"), (2, 2, "sub-02")]
