"""A template of a cohort's own: in the mean shape of its scans, whatever it began with, and usable as an atlas."""

import json
import time
from contextlib import nullcontext
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from dask import delayed
from scipy.ndimage import map_coordinates

from qsm_dask import api
from qsm_dask.engine import SerialEngine
from qsm_dask.engine.resources import Machine
from qsm_dask.errors import ConfigError, EngineError
from qsm_dask.io.atlas import pin, read
from qsm_dask.io.nifti import read_header, read_volume, write_volume
from qsm_dask.pipeline import Pipeline
from qsm_dask.store import CohortStore
from qsm_dask.store.documents import PIPELINE
from qsm_dask.workflow import ingest, process, simulate, template
from tests.workflow.test_cube import PIPELINE as STANDARD
from tests.workflow.test_cube import SHAPE

ENGINE = SerialEngine(4 * 2**30)
STEPS_ONLY = {
    **STANDARD,
    "goal": ["chi_standard"],
    "steps": [step for step in STANDARD["steps"] if step != "roi.statistics" and "anatomy.labels" not in step],
}


def bend(source: Path, target: Path) -> None:
    """The template as if people had heads bent by up to 6 mm: a population that it does not fit."""
    target.mkdir()
    for path in source.glob("*.nii.gz"):
        if "dseg" in path.name:
            continue
        header = read_header(path, standard=True)
        x, y, z = np.indices(header.shape).astype(float)
        nx, ny, nz = header.shape
        at = [x + 1.5 * np.sin(9 * y / ny), y + 1.5 * np.sin(8 * z / nz), z - 1.5 * np.sin(9 * x / nx)]
        values = map_coordinates(read_volume(path).astype(np.float32), at, order=1)
        write_volume(target / path.name, values > 0.5 if "mask" in path.name else values, header.affine)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> CohortStore:
    """Three heads of forms of their own, registered to a template whose own form is wrong."""
    folder = tmp_path_factory.mktemp("template")
    simulate.run(folder / "bids", subjects=3, seed=11, shape=SHAPE, atlas=True)
    bend(folder / "bids" / simulate.ATLAS / "tpl-phantom", folder / "tpl-bent")
    store = CohortStore.create(folder / "cohort")
    ingest.run(folder / "bids", store, ENGINE, derivatives=[f"{folder / 'bids' / simulate.TRUTH}:chi"])
    process.run(store, ENGINE, Pipeline.from_mapping(STEPS_ONLY).with_atlas(str(folder / "tpl-bent")))
    return store


def likeness(one: Path, other: Path) -> float:
    """Correlation of the susceptibility of two templates."""
    a, b = (read(str(folder), "template").contrasts["chi"].values for folder in (one, other))
    here = (a != 0) & (b != 0)
    return float(np.corrcoef(a[here], b[here])[0, 1])


