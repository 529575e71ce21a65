"""Every shipped pipeline from BIDS to tables and derivatives, on tiny simulated heads with R2 of one of them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from qsm_dask import resources
from qsm_dask.engine import SerialEngine
from qsm_dask.pipeline import Pipeline
from qsm_dask.store import CohortStore
from qsm_dask.workflow import compare, export, ingest, process, simulate

SHAPE = (32, 32, 24)
ROOM = 4 * 2**30


@pytest.fixture(scope="module")
def bids(tmp_path_factory) -> Path:
    """Two subjects; the R2 of the second was not measured."""
    folder = tmp_path_factory.mktemp("bids")
    simulate.run(folder, subjects=2, seed=3, shape=SHAPE, spin_echo=True)
    shutil.rmtree(folder / simulate.SPIN_ECHO / "sub-02")
    return folder


@pytest.fixture(scope="module")
def ingested(bids, tmp_path_factory) -> CohortStore:
    store = CohortStore.create(tmp_path_factory.mktemp("cohort") / "cohort")
    folders = [f"{bids / simulate.TRUTH}:dseg", f"{bids / simulate.SPIN_ECHO}:r2"]
    ingest.run(bids, store, SerialEngine(ROOM), derivatives=folders)
    return store


def images(folder: Path) -> set[str]:
    return {path.name.removesuffix(".nii.gz").partition("_")[2] for path in folder.glob("anat/*.nii.gz")}


def validate(folder: Path) -> None:
    beside = Path(sys.executable).with_name("bids-validator-deno")
    validator = shutil.which("bids-validator-deno") or (str(beside) if beside.exists() else None)
    if validator is not None:
        done = subprocess.run([validator, "--json", str(folder)], capture_output=True, text=True, check=False)
        issues = json.loads(done.stdout)["issues"]["issues"]
        assert [issue for issue in issues if issue["severity"] == "error"] == []


MAPS = {"desc-brain_mask", "dseg", "R2starmap", "T2starmap"}
CHI = MAPS | {"Chimap"}
SOURCES = CHI | {"desc-paramagnetic_Chimap", "desc-diamagnetic_Chimap"}
SWI = MAPS | {"desc-swi_T2starw", "desc-swimip_T2starw"}


@pytest.mark.parametrize(
    ("name", "written"), [("accurate", CHI), ("ukb", CHI), ("swi", SWI)], ids=["accurate", "ukb", "swi"]
)
def test_a_pipeline_runs_from_bids_to_derivatives(ingested, tmp_path, name, written):
    """On one scan: what differs between the two is their sources."""
    summary = process.run(ingested, SerialEngine(ROOM), Pipeline.from_yaml(name), participants=["01"])
    assert (summary.done, summary.failures) == (1, {})
    compare.run(ingested)
    export.run(ingested, tmp_path / "out")
    assert images(tmp_path / "out" / "sub-01") == written
    validate(tmp_path / "out")
    if name != "swi":
        assert measured(ingested) == {"chi", "r2star", "field_gradient", *(["t2star"] if name == "ukb" else [])}


def measured(cohort: CohortStore) -> set[str]:
    """The maps whose regions the first scan has."""
    found = cohort.dataset().compute()
    whole = found.sel(scan="sub-01", region="whole_brain", statistic="median")
    assert all(np.isfinite(whole[variable]) for variable in found)
    return set(found)


def test_sources_carry_their_units_their_method_and_their_region_values(ingested, tmp_path):
    summary = process.run(ingested, SerialEngine(ROOM), Pipeline.from_yaml("separation"))
    assert (summary.done, summary.failures) == (2, {})
    compare.run(ingested)
    assert export.run(ingested, tmp_path / "out").without == {}
    assert images(tmp_path / "out" / "sub-02") == SOURCES
    assert images(tmp_path / "out" / "sub-01") == SOURCES | {"R2primemap"}
    validate(tmp_path / "out")
    assert measured(ingested) == {"chi", "r2star", "r2prime", "chi_para", "chi_dia", "field_gradient"}
    methods = {"sub-01": "separation.r2prime", "sub-02": "separation.r2star"}
    for subject, method in methods.items():
        anat = tmp_path / "out" / subject / "anat"
        para, dia = (
            np.asarray(nib.load(anat / f"{subject}_desc-{kind}_Chimap.nii.gz").dataobj)
            for kind in ("paramagnetic", "diamagnetic")
        )
        assert para.min() >= 0 >= dia.max()
        about = json.loads((anat / f"{subject}_desc-diamagnetic_Chimap.json").read_text())
        assert about["Units"] == "ppm"
        assert about["EstimationAlgorithm"].endswith(method)
        assert any("_R2map" in source for source in about["Sources"]) == (subject == "sub-01")
    rate = json.loads((tmp_path / "out" / "sub-01" / "anat" / "sub-01_R2primemap.json").read_text())
    assert rate["Units"] == "1/s"
    table = (ingested.place.folder / "tables" / "regions.tsv").read_text().splitlines()[0].split("\t")
    assert {"chi_para_median_whole_brain", "chi_dia_median_whole_brain", "r2prime_median_whole_brain"} <= set(table)
    found = ingested.dataset().compute()
    means = found.sel(region="whole_brain", statistic="mean")
    # Para- and |dia|magnetic susceptibility of the phantom's tissues is 17 to 50 ppb; R2* alone adds some 10 to each.
    assert 0.01 < float(means["chi_para"].sel(scan="sub-01")) < 0.04
    assert -0.04 < float(means["chi_dia"].sel(scan="sub-01")) < -0.01
    assert float(means["chi_dia"].sel(scan="sub-02")) < float(means["chi_dia"].sel(scan="sub-01"))


def test_one_echo_is_weighted_and_not_separated(tmp_path):
    simulate.run(tmp_path / "bids", subjects=1, shape=SHAPE, te=(0.02,))
    store = CohortStore.create(tmp_path / "cohort")
    ingest.run(tmp_path / "bids", store, SerialEngine(ROOM))
    assert process.run(store, SerialEngine(ROOM), Pipeline.from_yaml("swi")).failures == {}
    refused = process.run(store, SerialEngine(ROOM), Pipeline.from_yaml("separation"))
    assert "chi_para" in refused.failures["sub-01"]


@pytest.mark.parametrize("name", resources.names("pipelines"))
def test_whoever_makes_chi_and_region_values_finds_the_fluid(name):
    """Iron is told relative to it."""
    stages = {step.stage for slot in Pipeline.from_yaml(name).slots for step in slot}
    if {"reference.whole_brain", "roi.statistics"} <= stages:
        assert "reference.csf" in stages
