"""Regions of an atlas in scans without labels of their own, from the command line's workflow to tables and page."""

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from qsm_dask.cohort.standing import standings
from qsm_dask.engine import SerialEngine
from qsm_dask.errors import ConfigError
from qsm_dask.io.tables import read_parquet
from qsm_dask.pipeline import Pipeline
from qsm_dask.store import CohortStore
from qsm_dask.store.documents import REGIONS, REPORT
from qsm_dask.workflow import compare, export, ingest, process, report, simulate

ROOM = 4 * 2**30
SHAPE = (48, 56, 40)
FAST = {
    "name": "fast regions",
    "goal": ["chi", "dseg"],
    "steps": [
        *("mask.magnitude", "unwrap.laplacian", "field.weighted_mean", "background.vsharp", "inversion.tkd"),
        {"anatomy.register": {"template": "atlas", "iterations": [20, 10]}},
        {"anatomy.labels": {"atlas": "atlas"}},
        "roi.statistics",
    ],
}


def pipeline(bids: Path) -> Pipeline:
    return Pipeline.from_mapping(FAST).with_atlas(str(bids / simulate.ATLAS / "tpl-phantom"))


@pytest.fixture(scope="module")
def bids(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bids")
    simulate.run(folder, subjects=1, seed=5, shape=SHAPE, atlas=True)
    return folder


@pytest.fixture(scope="module")
def done(bids, tmp_path_factory) -> CohortStore:
    store = CohortStore.create(tmp_path_factory.mktemp("cohort") / "cohort")
    ingest.run(bids, store, SerialEngine(ROOM))
    summary = process.run(store, SerialEngine(ROOM), pipeline(bids))
    assert (summary.failures, summary.done, summary.without_labels) == ({}, 1, 0)
    return store


def nodes(store: CohortStore):
    (standing,) = standings(store, Pipeline.from_mapping)
    return {node.node: node for node in standing.nodes}, standing


def test_carried_regions_are_where_the_truth_has_them(done, bids):
    _, standing = nodes(done)
    found = done.read(standing.commit(done, "regions"), ("dseg",))["dseg"]
    truth_store = CohortStore.create(done.place.folder.parent / "truth")
    ingest.run(bids, truth_store, SerialEngine(ROOM), derivatives=[f"{bids / simulate.TRUTH}:dseg"])
    truth = truth_store.read(truth_store.commit(standing.scan, "ingest", "input"), ("dseg",))["dseg"]
    for number, name in standing.labels.items():
        label = int(number)
        one, other = found == label, truth == label
        if name.rpartition("_")[0] in ("putamen", "thalamus", "globus_pallidus"):
            assert 2 * (one & other).sum() / (one.sum() + other.sum()) > 0.8, name


def test_figures_and_names_stand_in_the_facts_and_on_the_page(done):
    by_node, standing = nodes(done)
    assert standing.labels["3"] == "putamen_left"
    assert by_node["registration"].figures["anatomy.register"]["jacobian_folded"] == 0.0
    assert by_node["regions"].figures["anatomy.labels"]["regions"] == 24
    compare.run(done)
    names = set(read_parquet(done.read_document(REGIONS))["region"])
    assert {"whole_brain", "putamen_left", "dentate_right"} <= names
    assert "putamen_left" in done.dataset().region.to_numpy()
    report.run(done)
    page = done.read_document(REPORT).decode()
    assert "Figures of anatomy.register" in page
    assert "jacobian median" in page


def test_an_edited_atlas_carries_anew_without_registering_again(done, bids, tmp_path):
    edited = tmp_path / "copy" / "tpl-phantom"
    shutil.copytree(bids / simulate.ATLAS / "tpl-phantom", edited)
    again = process.run(done, SerialEngine(ROOM), pipeline(bids).with_atlas(str(edited)))
    assert (again.computed, again.reused) == (0, 4)
    table = edited / "tpl-phantom_atlas-nuclei_dseg.tsv"
    table.write_text(table.read_text().replace("putamen", "shell"))
    again = process.run(done, SerialEngine(ROOM), pipeline(bids).with_atlas(str(edited)))
    assert (again.computed, again.reused) == (1, 3)
    assert nodes(done)[1].labels["3"] == "shell_left"
    process.run(done, SerialEngine(ROOM), pipeline(bids))


def test_a_probabilistic_atlas_gives_weighted_values_without_registering_again(done, bids, tmp_path):
    folder = tmp_path / "tpl-phantom"
    shutil.copytree(bids / simulate.ATLAS / "tpl-phantom", folder)
    image = nib.load(folder / "tpl-phantom_atlas-nuclei_dseg.nii.gz")
    values = np.asarray(image.dataobj)
    shares = [gaussian_filter((values == number).astype(np.float32), 0.7) for number in (3, 4)]
    nib.save(nib.Nifti1Image(np.stack(shares, -1), image.affine), folder / "tpl-phantom_atlas-two_probseg.nii.gz")
    (folder / "tpl-phantom_atlas-two_probseg.tsv").write_text("index\tname\n3\tputamen_left\n4\tputamen_right\n")
    for path in folder.glob("*_dseg.*"):
        path.unlink()
    either = [{"any": [{"anatomy.probabilities": {"atlas": "atlas"}}, FAST["steps"][-2]]}, FAST["steps"][-1]]
    steps = {**FAST, "keep": ["probseg"], "steps": [*FAST["steps"][:-2], *either]}
    again = process.run(done, SerialEngine(ROOM), Pipeline.from_mapping(steps).with_atlas(str(folder)))
    assert (again.failures, again.computed, again.reused) == ({}, 1, 3)
    putamen = done.dataset()["chi"].sel(region=["putamen_left", "putamen_right"]).squeeze("scan").load()
    (name,) = done.scans()
    maps = done.scan(name).load()
    inside, chi = maps["mask"].to_numpy(), maps["chi"].to_numpy().astype(np.float64)
    for region, probability in zip(putamen, maps["probseg"].to_numpy().astype(np.float64), strict=True):
        assert region.sel(statistic="n") > 20
        weights = probability[inside]
        assert region.sel(statistic="weighted_mean") == pytest.approx(weights @ chi[inside] / weights.sum(), rel=1e-5)
    process.run(done, SerialEngine(ROOM), pipeline(bids))


def test_a_label_image_that_was_ingested_wins(bids, tmp_path):
    store = CohortStore.create(tmp_path / "cohort")
    ingest.run(bids, store, SerialEngine(ROOM), derivatives=[f"{bids / simulate.TRUTH}:dseg"])
    process.run(store, SerialEngine(ROOM), pipeline(bids))
    by_node, standing = nodes(store)
    assert "registration" not in by_node
    assert any("dseg was ingested" in reason for reason in standing.left_out)
    assert "cortex" in standing.labels.values()


def test_the_export_has_the_labels_with_their_table(done, tmp_path):
    export.run(done, tmp_path / "out")
    (table,) = (tmp_path / "out").glob("sub-*/anat/*_dseg.tsv")
    assert "3\tputamen_left" in table.read_text()


def test_the_exported_transform_is_one_that_itk_applies(done, tmp_path):
    itk = pytest.importorskip("SimpleITK")
    export.run(done, tmp_path / "out")
    (path,) = (tmp_path / "out").glob("sub-*/anat/*_from-template_to-scan_mode-image_xfm.nii.gz")
    field = itk.ReadImage(str(path), itk.sitkVectorFloat64)
    voxels = ((20, 30, 18), (11, 25, 30))
    points = [field.TransformIndexToPhysicalPoint(voxel) for voxel in voxels]
    transform = itk.DisplacementFieldTransform(field)  # which takes the image away
    _, standing = nodes(done)
    positions = done.read(standing.commit(done, "registration"), ("template_position",))["template_position"]
    for voxel, point in zip(voxels, points, strict=True):
        x, y, z = transform.TransformPoint(point)
        assert (-x, -y, z) == pytest.approx(tuple(positions[(slice(None), *voxel)].tolist()), abs=1e-3)


def test_a_missing_atlas_is_told_before_anything_runs(done):
    with pytest.raises(ConfigError, match="there is no folder"):
        process.run(done, SerialEngine(ROOM), Pipeline.from_mapping(FAST).with_atlas("/nowhere/at/all"))


def test_the_template_does_not_depend_on_the_cohort(bids, tmp_path):
    simulate.run(tmp_path / "other", subjects=1, seed=6, shape=SHAPE, atlas=True)
    for name in ("T2starw", "Chimap", "atlas-nuclei_dseg"):
        one, other = (
            (folder / simulate.ATLAS / "tpl-phantom" / f"tpl-phantom_{name}.nii.gz").read_bytes()
            for folder in (bids, tmp_path / "other")
        )
        assert one == other, name
