"""Scans from BIDS into the store: what a commit holds, and what goes wrong."""

import json
import pickle
from functools import partial
from io import BytesIO

import numpy as np
import pandas as pd
import pytest

from qsm_dask.engine.base import Outcome, SerialEngine
from qsm_dask.errors import ConfigError, InputError
from qsm_dask.io.bids import index
from qsm_dask.io.phase import PhaseSign
from qsm_dask.workflow import compare, ingest, status
from tests.io.bids_tree import AFFINE, SHAPE, scan, signal, write_json
from tests.workflow.ingesting import commit_of, counts, run, touch_later


def test_a_broken_scan_that_was_taken_away_fails_no_longer(root, cohort):
    scan(root, "sub-01")
    scan(root, "sub-02", EchoTime=None)
    assert counts(run(root, cohort))[2] == 1
    for path in sorted((root / "sub-02").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (root / "sub-02").rmdir()
    assert run(root, cohort).failures == {}
    (row,) = [row for row in status.run(cohort).rows if row["scan"] == "sub-02"]
    assert (row["state"], row["reason"]) == ("skipped", "no longer in the dataset, and never usable")


def test_a_cohort_with_sound_broken_and_phaseless_scans(root, cohort):
    scan(root, "sub-01_ses-1", affine=np.diag([1, 1, 2, 1.0]))
    scan(root, "sub-02", suffix="T2starw", te=[0.02])
    scan(root, "sub-03", EchoTime=None)
    scan(root, "sub-04", parts=["mag"])
    scan(root, "sub-05")
    (root / "sub-05/anat/sub-05_echo-1_part-mag_MEGRE.nii").touch()
    seen = []
    summary = run(root, cohort, progress=lambda *told: seen.append(told))
    assert counts(summary) == (2, 0, 2, 1)
    rows = cohort.index().set_index("scan")
    assert dict(rows["state"]) == {
        "sub-01_ses-1": "done",
        "sub-02_T2starw": "done",
        "sub-03": "failed",
        "sub-04": "skipped",
        "sub-05": "failed",
    }
    assert "EchoTime is missing" in rows["reason"]["sub-03"]
    assert rows["reason"]["sub-04"] == "no phase"
    assert "two files claim part-mag of echo-1" in rows["reason"]["sub-05"]
    assert set(summary.failures) == {"sub-03", "sub-05"}
    assert [told[1:] for told in seen] == [(5, "sub-01_ses-1"), (5, "sub-02_T2starw"), (5, "sub-03")]
    assert seen[-1][0] == 5


def test_what_a_commit_holds(root, cohort):
    scan(root, "sub-01", ImagingFrequency=123.25, Comment="not used")
    (row,) = run(root, cohort).rows
    commit = commit_of(cohort, "sub-01")
    arrays = cohort.read(commit)
    np.testing.assert_array_equal(arrays["phase"], signal()["phase"])
    np.testing.assert_array_equal(arrays["magnitude"], signal()["mag"])
    attributes = commit.attributes
    assert attributes["header"]["te"] == [0.004, 0.008, 0.012]
    assert attributes["header"]["b0"] == pytest.approx(123.25 / 42.577)
    assert attributes["header"]["b0_dir"] == [0, 0, 1]
    assert attributes["header"]["voxel_size"] == [1, 1, 2]
    assert attributes["header"]["affine"] == AFFINE.tolist()
    assert attributes["digests"].keys() == {"phase", "magnitude", "te", "b0", "b0_dir", "voxel_size", "affine"}
    assert attributes["sources"]["b0"]["key"] == "ImagingFrequency"
    assert attributes["geometry"]["shape"] == list(SHAPE)
    assert len(attributes["files"]) == 12
    assert all(not name.startswith("/") for name in attributes["files"])
    assert str(root) not in json.dumps(dict(attributes))
    assert row["facts"]["geometry"] == attributes["geometry"]
    assert row["facts"]["sources"]["phase"]["from"] == "raw"
    assert row["peak_bytes"] > 0


def test_a_damaged_commit_is_made_again(root, cohort):
    scan(root, "sub-01")
    run(root, cohort)
    commit = commit_of(cohort, "sub-01")
    victim = next((cohort.place.folder / commit.folder / "phase").glob("c.*"))
    victim.unlink()
    assert counts(run(root, cohort)) == (1, 0, 0, 0)
    assert cohort.verify(commit_of(cohort, "sub-01")) == []


def test_a_scan_that_breaks_and_is_mended_is_told_in_the_index(root, cohort):
    folder = scan(root, "sub-01")
    image = folder / "sub-01_echo-1_part-phase_MEGRE.nii.gz"
    whole = image.read_bytes()
    run(root, cohort)
    image.write_bytes(whole[:-30])
    touch_later(image)
    assert counts(run(root, cohort)) == (0, 0, 1, 0)
    assert list(cohort.index()["state"]) == ["failed"]
    image.write_bytes(whole)
    touch_later(image, 20)
    assert counts(run(root, cohort)) == (0, 1, 0, 0)
    assert list(cohort.index()["state"]) == ["done"]


def test_a_scan_that_disappears_stays_and_is_named(root, cohort):
    scan(root, "sub-01")
    folder = scan(root, "sub-02")
    run(root, cohort)
    for path in folder.iterdir():
        path.unlink()
    summary = run(root, cohort)
    assert summary.gone == ("sub-02",)
    assert cohort.verify(commit_of(cohort, "sub-02")) == []
    assert run(root, cohort, participants=["01"]).gone == ()


def test_a_dataset_without_any_phase_says_so(root, cohort):
    scan(root, "sub-01", parts=["mag"])
    summary = run(root, cohort)
    assert summary.warnings == ("none of the 1 scans has phase images: there is nothing to process",)


def test_documents(root, cohort):
    scan(root, "sub-01")
    (root / "participants.tsv").write_text("participant_id\tage\nsub-01\t40\nsub-02\tn/a\n")
    run(root, cohort)
    assert json.loads(cohort.read_document("dataset.json")) == {
        "name": "a small dataset",
        "folder": "bids",
        "bids_version": "1.11.1",
        "derivatives": [],
        "participants": {},
    }
    (root / "participants.tsv").write_text("participant_id\tage\nsub-03\t50\nsub-01\t41\n")
    assert run(root, cohort).warnings == ()
    table = pd.read_parquet(BytesIO(cohort.read_document("participants.parquet")))
    assert list(table["participant_id"]) == ["sub-01", "sub-02", "sub-03"]
    assert list(table["age"].dropna()) == [41, 50]
    (root / "participants.tsv").write_text("participant_id\tage\nsub-01\t50\n01\t41\n")
    assert run(root, cohort).warnings == (
        "participants.tsv has rows that differ for sub-01: their columns are n/a; keep one row a participant",
    )


@pytest.mark.parametrize("chosen", [{"participants": ["01"]}, {"sessions": ["a"]}])
def test_participants_left_out_on_purpose_are_not_taken_in(root, cohort, chosen):
    """A run that is restricted says nothing of the others later; a whole run takes in all."""
    scan(root, "sub-01_ses-a")
    scan(root, "sub-02_ses-b")
    (root / "participants.tsv").write_text("participant_id\tage\nsub-01\t40\nsub-02\t50\nsub-03\t60\n")
    run(root, cohort, **chosen)
    assert compare.run(cohort).warnings == ()
    run(root, cohort)
    assert compare.run(cohort).warnings == ("no scan belongs to sub-03 of participants.tsv",)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"participants": ["99"]}, InputError, "no participant sub-99"),
        ({"derivatives": ["/nowhere/at/all"]}, ConfigError, "there is no folder"),
        ({"phase_sign": "both"}, ConfigError, "expected auto"),
    ],
)
def test_wrong_usage_leaves_the_cohort_alone(root, cohort, options, error, message):
    scan(root, "sub-01")
    with pytest.raises(error, match=message):
        run(root, cohort, **options)
    assert cohort.index().empty
    assert cohort.read_document("dataset.json") is None


