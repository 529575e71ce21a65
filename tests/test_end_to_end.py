"""The command line as a newcomer uses it, from simulation to export, on a tiny cohort."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from subprocess import PIPE

import numpy as np
import pytest

import qsm_dask as qd

SHAPE = ("32", "32", "24")


def qsm(*arguments, code=0):
    """Run the command line in a process of its own; its standard output."""
    command = [sys.executable, "-m", "qsm_dask", *map(str, arguments)]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert found.returncode == code, found.stderr
    return found.stdout


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A simulated dataset and its processed cohort."""
    folder = tmp_path_factory.mktemp("study")
    qsm("simulate", folder / "bids", "--subjects", 2, "--shape", *SHAPE, "--cluster", "serial", "--quiet")
    truth = folder / "bids" / "derivatives" / "truth"
    options = ("--derivatives", f"{truth}:dseg", "--cluster", "local", "--json")
    summary = json.loads(qsm("run", folder / "bids", folder / "cohort", *options))
    assert summary["done"] == 2
    assert summary["nodes_computed"] == 6
    return folder


def copy(study, tmp_path):
    shutil.copytree(study, tmp_path / "study")
    return tmp_path / "study"


def rerun(folder, *options):
    truth = folder / "bids" / "derivatives" / "truth"
    arguments = ("--derivatives", f"{truth}:dseg", "--cluster", "serial", "--json", *options)
    return json.loads(qsm("run", folder / "bids", folder / "cohort", *arguments))


def test_a_second_run_computes_nothing(study):
    summary = rerun(study)
    assert summary["ingested"]["unchanged"] == 2
    assert (summary["nodes_computed"], summary["nodes_reused"]) == (0, 6)


def test_serial_and_dask_give_the_same_bits(study, tmp_path):
    rows = json.loads(qsm("status", study / "cohort", "--json"))
    bids = study / "bids"
    derivatives = ("--derivatives", f"{bids / 'derivatives' / 'truth'}:dseg")
    qsm("run", bids, tmp_path / "serial", *derivatives, "--cluster", "serial", "--quiet")
    serial = json.loads(qsm("status", tmp_path / "serial", "--json"))
    digests = {(row["scan"], row["node"]): row["digest"] for row in rows}
    assert {(row["scan"], row["node"]): row["digest"] for row in serial} == digests
    assert len(digests) == 8


def test_a_parameter_recomputes_its_node_and_what_follows(study, tmp_path):
    folder = copy(study, tmp_path)
    shipped = json.loads(qsm("pipelines", "--json"))
    consensus = next(one for one in shipped if one["name"] == "consensus")
    consensus["steps"] = [
        {"reference.region": {"labels": [1, 2]}} if step == "reference.whole_brain" else step
        for step in consensus["steps"]
    ]
    mine = tmp_path / "mine.yaml"
    mine.write_text(json.dumps(consensus))  # JSON is YAML
    summary = rerun(folder, "--pipeline", mine)
    assert (summary["nodes_computed"], summary["nodes_reused"]) == (4, 2)


def test_a_changed_input_recomputes_its_scan_only(study, tmp_path):
    folder = copy(study, tmp_path)
    sidecar = next((folder / "bids" / "sub-01").rglob("*echo-1*part-phase*.json"))
    content = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps({**content, "Comment": "a note changes nothing"}))
    assert rerun(folder)["nodes_computed"] == 0
    images = sorted((folder / "bids" / "sub-01" / "anat").glob("*part-phase*.nii*"))
    images[0].write_bytes(images[-1].read_bytes())
    summary = rerun(folder)
    assert (summary["ingested"]["converted"], summary["ingested"]["unchanged"]) == (1, 1)
    assert (summary["nodes_computed"], summary["nodes_reused"]) == (3, 3)


def test_status_names_every_node(study):
    rows = json.loads(qsm("status", study / "cohort", "--json"))
    assert {row["node"] for row in rows} == {"ingest", "field", "maps", "regions"}
    assert set(rows[0]) >= {"scan", "node", "state", "digest", "seconds", "peak_bytes", "reason"}
    assert all(row["state"] == "done" and row["peak_bytes"] > 0 for row in rows)


