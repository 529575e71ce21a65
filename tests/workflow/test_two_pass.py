"""Shipped and hand-written pipelines from BIDS to maps, on a tiny simulated cohort."""

import json

import numpy as np
import pytest

import qsm_dask as qd
from tests.test_end_to_end import SHAPE, qsm

SINGLE_STEP = {
    "name": "single-step",
    "steps": [
        "mask.magnitude",
        "mask.phase_quality",
        "offset.mcpc3ds",
        {"inversion.tgv": {"max_iterations": 100}},
        "reference.whole_brain",
        "roi.statistics",
    ],
}


@pytest.fixture(scope="module")
def bids(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipelines") / "bids"
    qsm("simulate", folder, "--subjects", 1, "--shape", *SHAPE, "--cluster", "serial", "--quiet")
    return folder


def reconstructed(bids, cohort, pipeline):
    """The maps of the only scan, its true susceptibility and the states of its nodes."""
    truth = bids / "derivatives" / "truth"
    options = ("--pipeline", pipeline, "--cluster", "serial", "--json")
    summary = json.loads(qsm("run", bids, cohort, "--derivatives", f"{truth}:dseg", *options))
    assert (summary["done"], summary["failed"]) == (1, 0)
    import nibabel as nib

    true = np.asarray(nib.load(next(truth.rglob("*_Chimap.nii.gz"))).dataobj)
    rows = json.loads(qsm("status", cohort, "--json"))
    return qd.open_cohort(cohort).scan("sub-01"), true, {row["node"]: row["state"] for row in rows}


def test_two_passes_run_from_bids(bids, tmp_path):
    maps, true, nodes = reconstructed(bids, tmp_path / "cohort", "two-pass")
    assert nodes == dict.fromkeys(("ingest", "field", "maps", "regions"), "done")
    mask, reliable = np.asarray(maps["mask"]), np.asarray(maps["mask_reliable"])
    assert not (reliable & ~mask).any()
    chi, first = np.asarray(maps["chi"]), np.asarray(maps["chi_reliable"])
    # The reference moves the whole map by a constant: the first pass stands where it is known.
    shift = (chi - first)[reliable]
    assert np.ptp(shift) < 1e-5
    assert np.corrcoef(chi[mask], true[mask])[0, 1] > 0.4


def test_a_method_that_inverts_the_phase_itself_needs_no_field(bids, tmp_path):
    """The node `field` holds the mask alone; the map's narrower mask is that of the later node."""
    pipeline = tmp_path / "single-step.yaml"
    pipeline.write_text(json.dumps(SINGLE_STEP))  # JSON is YAML
    maps, true, nodes = reconstructed(bids, tmp_path / "cohort", pipeline)
    assert nodes == dict.fromkeys(("ingest", "field", "maps", "regions"), "done")
    assert "total_field" not in maps
    chi = np.asarray(maps["chi"])
    known = chi != 0
    assert np.corrcoef(chi[known], true[known])[0, 1] > 0.4
