"""The cohort cube from simulated scans to voxel-wise answers, and how verify, repair and gc treat it."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from qsm_dask.engine import SerialEngine
from qsm_dask.errors import ConfigError
from qsm_dask.io.atlas import pin, read
from qsm_dask.pipeline import Pipeline
from qsm_dask.store import CohortStore
from qsm_dask.workflow import cube, gc, ingest, process, repair, simulate, verify
from tests.store.conftest import flip
from tests.store.test_cubes import THREE, append, scan_done, stacked
from tests.store.test_sweep import age

ROOM = 4 * 2**30
SHAPE = (48, 56, 40)
STEPS = [
    *("mask.magnitude", "unwrap.laplacian", "field.weighted_mean", "background.vsharp", "inversion.tkd"),
    {"anatomy.register": {"template": "atlas", "iterations": [20, 10]}},
    {"anatomy.labels": {"atlas": "atlas"}},
    "roi.statistics",
    {"anatomy.standard": {"template": "atlas"}},
]
PIPELINE = {"name": "standard", "goal": ["dseg", "chi_standard"], "steps": STEPS}


@pytest.fixture
def cohort(tmp_path: Path) -> CohortStore:
    """Three scans, two of them in the cube."""
    store = CohortStore.create(tmp_path / "cohort")
    for name in THREE[:2]:
        scan_done(store, name)
    append(store)
    scan_done(store, THREE[2])
    return store


def test_what_is_missing_is_appended_once(cohort: CohortStore) -> None:
    seen: list[tuple[int, int, str]] = []
    summary = cube.run(cohort, SerialEngine(ROOM), progress=lambda *step: seen.append(step))
    assert (summary.appended, summary.segments, summary.failures) == ({"chi_standard": 1}, 1, {})
    assert seen == [(1, 1, f"chi_standard of {THREE[2]} and 0 more")]
    assert cube.run(cohort, SerialEngine(ROOM)).segments == 0
    np.testing.assert_array_equal(cohort.cube().sortby("scan").values, stacked(THREE))
    compacted = cube.run(cohort, SerialEngine(ROOM), compact=True)
    assert (compacted.appended, compacted.segments) == ({"chi_standard": 3}, 1)


def test_a_scan_that_cannot_be_read_keeps_no_other_segment_from_being_written(cohort: CohortStore) -> None:
    scan_done(cohort, "sub-09")
    broken = next((cohort.place.folder / "scans" / THREE[2]).rglob("chi_standard/c*"))
    flip(broken, 20)
    batches = cohort.cubes.pending("chi_standard", scans=1)
    assert len(batches) == 2
    summary = cube.run(cohort, SerialEngine(ROOM))
    ((batch, reason),) = summary.failures.items()
    assert batch.startswith("chi_standard of ")
    assert f"{THREE[2]} standard" in reason
    assert list(cohort.cube().scan.values) == THREE[:2]


def test_damage_of_the_cube_is_found_withdrawn_and_appended_again(cohort: CohortStore) -> None:
    cube.run(cohort, SerialEngine(ROOM))
    seen: list[tuple[int, int, str]] = []
    assert verify.run(cohort, progress=lambda *step: seen.append(step)) == []
    assert seen[-1] == (5, 5, "cube chi_standard")
    segment = next(one for one in cohort.cubes.published("chi_standard") if len(one.members) == 2)
    brick = cohort.place.folder / segment.place.folder / "c.0.1.1.0"
    flip(brick, 9)
    (damage,) = verify.run(cohort)
    assert (damage.scan, damage.node, damage.key) == ("cube", "chi_standard", segment.place.key)
    assert str(damage) == f"cube chi_standard: {brick} has been altered: its checksum does not fit"
    withdrawn = repair.run(cohort, [(damage.scan, damage.node, damage.key)])
    assert (withdrawn.commits, withdrawn.segments, withdrawn.scans) == (0, 1, ())
    assert cube.run(cohort, SerialEngine(ROOM)).appended == {"chi_standard": 2}
    np.testing.assert_array_equal(cohort.cube().sortby("scan").values, stacked(THREE))
    assert verify.run(cohort) == []


def test_the_record_of_a_segment_that_was_altered_is_named(cohort: CohortStore) -> None:
    record = next((cohort.place.folder / "cubes").rglob("SEGMENT.json"))
    flip(record, 50)
    (damage,) = verify.run(cohort)
    assert damage.file == str(record)


def test_gc_lists_and_sweeps_what_nobody_reads_of_the_cube(cohort: CohortStore) -> None:
    cube.run(cohort, SerialEngine(ROOM), compact=True)
    age(cohort.place.folder / "cubes", 48)
    assert gc.run(cohort).found == ()
    (found,) = gc.run(cohort, superseded=True, delete=True).found
    assert (found.scan, found.node, found.kind) == (None, "chi_standard", "superseded")
    np.testing.assert_array_equal(cohort.cube().values, stacked(THREE))
    assert verify.run(cohort) == []


def test_only_the_grid_of_a_template_counts(tmp_path: Path) -> None:
    """Editing its images registers anew, which changes positions; resampling knows by these."""
    simulate.run(tmp_path / "a", subjects=1, seed=1, shape=(24, 28, 20), atlas=True)
    folder = tmp_path / "a" / simulate.ATLAS / "tpl-phantom"
    first = pin(str(folder), "grid")
    assert first.voxels == 24 * 28 * 20
    grid = read(str(folder), "grid", first.digest).grid
    assert grid is not None
    assert grid.shape == (24, 28, 20)
    (folder / "tpl-phantom_Chimap.nii.gz").unlink()
    assert pin(str(folder), "grid") == first
    with pytest.raises(ConfigError, match="has no image to register to"):
        pin(str(tmp_path / "a" / simulate.TRUTH / "sub-01" / "anat"), "grid")


def test_nuclei_lie_where_the_template_has_them(tmp_path: Path) -> None:
    simulate.run(tmp_path / "bids", subjects=2, seed=5, shape=SHAPE, atlas=True)
    store = CohortStore.create(tmp_path / "cohort")
    engine = SerialEngine(ROOM)
    # the true map, so that nothing but registration and resampling is looked at
    ingest.run(tmp_path / "bids", store, engine, derivatives=[f"{tmp_path / 'bids' / simulate.TRUTH}:chi"])
    atlas = str(tmp_path / "bids" / simulate.ATLAS / "tpl-phantom")
    pipeline = Pipeline.from_mapping(PIPELINE).with_atlas(atlas)
    summary = process.run(store, engine, pipeline)
    assert summary.failures == {}
    assert cube.run(store, engine).appended == dict.fromkeys(
        ("chi_standard", "magnitude_standard", "r2star_standard"), 2
    )
    values = store.cube("chi").compute(scheduler="sync")
    assert list(values.scan.values) == ["sub-01", "sub-02"]
    regions = read(atlas, "regions")
    names = {name: label for label, name in regions.names.items()}
    table = store.dataset()["chi"].sel(statistic="core_median").compute(scheduler="sync")
    assert regions.labels is not None
    for name in ("putamen_left", "putamen_right", "thalamus_left", "thalamus_right", "caudate_left", "caudate_right"):
        core = binary_erosion(regions.labels.values == names[name])  # at 4 mm, edges are blurred by interpolation
        np.testing.assert_allclose(np.nanmedian(values.values[:, core], axis=1), table.sel(region=name), atol=0.005)
    assert np.isnan(store.cube("r2star").values).all(), "the pipeline makes none"
    rows = store.index().set_index(["scan", "node"])
    figures = json.loads(rows.loc[("sub-01", "standard"), "facts"])["figures"]["anatomy.standard"]
    assert figures["not_inverted"] < 0.001
    assert process.run(store, engine, pipeline).computed == 0
