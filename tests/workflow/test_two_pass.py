"""Two passes and a single step from BIDS to maps, on a tiny simulated head."""

import nibabel as nib
import numpy as np
import pytest

from qsm_dask import open_cohort
from qsm_dask.engine import SerialEngine
from qsm_dask.pipeline import Pipeline
from qsm_dask.store import CohortStore
from qsm_dask.workflow import ingest, process, simulate, status

SHAPE = (32, 32, 24)
ROOM = 4 * 2**30

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
def ingested(tmp_path_factory):
    """A store with one scan, and its true susceptibility."""
    folder = tmp_path_factory.mktemp("bids")
    simulate.run(folder, subjects=1, shape=SHAPE)
    truth = folder / simulate.TRUTH
    cohort = CohortStore.create(tmp_path_factory.mktemp("store") / "cohort")
    ingest.run(folder, cohort, SerialEngine(ROOM), derivatives=[f"{truth}:dseg"])
    (path,) = (path for path in truth.rglob("*_Chimap.nii.gz") if "desc-" not in path.name)
    return cohort, np.asarray(nib.load(path).dataobj)


def reconstructed(cohort, pipeline):
    """The maps of the only scan."""
    summary = process.run(cohort, SerialEngine(ROOM), pipeline)
    assert (summary.done, summary.failures) == (1, {})
    nodes = {row["node"]: row["state"] for row in status.run(cohort).rows}
    assert nodes == dict.fromkeys(("ingest", "field", "maps", "regions"), "done")
    return open_cohort(cohort.place.folder).scan("sub-01")


def test_two_passes_run_from_bids(ingested):
    cohort, true = ingested
    maps = reconstructed(cohort, Pipeline.from_yaml("two-pass"))
    mask, reliable = np.asarray(maps["mask"]), np.asarray(maps["mask_reliable"])
    assert not (reliable & ~mask).any()
    chi, first = np.asarray(maps["chi"]), np.asarray(maps["chi_reliable"])
    # The reference moves the whole map by a constant: the first pass stands where it is known.
    shift = (chi - first)[reliable]
    assert np.ptp(shift) < 1e-5
    assert np.corrcoef(chi[mask], true[mask])[0, 1] > 0.4


def test_a_method_that_inverts_the_phase_itself_needs_no_field(ingested):
    """The node `field` holds the mask alone; the map's narrower mask is that of the later node."""
    cohort, true = ingested
    maps = reconstructed(cohort, Pipeline.from_mapping(SINGLE_STEP))
    assert "total_field" not in maps
    chi = np.asarray(maps["chi"])
    known = chi != 0
    assert np.corrcoef(chi[known], true[known])[0, 1] > 0.4
