"""Exported derivatives: names, units, references and provenance, from cohorts written by hand."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from qsm_dask.engine import SerialEngine
from qsm_dask.errors import ConfigError
from qsm_dask.io.outputs import file_path
from qsm_dask.scan import ScanKey
from qsm_dask.store import INGEST_KEY, CohortStore, Commit
from qsm_dask.workflow import export, ingest
from tests.io import bids_tree
from tests.workflow import cohorts

CHI = {0: 0.0, 1: 0.1}
R2STAR = {0: 20.0, 1: 25.0}


def load(path: Path) -> np.ndarray:
    return np.asanyarray(nib.load(path).dataobj)


def sidecar(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def cohort(tmp_path: Path) -> CohortStore:
    """One scan that is done, two echoes, label image."""
    made = cohorts.create(tmp_path / "cohort")
    cohorts.add(made, "sub-01", CHI, R2STAR)
    return made


def with_reference(path: Path, step: dict[str, Any]) -> tuple[CohortStore, Commit]:
    """A cohort whose pipeline has this step instead of `reference.whole_brain`, with one ingested scan."""
    steps = [step if entry == "reference.whole_brain" else entry for entry in cohorts.PIPELINE["steps"]]
    made = cohorts.create(path, {**cohorts.PIPELINE, "steps": steps})
    return made, cohorts.ingest(made, "sub-01")


def commit_maps(cohort: CohortStore, ingested: Commit, arrays: dict[str, np.ndarray]) -> None:
    pipeline = json.loads(cohort.read_document("pipeline.json") or b"")
    key = cohorts.keys(ingested, pipeline)["maps"]
    commit = cohort.write(
        ingested.scan, "maps", key, arrays, attributes={"facts": {}}, provenance={}, seconds=1.0, peak_bytes=1
    )
    cohort.record([commit.row()])


def test_every_map_of_a_scan_has_its_name(cohort: CohortStore, tmp_path: Path) -> None:
    summary = export.run(cohort, tmp_path / "out")
    assert (summary.exported, summary.without, summary.removed) == (1, {}, 0)
    stems = {"Chimap", "R2starmap", "T2starmap", "desc-brain_mask", "dseg"}
    expected = {f"sub-01_{stem}.{ending}" for stem in stems for ending in ("nii.gz", "json")} | {"sub-01_dseg.tsv"}
    assert names(tmp_path / "out" / "sub-01" / "anat") == expected
    stems = {"desc-local_fieldmap", "desc-local_magnitude"}
    assert names(tmp_path / "out" / "sub-01" / "fmap") == {
        f"sub-01_{stem}.{ending}" for stem in stems for ending in ("nii.gz", "json")
    }


def test_maps_have_the_units_of_bids(cohort: CohortStore, tmp_path: Path) -> None:
    export.run(cohort, tmp_path / "out")
    anat, fmap = (tmp_path / "out" / "sub-01" / folder for folder in ("anat", "fmap"))
    mask = cohorts.head()
    # The maps by hand: chi 0.05 ppm and R2* 20 1/s in the mask, so T2* is 0.05 s.
    for suffix, value, unit in (("Chimap", 0.05, "ppm"), ("R2starmap", 20.0, "1/s"), ("T2starmap", 0.05, "s")):
        volume = load(anat / f"sub-01_{suffix}.nii.gz")
        assert volume[mask] == pytest.approx(value)
        assert not volume[~mask].any()
        about = sidecar(anat / f"sub-01_{suffix}.json")
        assert (about["Units"], about["SkullStripped"]) == (unit, True)
    assert np.array_equal(load(anat / "sub-01_desc-brain_mask.nii.gz"), mask)
    assert sidecar(anat / "sub-01_desc-brain_mask.json")["Type"] == "Brain"
    ingested = cohort.commit(ScanKey.parse("sub-01"), "ingest", INGEST_KEY)
    assert ingested is not None
    arrays = cohort.read(ingested, ("local_field", "magnitude"))
    # One ppm is 3 x 42.577 Hz at 3 T.
    assert load(fmap / "sub-01_desc-local_fieldmap.nii.gz") == pytest.approx(127.731 * arrays["local_field"], rel=1e-6)
    assert sidecar(fmap / "sub-01_desc-local_fieldmap.json")["Units"] == "Hz"
    assert np.array_equal(load(fmap / "sub-01_desc-local_magnitude.nii.gz"), arrays["magnitude"][0])


def test_the_affine_is_kept(cohort: CohortStore, tmp_path: Path) -> None:
    export.run(cohort, tmp_path / "out")
    image = nib.load(tmp_path / "out" / "sub-01" / "anat" / "sub-01_Chimap.nii.gz")
    assert image.affine.tolist() == np.diag([16.0, 16.0, 16.0, 1.0]).tolist()
    assert image.get_data_dtype() == np.float32


def test_a_map_says_what_it_is_relative_to_and_how_it_was_made(cohort: CohortStore, tmp_path: Path) -> None:
    export.run(cohort, tmp_path / "out")
    about = sidecar(tmp_path / "out" / "sub-01" / "anat" / "sub-01_Chimap.json")
    assert about["ReferenceRegion"] == "whole_brain"
    assert about["ReferenceOffset"] == 0.0125
    assert about["ReferenceStandardDeviation"] == 0.04
    assert about["ReferenceVoxels"] == 900
    # The field was ingested, so phase was never used.
    assert about["EstimationAlgorithm"] == "inversion.tkd, reference.whole_brain"
    assert "doi:10.1002/mrm.22135" in about["EstimationReference"]
    assert about["ProcessingSteps"][0]["Parameters"] == {"threshold": 0.2, "extensions": 1}
    assert about["EchoTime"] == [0.004, 0.008]
    assert (about["MagneticFieldStrength"], about["B0Direction"]) == (3.0, [0.0, 0.0, 1.0])
    assert about["Sources"] == [
        "bids:manual:sub-01_mask.nii.gz",
        "bids:manual:sub-01_local_field.nii.gz",
    ]
    relaxation = sidecar(tmp_path / "out" / "sub-01" / "anat" / "sub-01_R2starmap.json")
    assert relaxation["EstimationAlgorithm"] == "relaxometry.loglinear"
    assert "bids:raw:sub-01_magnitude.nii.gz" in relaxation["Sources"]


def test_labels_come_with_their_table(cohort: CohortStore, tmp_path: Path) -> None:
    export.run(cohort, tmp_path / "out")
    table = (tmp_path / "out" / "sub-01" / "anat" / "sub-01_dseg.tsv").read_text()
    assert table == "index\tname\n1\tLeft-Putamen\n2\tRight-Putamen\n7\tred nucleus\n"


def test_a_single_echo_has_no_relaxation_and_no_labels_no_table(tmp_path: Path) -> None:
    made = cohorts.create(tmp_path / "cohort")
    cohorts.add(made, "sub-01", {0: 0.0}, te=(0.02,), labels={})
    export.run(made, tmp_path / "out")
    written = names(tmp_path / "out" / "sub-01" / "anat")
    assert {"sub-01_Chimap.nii.gz", "sub-01_desc-brain_mask.nii.gz"} <= written
    assert not [name for name in written if "map.nii.gz" in name and "Chimap" not in name]
    assert not [name for name in written if "dseg" in name]


def test_a_scan_that_is_not_done_is_told_with_its_reason(cohort: CohortStore, tmp_path: Path) -> None:
    cohorts.ingest(cohort, "sub-02")
    cohorts.record(cohort, "sub-03", "ingest", "failed", "sub-03_echo-2: EchoTime is missing")
    seen: list[tuple[int, int, str]] = []
    summary = export.run(cohort, tmp_path / "out", progress=lambda *report: seen.append(report))
    assert summary.exported == 1
    assert summary.without["sub-03"] == "sub-03_echo-2: EchoTime is missing"
    assert "not computed" in summary.without["sub-02"]
    assert seen == [(1, 3, "sub-01"), (2, 3, "sub-02"), (3, 3, "sub-03")]
    assert not (tmp_path / "out" / "sub-02").exists()


def test_a_damaged_map_costs_its_own_scan_only(cohort: CohortStore, tmp_path: Path) -> None:
    cohorts.add(cohort, "sub-02", CHI, R2STAR)
    ((node, key),) = [found for found in cohort.committed(ScanKey.parse("sub-02")) if found[0] == "maps"]
    commit = cohort.commit(ScanKey.parse("sub-02"), node, key)
    assert commit is not None
    (cohort.place.folder / commit.folder / next(iter(commit.arrays["r2star"]["chunks"]))).unlink()
    summary = export.run(cohort, tmp_path / "out")
    assert summary.exported == 1
    assert "sub-02 maps" in summary.without["sub-02"]
    assert "r2star" in summary.without["sub-02"]
    assert not list((tmp_path / "out" / "sub-02").rglob("*.nii.gz"))


def test_another_branch_carries_its_name(tmp_path: Path) -> None:
    branch = {
        "reference.region": {"labels": [1, 7], "writes": {"chi": "chi_csf", "chi_reference": "chi_reference_csf"}}
    }
    steps = [*cohorts.PIPELINE["steps"]]
    steps.insert(steps.index("reference.whole_brain"), branch)
    made = cohorts.create(tmp_path / "cohort", {**cohorts.PIPELINE, "steps": steps})
    ingested = cohorts.ingest(made, "sub-01")
    mask = cohorts.head()
    arrays = {
        "chi": np.where(mask, np.float32(0.01), np.float32(0.0)),
        "chi_reference": np.array([0.02, 0.1, 9.0]),
        "chi_csf": np.where(mask, np.float32(0.07), np.float32(0.0)),
        "chi_reference_csf": np.array([-0.04, 0.2, 5.0]),
    }
    commit_maps(made, ingested, arrays)
    export.run(made, tmp_path / "out")
    anat = tmp_path / "out" / "sub-01" / "anat"
    assert np.array_equal(load(anat / "sub-01_Chimap.nii.gz"), arrays["chi"])
    assert np.array_equal(load(anat / "sub-01_desc-csf_Chimap.nii.gz"), arrays["chi_csf"])
    about = sidecar(anat / "sub-01_desc-csf_Chimap.json")
    assert about["ReferenceRegion"] == "Left-Putamen+red nucleus"
    assert (about["ReferenceOffset"], about["ReferenceVoxels"]) == (-0.04, 5)
    assert sidecar(anat / "sub-01_Chimap.json")["ReferenceVoxels"] == 9


def test_the_plain_map_is_relative_to_the_whole_brain_whatever_the_pipeline_refers_to(tmp_path: Path) -> None:
    made, ingested = with_reference(tmp_path / "cohort", {"reference.region": {"labels": [2]}})
    mask = cohorts.head()
    chi = (np.arange(mask.size, dtype=np.float32).reshape(mask.shape) * np.float32(1e-4)) * mask
    commit_maps(made, ingested, {"chi": chi, "chi_reference": np.array([0.3, 0.1, 40.0])})
    export.run(made, tmp_path / "out")
    anat = tmp_path / "out" / "sub-01" / "anat"
    assert np.array_equal(load(anat / "sub-01_desc-RightPutamen_Chimap.nii.gz"), chi)
    assert sidecar(anat / "sub-01_desc-RightPutamen_Chimap.json")["ReferenceOffset"] == 0.3
    plain = load(anat / "sub-01_Chimap.nii.gz")
    mean = chi[mask].mean(dtype=np.float64)
    assert plain[mask] == pytest.approx(chi[mask] - mean, abs=1e-6)
    about = sidecar(anat / "sub-01_Chimap.json")
    assert about["ReferenceRegion"] == "whole_brain"
    assert about["ReferenceOffset"] == pytest.approx(mean)
    assert about["ReferenceVoxels"] == np.count_nonzero(mask)


@pytest.mark.parametrize(
    ("scan", "datatype", "apart", "expected"),
    [
        ("sub-1_ses-2_acq-hi_run-3", "anat", False, "sub-1/ses-2/anat/sub-1_ses-2_acq-hi_run-3_X"),
        ("sub-1_ce-gd_rec-norm", "anat", False, "sub-1/anat/sub-1_ce-gd_rec-norm_X"),
        ("sub-1_rec-norm_run-1", "fmap", False, "sub-1/fmap/sub-1_acq-recnorm_run-1_X"),
        ("sub-1_acq-a_flip-2", "anat", False, "sub-1/anat/sub-1_acq-aflip2_X"),
        ("sub-1_T2starw", "anat", True, "sub-1/anat/sub-1_acq-T2starw_X"),
        ("sub-1_T2starw", "anat", False, "sub-1/anat/sub-1_X"),
    ],
)
def test_entities_keep_their_order_and_what_bids_forbids_goes_into_acq(
    scan: str, datatype: str, apart: bool, expected: str
) -> None:
    assert file_path(ScanKey.parse(scan), datatype, "X", apart=apart).as_posix() == expected


def test_two_kinds_of_scan_of_one_session_do_not_share_a_name(tmp_path: Path) -> None:
    made = cohorts.create(tmp_path / "cohort")
    for scan in ("sub-01", "sub-01_T2starw"):
        cohorts.add(made, scan, CHI, R2STAR)
    export.run(made, tmp_path / "out")
    written = names(tmp_path / "out" / "sub-01" / "anat")
    assert {"sub-01_acq-MEGRE_Chimap.nii.gz", "sub-01_acq-T2starw_Chimap.nii.gz"} <= written


def test_participants_are_handed_on(cohort: CohortStore, tmp_path: Path) -> None:
    cohorts.add_participants(cohort, [{"age": 30.5, "participant_id": "sub-01"}, {"participant_id": "sub-02"}])
    export.run(cohort, tmp_path / "out")
    table = (tmp_path / "out" / "participants.tsv").read_text()
    assert table == "participant_id\tage\nsub-01\t30.5\nsub-02\tn/a\n"
    told = sidecar(tmp_path / "out" / "participants.json")
    assert list(told) == ["participant_id", "age"]
    assert all(entry["Description"] for entry in told.values())


def test_what_the_dataset_says_of_participants_is_handed_on(tmp_path: Path) -> None:
    made, bids = cohorts.create(tmp_path / "cohort"), bids_tree.dataset(tmp_path / "bids")
    bids_tree.scan(bids, "sub-01")
    (bids / "participants.tsv").write_text("participant_id\tage\tsite\nsub-01\t30\tA\n")
    age = {"Description": "age at the scan", "Units": "year"}
    bids_tree.write_json(bids / "participants.json", {"age": age})
    ingest.run(bids, made, SerialEngine(2**30))
    export.run(made, tmp_path / "out")
    told = sidecar(tmp_path / "out" / "participants.json")
    assert told["age"] == age
    assert "site" in told["site"]["Description"]


def test_the_dataset_says_what_made_it_and_from_what(cohort: CohortStore, tmp_path: Path) -> None:
    raw = tmp_path / "study"
    raw.mkdir()
    (raw / "dataset_description.json").write_text("{}")
    document = {"name": "A study", "folder": "study", "derivatives": ["manual:mask", "derivatives/seg:dseg"]}
    cohort.write_document("dataset.json", json.dumps(document).encode())
    export.run(cohort, raw / "derivatives" / "qsm")
    about = sidecar(raw / "derivatives" / "qsm" / "dataset_description.json")
    assert (about["Name"], about["DatasetType"]) == ("Susceptibility maps of A study", "derivative")
    assert about["GeneratedBy"][0]["Name"] == "qsm_dask"
    assert about["GeneratedBy"][0]["Description"] == "pipeline by hand"
    assert about["DatasetLinks"] == {"raw": "../..", "manual": "manual"}
    export.run(cohort, tmp_path / "elsewhere")  # beside the cohort lies the study
    assert sidecar(tmp_path / "elsewhere" / "dataset_description.json")["DatasetLinks"]["raw"] == "../study"


def test_a_second_export_writes_the_same_and_drops_what_is_gone(cohort: CohortStore, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export.run(cohort, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    stale = out / "sub-01" / "anat" / "sub-01_desc-csf_Chimap.nii.gz"
    own = out / "sub-01" / "anat" / "sub-01_notes.txt"
    stale.write_bytes(b"old")
    own.write_text("mine")
    assert export.run(cohort, out).removed == 1
    assert not stale.exists()
    assert own.read_text() == "mine"
    assert {path: path.read_bytes() for path in before} == before


def test_a_folder_that_holds_something_else_is_left_alone(cohort: CohortStore, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "dataset_description.json").write_text('{"Name": "other"}')
    with pytest.raises(ConfigError, match="was not written by `qsm-dask export`: give another folder"):
        export.run(cohort, out)
    assert names(out) == {"dataset_description.json"}


@pytest.mark.slow
def test_the_bids_validator_accepts_the_export(tmp_path: Path) -> None:
    beside = Path(sys.executable).with_name("bids-validator-deno")
    validator = shutil.which("bids-validator-deno") or (str(beside) if beside.exists() else None)
    if validator is None:
        pytest.skip("bids-validator-deno is not installed")
    made = cohorts.create(tmp_path / "cohort")
    for scan in ("sub-01_ses-1_acq-hi_run-1", "sub-01_ses-1_rec-norm_flip-1", "sub-02", "sub-02_T2starw"):
        cohorts.add(made, scan, CHI, R2STAR)
    cohorts.add(made, "sub-03", {0: 0.0}, te=(0.02,), labels={})
    cohorts.add_participants(made, [{"participant_id": f"sub-0{number}", "age": 40} for number in (1, 2, 3)])
    export.run(made, tmp_path / "out")
    command = [validator, "--ignoreWarnings", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