def test_a_filter_file_restricts_the_run(root, cohort, tmp_path):
    scan(root, "sub-01_acq-a")
    scan(root, "sub-01_acq-b")
    write_json(tmp_path / "filter.json", {"megre": {"acquisition": "b"}})
    summary = run(root, cohort, filters=tmp_path / "filter.json")
    assert [row["scan"] for row in summary.rows] == ["sub-01_acq-b"]


def test_the_task_and_its_keys_travel_to_workers(root, cohort):
    scan(root, "sub-01")
    (acquisition,) = index(root).acquisitions
    task = partial(ingest.ingest_scan, cohort, PhaseSign(), {})
    task, acquisition = pickle.loads(pickle.dumps((task, acquisition)))  # noqa: S301
    assert len(pickle.dumps(acquisition)) < 5000
    row = task(acquisition)
    assert (row["scan"], row["state"], row["changed"]) == ("sub-01", "done", True)


def test_a_failure_of_the_engine_is_a_row_too(root, cohort):
    class Breaking(SerialEngine):
        def map(self, *given, **_):
            for key in given[1]:
                yield Outcome(key, False, None, "no room", "MemoryError", "", 1.5, "w", 1)

    scan(root, "sub-01")
    summary = ingest.run(root, cohort, Breaking(limit=2**30))
    assert summary.failures == {"sub-01": "MemoryError: no room"}
    assert cohort.index()["seconds"][0] == 1.5


def test_a_scan_whose_header_cannot_be_read_is_a_row_and_sent_nowhere(root, cohort):
    """What memory it takes is not known: it must not be taken for none."""
    scan(root, "sub-01")
    scan(root, "sub-02")
    for path in (root / "sub-01/anat").glob("*.nii.gz"):
        path.write_bytes(b"")
    sent = []

    class Noting(SerialEngine):
        def map(self, task, keys, *, memory, **options):
            return super().map(task, (sent.append((str(k.key), memory(k))) or k for k in keys), memory=lambda _: 1)

    summary = ingest.run(root, cohort, Noting(limit=2**30))
    assert [scan for scan, _ in sent] == ["sub-02"]
    assert sent[0][1] > 0
    assert "its header is not whole" in summary.failures["sub-01"]
    assert counts(summary) == (1, 0, 1, 0)


def test_a_scan_too_large_for_the_engine_is_refused_before_it_is_read(root, cohort):
    scan(root, "sub-01")
    summary = ingest.run(root, cohort, SerialEngine(limit=1000))
    assert "give workers more memory" in summary.failures["sub-01"]