@pytest.mark.slow
def test_iterations_bring_the_template_to_the_shape_of_the_cohort(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr("qsm_dask.workflow.compile_ahead.run", lambda *_: None)
    before = cohort.read_document(PIPELINE)
    out, home = tmp_path / "out", cohort.place.folder.parent
    straight, bent = home / "bids" / simulate.ATLAS / "tpl-phantom", home / "tpl-bent"
    made = api.build_template(cohort, ENGINE, out, iterations=3, name="ours")
    assert [one.scans for one in made] == [3, 3, 3]
    assert made[1].shape_mm < 0.4 * made[0].shape_mm
    assert likeness(out, straight) > likeness(bent, straight)
    assert cohort.read_document(PIPELINE) == before
    assert cohort.cube("chi").sizes["scan"] == 3, "the cohort's own results count again"
    assert pin(str(out), "template") == pin(str(out / "iteration-3"), "template")
    summary = process.run(cohort, ENGINE, Pipeline.from_mapping(STEPS_ONLY).with_atlas(str(out)))
    assert (summary.done, summary.failures) == (3, {})


@pytest.mark.parametrize("end", [None, KeyboardInterrupt, EngineError])
def test_the_cohort_has_its_pipeline_again_however_it_ends(tmp_path, monkeypatch, caplog, end):
    """Its scans are looked through for it only where all went well: neither after Ctrl-C nor without an engine."""
    store = CohortStore.create(tmp_path / "cohort")
    before = json.dumps(dict(Pipeline.from_yaml("standard").source)).encode()
    store.write_document(PIPELINE, before)
    processed = []

    def process_all(cohort, engine, pipeline):
        del engine
        processed.append(pipeline.name)
        cohort.write_document(PIPELINE, json.dumps(dict(pipeline.source)).encode())
        if end and len(processed) == 2:
            raise end("stopped")
        return process.Summary(done=1)

    def average(cohort, folder, name):
        del cohort, name
        folder.mkdir(parents=True)
        return template.Average(1, 0.1)

    monkeypatch.setattr(api, "process", process_all)
    monkeypatch.setattr(api, "append_cube", lambda cohort, engine: None)
    monkeypatch.setattr(template, "average", average)
    with pytest.raises(end) if end else nullcontext():
        api.build_template(store, ENGINE, tmp_path / "out", iterations=2)
    assert json.loads(store.read_document(PIPELINE)) == json.loads(before)
    assert processed == ["template", "template", *([] if end else ["standard"])]
    assert ("pending until its own pipeline is run again" in caplog.text) == bool(end)


def test_what_needs_regions_is_left_out_of_the_pipeline(tmp_path):
    """The template that is made has none."""
    store = CohortStore.create(tmp_path / "cohort")
    store.write_document(PIPELINE, json.dumps(dict(Pipeline.from_yaml("standard").source)).encode())
    stages = {step.stage for slot in template.pipeline_of(store).slots for step in slot}
    assert {"anatomy.register", "anatomy.standard", "relaxometry.arlo"} <= stages
    assert not any(step.method.atlases.get("atlas") for slot in template.pipeline_of(store).slots for step in slot)


def test_medians_are_taken_over_what_there_is():
    nan = np.nan
    values = np.array([[3.0, 1.0, 2.0], [4.0, nan, 1.0], [nan, nan, nan], [7.0, nan, nan]], np.float32)
    cube = xr.DataArray(values.T.reshape(3, 4, 1, 1), dims=("scan", "x", "y", "z")).chunk(scan=1)
    np.testing.assert_array_equal(template._medians(cube).ravel(), np.array([2.0, 2.5, nan, 7.0], np.float32))


def bricks(scans=6, count=16, of=8):
    """A cube of bricks that tells which are read."""
    read = []

    def block(place):
        read.append(place)
        return np.full((1, of, of, of), 1.0 + place[0], np.float32)

    lazy = [
        [da.from_delayed(delayed(block)((i, n)), (1, of, of, of), np.float32) for n in range(count)]
        for i in range(scans)
    ]
    whole = da.concatenate([da.concatenate(row, axis=1) for row in lazy])
    return xr.DataArray(whole, dims=("scan", "x", "y", "z")), read


@pytest.mark.parametrize(("memory", "most"), [(2**40, 4), (1, 1)])
def test_so_many_bricks_are_averaged_at_once_as_memory_holds(monkeypatch, memory, most):
    """A brick of all scans here takes 6 x 8 x 8 x 8 values, five times."""
    under_way, seen, median = [], [], template._median

    def slow(values):
        under_way.append(1)
        seen.append(len(under_way))
        time.sleep(0.01)
        under_way.pop()
        return median(values)

    cube, _ = bricks()
    assert template._at_once(cube, Machine(4, 2 * 3 * 5 * 4 * 6 * 8**3)) == 3
    monkeypatch.setattr(template, "_median", slow)
    monkeypatch.setattr(template.Machine, "here", lambda: Machine(4, memory))
    assert (template._medians(cube) == 3.5).all()
    assert (max(seen) > 1) == (most > 1)
    assert max(seen) <= most


def test_a_brick_of_levelled_scans_is_read_without_the_others():
    cube, read = bricks()
    levelled = template._levelled(cube)
    read.clear()
    np.testing.assert_array_equal(levelled.isel(x=slice(8, 16)).to_numpy(), 1.0)
    assert sorted(read) == [(scan, 1) for scan in range(6)]


def test_a_cohort_that_was_not_brought_to_a_template_is_refused(tmp_path):
    store = CohortStore.create(tmp_path / "cohort")
    with pytest.raises(ConfigError, match=r"process it with a pipeline that has the step anatomy\.standard"):
        template.pipeline_of(store)
    with pytest.raises(ConfigError, match="letters and digits, got '../x'"):
        api.build_template(store, ENGINE, tmp_path, name="../x")