def test_verify_finds_a_flipped_bit(study, tmp_path):
    folder = copy(study, tmp_path)
    assert json.loads(qsm("verify", folder / "cohort", "--json")) == []
    chunk = next((folder / "cohort" / "scans").glob("sub-01/maps/*/*/chi/c.*"))
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    (damage,) = json.loads(qsm("verify", folder / "cohort", "--json", code=1))
    assert (damage["scan"], damage["node"], damage["file"]) == ("sub-01", "maps", str(chunk))
    assert "has been altered" in damage["reason"]


def test_a_broken_scan_does_not_stop_the_others(study, tmp_path):
    folder = copy(study, tmp_path)
    image = next((folder / "bids" / "sub-02").rglob("*echo-1*part-mag*.nii.gz"))
    image.write_bytes(image.read_bytes()[:1000])
    options = ("--cluster", "serial", "--json")
    summary = json.loads(qsm("run", folder / "bids", tmp_path / "fresh", *options, code=1))
    assert (summary["done"], summary["failed"]) == (1, 1)
    assert "sub-02" in next(iter(summary["failures"]))
    failed = [
        row for row in json.loads(qsm("status", tmp_path / "fresh", "--json", code=1)) if row["state"] == "failed"
    ]
    assert "echo-1" in failed[0]["reason"]


def test_the_python_interface_is_labelled(study):
    cohort = qd.open_cohort(study / "cohort")
    table = cohort.dataset()
    assert table["chi"].dims == ("scan", "region", "statistic")
    values = table["chi"].sel(region="whole_brain", statistic="mean")
    # The reference is the mean over the mask: it is zero afterwards.
    np.testing.assert_allclose(values, 0.0, atol=1e-6)
    maps = cohort.scan("sub-01")
    assert maps["chi"].dims == ("x", "y", "z")
    assert maps["chi"].attrs["units"] == "ppm"
    assert maps["phase"].dims == ("echo", "x", "y", "z")


def test_apply_gives_what_the_pipeline_gave(study, tmp_path):
    """Write a committed local field as NIfTI, invert it by `apply`, compare with the committed map."""
    import nibabel as nib

    maps = qd.open_cohort(study / "cohort").scan("sub-01")
    affine = np.asarray(maps.attrs["affine"])
    for name in ("local_field", "mask"):
        array = np.asarray(maps[name])
        nib.save(nib.Nifti1Image(array.astype(np.float32), affine), tmp_path / f"{name}.nii.gz")
    inputs = [f"--input={name}={tmp_path / name}.nii.gz" for name in ("local_field", "mask")]
    qsm("apply", "inversion.rts", *inputs, "-o", tmp_path / "out")
    image = nib.load(tmp_path / "out" / "chi.nii.gz")
    np.testing.assert_allclose(image.affine, affine, atol=1e-5)
    mask = np.asarray(maps["mask"])
    chi = np.asarray(image.dataobj)[mask]
    np.testing.assert_allclose(chi - chi.mean(), np.asarray(maps["chi"])[mask], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("cluster", ["local", "serial"])
def test_ctrl_c_in_mid_run_ends_in_one_line_and_the_same_command_goes_on(study, tmp_path, cluster):
    """The terminal sends its interrupt to every process of the group: driver, workers and their nannies."""
    cohort = tmp_path / "cohort"
    arguments = ("run", study / "bids", cohort, "--cluster", cluster, "--json")
    command = [sys.executable, "-m", "qsm_dask", *map(str, arguments)]
    with subprocess.Popen(command, stdout=PIPE, stderr=PIPE, text=True, start_new_session=True) as process:
        while process.poll() is None and not list(cohort.glob("scans/*/ingest/*/COMMIT.json")):
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines() == ["error: stopped; what is done is kept: run the same command again to go on from there"]
    assert json.loads(qsm(*arguments))["done"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "nowhere", "cohort"), "nowhere"),
        (("process", "nowhere"), "nowhere"),
        (("process", "nowhere", "--pipeline", "consensu"), "consensus"),
        (("apply", "inversion.tdk", "--input", "mask=m.nii", "-o", "out"), "inversion.tkd"),
        (("status",), "Missing argument"),
    ],
)
def test_wrong_usage_exits_2_and_says_what_to_do(arguments, message, tmp_path):
    command = [sys.executable, "-m", "qsm_dask", *arguments]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path)
    assert found.returncode == 2
    assert message in found.stderr
    assert "Traceback" not in found.stderr
