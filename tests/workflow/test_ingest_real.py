"""Ingest of the real scans, and what it takes of memory."""

import subprocess
import sys

import numpy as np
import pytest

from qsm_dask.cohort.conversion import projected_bytes
from qsm_dask.io.bids import index
from qsm_dask.io.series import outline
from tests.brain_crop import data_folder, make_bids
from tests.io.bids_tree import scan, write_json
from tests.workflow.ingesting import commit_of, counts, run

MEASURE = """
import sys
from pathlib import Path
from qsm_dask.engine.resources import PeakMemory, resident
from qsm_dask.io.bids import index
from qsm_dask.io.series import outline
from qsm_dask.io.phase import PhaseSign
from qsm_dask.store import CohortStore
from qsm_dask.workflow.ingest import ingest_scan
small, large = index(Path(sys.argv[1])).acquisitions
cohort = CohortStore.open(sys.argv[2])
ingest_scan(cohort, PhaseSign(), {}, small)
before = resident()
with PeakMemory() as peak:
    assert ingest_scan(cohort, PhaseSign(), {}, large)["state"] == "done"
print(peak.bytes - before)
"""


@pytest.mark.slow
def test_a_task_takes_no_more_memory_than_projected(root, cohort):
    scan(root, "sub-01")
    rng = np.random.default_rng(0)
    noise = {part: rng.integers(0, 4095, (3, 128, 128, 96)).astype(np.int16) for part in ("mag", "phase")}
    scan(root, "sub-02", arrays=noise, Units="arbitrary")
    *_, large = index(root).acquisitions
    command = [sys.executable, "-c", MEASURE, str(root), str(cohort.place.folder)]
    used = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    stored = 6 * 4 * 128 * 128 * 96
    assert stored < used < projected_bytes(outline(large)) < 6 * stored


real = pytest.mark.skipif(
    not data_folder().is_dir(), reason=f"the real data are not at {data_folder()} (or QSM_DASK_TEST_DATA)"
)


@real
def test_a_real_philips_scan(cohort):
    summary = run(data_folder() / "philips-3t-two-echo/bids", cohort)
    assert counts(summary) == (1, 0, 0, 0)
    commit = commit_of(cohort, "sub-philips")
    header = commit.attributes["header"]
    assert header["te"] == [0.0023, 0.0046]
    assert header["b0"] == 3
    np.testing.assert_allclose(header["voxel_size"], (3, 3, 3), atol=1e-6)
    # The normal of the slices, from the DICOM header's ImageOrientationPatient by hand.
    row, column = np.array([0.997399, 0.0386818, 0.060815]), np.array([-0.03861, 0.999252, -0.00235419])
    assert abs(header["b0_dir"][2]) == pytest.approx(np.cross(row, column)[2], abs=1e-5)
    arrays = cohort.read(commit)
    assert arrays["phase"].shape == arrays["magnitude"].shape == (2, 80, 80, 53)
    assert np.ptp(arrays["phase"]) == pytest.approx(2 * np.pi, abs=2e-3)


@real
def test_the_brain_crop_made_bids(cohort, tmp_path):
    summary = run(make_bids(tmp_path / "crop"), cohort)
    assert counts(summary) == (1, 0, 0, 0)
    commit = commit_of(cohort, "sub-crop")
    assert commit.attributes["header"]["te"] == [0.004, 0.008, 0.012]
    assert commit.attributes["header"]["b0"] == 7
    phase = cohort.read(commit, ["phase"])["phase"]
    assert phase.shape == (3, 51, 51, 41)
    assert np.abs(phase).max() == pytest.approx(np.pi, abs=1e-5)


@real
def test_the_brain_crop_as_delivered_is_refused_not_stretched(root, cohort):
    crop = data_folder() / "romeo-brain-crop"
    for part, file in (("mag", "Mag"), ("phase", "Phase")):
        stem = root / f"sub-crop/anat/sub-crop_part-{part}_MEGRE"
        stem.parent.mkdir(parents=True, exist_ok=True)
        stem.with_suffix(".nii.gz").symlink_to(crop / f"{file}.nii.gz")
        write_json(stem.with_suffix(".json"), {"EchoTime": [0.004, 0.008, 0.012], "MagneticFieldStrength": 7})
    (reason,) = run(root, cohort).failures.values()
    assert "phase units cannot be told" in reason


@real
def test_real_nan_is_a_clear_reason(root, cohort):
    for part in ("mag", "phase"):
        stem = root / f"sub-01/anat/sub-01_part-{part}_MEGRE"
        stem.parent.mkdir(parents=True, exist_ok=True)
        stem.with_suffix(".nii.gz").symlink_to(data_folder() / "romeo-brain-crop/phase_with_nan.nii.gz")
        write_json(stem.with_suffix(".json"), {"EchoTime": [0.004, 0.008], "MagneticFieldStrength": 7, "Units": "rad"})
    (reason,) = run(root, cohort).failures.values()
    assert "voxels are NaN or infinite" in reason
