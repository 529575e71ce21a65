"""A FreeSurfer folder beside a simulated cohort gives regions by name, as the truth on the scan's own grid does."""

import shutil

import nibabel as nib
import nibabel.processing
import numpy as np
import pytest

from qsm_dask.io.tables import read_tsv
from qsm_dask.store import INGEST_KEY, CohortStore

NUMBERS = {
    "Left-Thalamus": 10, "Right-Thalamus": 49, "Left-Caudate": 11, "Right-Caudate": 50, "Left-Putamen": 12,
    "Right-Putamen": 51, "Left-Pallidum": 13, "Right-Pallidum": 52,
}  # fmt: skip
"""FreeSurfer's numbers, by hand from its colour table."""


def conformed(truth, path, names):
    """The truth as FreeSurfer would leave it: its numbers, 1 mm, axes to the left, down and to the front."""
    image = nib.load(truth)
    values = np.zeros(image.shape, np.int32)
    for index, name in names.items():
        values[np.asarray(image.dataobj) == index] = NUMBERS[name]
    centre = image.affine @ np.append((np.array(image.shape) - 1) / 2, 1.0)
    affine = np.array([[-1.0, 0, 0, 64], [0, 0, 1, -64], [0, -1, 0, 64], [0, 0, 0, 1]])  # 128 mm, where nuclei are
    affine[:3, 3] += centre[:3].round()
    stored = nib.Nifti1Image(values, image.affine)
    fine = nibabel.processing.resample_from_to(stored, ((128, 128, 128), affine), order=0)
    path.parent.mkdir(parents=True)
    nib.save(nib.freesurfer.MGHImage(np.asarray(fine.dataobj).astype(np.int32), affine), path)


def freesurfer_name(name):
    structure, side = name.rsplit("_", 1)
    return f"{side.capitalize()}-{ {'globus_pallidus': 'Pallidum'}.get(structure, structure.capitalize()) }"


@pytest.fixture(scope="module")
def freesurfer(bids, tmp_path_factory):
    """`sub-XX/mri/aseg.mgz` for both subjects."""
    out = tmp_path_factory.mktemp("derivatives") / "freesurfer"
    truth = bids / "derivatives" / "truth"
    table = read_tsv(next(truth.rglob("*dseg.tsv")).read_bytes())
    names = {
        int(index): found
        for index, name in zip(table["index"], table["name"], strict=True)
        if "_" in name and (found := freesurfer_name(name)) in NUMBERS
    }
    assert sorted(names.values()) == sorted(NUMBERS)
    for path in sorted(truth.rglob("sub-*_dseg.nii.gz")):
        conformed(path, out / path.name.partition("_")[0] / "mri" / "aseg.mgz", names)
    return out


def table_of(store):
    return read_tsv(store.read_document("tables/regions.tsv")).set_index("participant_id")


def test_regions_of_an_aseg_are_those_of_the_truth_by_name(told, bids, study, freesurfer, tmp_path):
    shutil.copytree(study.place.folder, tmp_path / "cohort")
    options = ("--derivatives", f"{freesurfer}:dseg", "--cluster", "serial")
    summary = told("run", bids, tmp_path / "cohort", *options)
    assert (summary["done"], summary["ingested"]["converted"]) == (2, 2)
    assert (summary["nodes_computed"], summary["nodes_reused"]) == (2, 4)
    store = CohortStore.open(tmp_path / "cohort")
    found, truth = table_of(store), table_of(study)
    for structure, other in (("putamen", "putamen"), ("thalamus", "thalamus"), ("pallidum", "globus_pallidus")):
        for side in ("left", "right"):
            ours = found[f"chi_median_{structure}_{side}"].astype(float)
            np.testing.assert_array_equal(ours, truth[f"chi_median_{other}_{side}"].astype(float))
    for scan in store.scans():
        assert_one_image(store, study, scan)
    assert told("run", bids, tmp_path / "cohort", *options)["ingested"]["unchanged"] == 2


def assert_one_image(store, study, scan):
    """Left and right, voxel by voxel: one interpolation, no mirror."""
    mine, truth = (one.commit(scan, "ingest", INGEST_KEY) for one in (store, study))
    ours, theirs = store.read(mine, ["dseg"])["dseg"], study.read(truth, ["dseg"])["dseg"]
    for number, name in truth.attributes["labels"].items():
        if "_" in name and freesurfer_name(name) in NUMBERS:
            np.testing.assert_array_equal(ours == NUMBERS[freesurfer_name(name)], theirs == int(number))


def test_an_aseg_that_lies_elsewhere_stops_its_scan_with_the_remedy(qsm, bids, freesurfer, tmp_path):
    shutil.copytree(freesurfer, tmp_path / "freesurfer")
    path = tmp_path / "freesurfer/sub-01/mri/aseg.mgz"
    image = nib.load(path)
    affine = image.affine.copy()
    affine[2, 3] += 400.0
    nib.save(nib.freesurfer.MGHImage(np.asarray(image.dataobj), affine), path)
    options = ("--derivatives", f"{tmp_path / 'freesurfer'}:dseg", "--cluster", "serial", "--participant-label", "01")
    code, _, err = qsm("ingest", bids, tmp_path / "cohort", *options)
    assert code == 1
    said = " ".join(err.split())
    assert "aseg.mgz: less than 1 % of its regions lies inside the scan" in said
    assert "--transform" in said
