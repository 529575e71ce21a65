"""Scans of several receive coils, from simulation to maps."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from qsm_dask.cohort.conversion import projected_bytes
from qsm_dask.cohort.standing import standings
from qsm_dask.engine.base import SerialEngine
from qsm_dask.errors import ConfigError
from qsm_dask.io.bids import index
from qsm_dask.io.series import outline
from qsm_dask.pipeline import Pipeline
from qsm_dask.scan import ScanKey
from qsm_dask.store import INGEST_KEY, CohortStore
from qsm_dask.units import radians_per_ppm
from qsm_dask.workflow import apply, export, ingest, process, simulate
from tests.io.test_coils import coil_axis, coil_files

ENGINE = SerialEngine(limit=2**31)
SHAPE, TE, COILS = (32, 32, 24), (0.004, 0.009, 0.014, 0.019), 6


def commit_of(cohort, scan="sub-01"):
    return cohort.commit(ScanKey.parse(scan), "ingest", INGEST_KEY)


def results(cohort):
    """Every array that a scan's commits hold."""
    (standing,) = standings(cohort, Pipeline.from_mapping)
    arrays = cohort.read(standing.ingest)
    for node in ("field", "maps"):
        arrays |= cohort.read(standing.commit(cohort, node))
    return arrays


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """One head, scanned with coils kept apart and combined, each through `consensus`."""
    folder = tmp_path_factory.mktemp("coils")
    for name, coils in (("apart", COILS), ("combined", 0)):
        truth = simulate.run(folder / name, subjects=1, seed=4, shape=SHAPE, te=TE, coils=coils)
        cohort = CohortStore.create(folder / f"{name}.qsm")
        assert ingest.run(folder / name, cohort, ENGINE, derivatives=[f"{truth}:dseg"]).done == 1
        summary = process.run(cohort, ENGINE, Pipeline.from_yaml("consensus"))
        assert (summary.done, summary.failures) == (1, {})
    return folder


def test_the_combined_phase_is_that_of_the_field(study):
    """No offset is left; the noise is that of the image whose SNR was asked for."""
    import nibabel as nib

    apart, combined = (results(CohortStore.open(study / f"{name}.qsm")) for name in ("apart", "combined"))
    hertz = nib.load(study / "apart/derivatives/truth/sub-01/fmap/sub-01_desc-total_fieldmap.nii.gz")
    field = np.asarray(hertz.dataobj) / 127.731
    mask = apart["mask"] & combined["mask"]
    for echo, time in enumerate(TE):
        error = np.angle(np.exp(1j * (apart["phase"][echo] - radians_per_ppm(3.0, time) * field)))[mask]
        noise = np.median(apart["magnitude"][0, :4, :4, :4]) / 1.1774  # of a Rayleigh distribution
        assert abs(np.median(error)) < 0.01
        assert np.median(np.abs(error)) / 0.6745 < 1.3 * noise / np.median(apart["magnitude"][echo][mask])
    np.testing.assert_allclose(apart["magnitude"].mean(), combined["magnitude"].mean(), rtol=0.01)


def test_maps_are_near_those_of_the_combined_scan(study):
    apart, combined = (results(CohortStore.open(study / f"{name}.qsm")) for name in ("apart", "combined"))
    assert np.mean(apart["mask"] == combined["mask"]) > 0.99
    mask = apart["mask"] & combined["mask"]
    for name, typical in (("total_field", 0.005), ("local_field", 0.002), ("chi", 0.005), ("r2star", 2.0)):
        difference = (apart[name] - combined[name])[mask]
        assert np.median(np.abs(difference - np.median(difference))) < typical, name


def test_how_coils_were_combined_is_told(study, tmp_path):
    cohort = CohortStore.open(study / "apart.qsm")
    commit = commit_of(cohort)
    (step,) = commit.provenance["steps"]
    assert (step["stage"], step["parameters"]) == ("coils.mcpc3ds", {"smoothing_mm": 7.0})
    phase = commit.attributes["sources"]["phase"]
    assert (phase["coils"], phase["combined"]) == (COILS, "coils.mcpc3ds")
    export.run(cohort, tmp_path / "out")
    sidecar = json.loads((tmp_path / "out/sub-01/anat/sub-01_Chimap.json").read_text())
    assert sidecar["ProcessingSteps"][0]["Stage"] == "coils.mcpc3ds"
    assert len([uri for uri in sidecar["Sources"] if "_coil-06_" in uri]) == 2 * len(TE)


def test_another_smoothing_combines_anew_and_only_coils(study, tmp_path):
    for name, done in (("apart", (1, 0)), ("combined", (0, 1))):
        cohort = CohortStore.create(tmp_path / name)
        ingest.run(study / name, cohort, ENGINE)
        before = commit_of(cohort).attributes["digests"]
        assert ingest.run(study / name, cohort, ENGINE).unchanged == 1
        summary = ingest.run(study / name, cohort, ENGINE, coil_smoothing_mm=9.0)
        assert (summary.done, summary.unchanged) == done
        after = commit_of(cohort).attributes["digests"]
        changed = {quantity for quantity in after if after[quantity] != before[quantity]}
        assert changed == ({"phase", "magnitude"} if name == "apart" else set())


def test_a_missing_coil_fails_its_scan_with_a_reason_and_the_others_go_on(tmp_path):
    folder = coil_files(tmp_path / "bids", "sub-01")
    coil_axis(tmp_path / "bids", "sub-02")
    single = tmp_path / "bids/sub-03/anat"
    for path in coil_files(tmp_path / "bids", "sub-03").glob("*echo-[23]*"):
        path.unlink()
    assert len(list(single.iterdir())) == 8
    (folder / "sub-01_rec-uncombined_coil-02_echo-3_part-phase_MEGRE.nii.gz").unlink()
    cohort = CohortStore.create(tmp_path / "cohort")
    summary = ingest.run(tmp_path / "bids", cohort, ENGINE)
    assert (summary.done, summary.failed) == (1, 2)
    rows = cohort.index().set_index("scan")["reason"]
    assert "coil-2 has no part-phase image of echo-3" in rows["sub-01_rec-uncombined"]
    assert "at least 2 echoes" in rows["sub-03_rec-uncombined"]
    assert commit_of(cohort, "sub-02_rec-uncombined") is not None


def test_apply_combines_files_with_a_fifth_axis(tmp_path):
    folder = coil_axis(tmp_path / "bids", one_file=True)
    inputs = {
        quantity: folder / f"sub-02_rec-uncombined_part-{part}_MEGRE.nii.gz"
        for quantity, part in (("coil_phase", "phase"), ("coil_magnitude", "mag"))
    }
    te = (0.004, 0.008, 0.012)
    apply.run("coils.mcpc3ds", inputs, tmp_path / "out", te=te)
    cohort = CohortStore.create(tmp_path / "cohort")
    ingest.run(tmp_path / "bids", cohort, ENGINE)
    arrays = cohort.read(commit_of(cohort, "sub-02_rec-uncombined"))
    for name in ("phase", "magnitude"):
        np.testing.assert_array_equal(apply.nifti.read_volume(tmp_path / f"out/{name}.nii.gz"), arrays[name])


def test_a_pipeline_cannot_combine_coils():
    source = {"name": "mine", "goal": ["phase"], "steps": ["coils.mcpc3ds"]}
    with pytest.raises(ConfigError, match="runs while scans are ingested"):
        Pipeline.from_mapping(source)


MEASURE = """
import gc, sys
from functools import partial
from pathlib import Path
from qsm_dask.io.bids import index
from qsm_dask.io.phase import PhaseSign
from qsm_dask.store import CohortStore
from qsm_dask.workflow.ingest import ingest_scan

small, large, cohort = map(Path, sys.argv[1:])
store = CohortStore.create(cohort)
task = partial(ingest_scan, store, PhaseSign(), {})
assert task(index(small).acquisitions[0])["state"] == "done"
gc.collect()

def memory(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))

Path("/proc/self/clear_refs").write_text("5")
before = memory("VmRSS")
assert task(index(large, participants=["02"]).acquisitions[0])["state"] == "done"
print(memory("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
def test_memory_does_not_grow_with_coils_and_is_what_is_projected(tmp_path):
    """Four coils and sixteen of two echoes; the sixteen as float32 would be 64 volumes."""
    peaks = {}
    simulate.run(tmp_path / "small", subjects=1, shape=SHAPE, te=TE[:2], coils=2)
    for coils in (4, 16):
        bids = tmp_path / f"bids{coils}"
        simulate.run(bids, subjects=2, shape=(96, 112, 80), te=TE[:2], coils=coils)
        order = [sys.executable, "-c", MEASURE, *map(str, (tmp_path / "small", bids, tmp_path / f"cohort{coils}"))]
        environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
        done = subprocess.run(order, env=environment, capture_output=True, text=True, check=True)
        peaks[coils] = int(done.stdout)
    projected = projected_bytes(outline(index(bids).acquisitions[0]))
    assert abs(peaks[16] - peaks[4]) < 0.1 * peaks[4]
    assert projected / 1.25 <= peaks[16] <= projected
