"""How the speed benchmark counts transforms, judges rows and shows them."""

import numpy as np
import pytest
import scipy.fft

from qsm_dask import resources
from qsm_dask.kernels import fourier
from qsm_dask.pipeline import Pipeline
from qsm_dask.stages import STAGES
from tests.benchmarks.speed import cases
from tests.benchmarks.speed.__main__ import KINDS
from tests.benchmarks.speed.page import line, page
from tests.benchmarks.speed.transforms import Recorder

VSHARP = "background.vsharp"


def stage_row(name=VSHARP, **figures):
    kept = {"seconds": 1.0, "transform_seconds": 0.7, "ratio": 1.4, "transforms": 10, "planned": 10}
    return {"kind": "stage", "name": name, **kept, "peak_mb": 8.0, "declared_mb": 9.0, "of_declared": 0.9, **figures}


def test_a_volume_there_and_back_counts_two_transforms_and_small_ones_none():
    volume = np.random.default_rng(0).standard_normal((12, 10, 8), dtype=np.float32)
    original = scipy.fft.rfftn
    with Recorder() as found:
        back = fourier.inverse(fourier.forward(volume), volume.shape)
        fourier.forward(volume[:3, :3, :3])
    assert scipy.fft.rfftn is original
    np.testing.assert_allclose(back, volume, atol=1e-6)
    assert found.count(volume.size // 2) == 2
    assert sum(found.calls.values()) == 4  # the inverse takes two calls
    assert found.seconds() > 0


def test_what_ran_twice_is_replayed_twice(monkeypatch):
    from tests.benchmarks.speed import transforms

    monkeypatch.setattr(transforms, "_alone", lambda call: 1.0)
    with Recorder() as found:
        fourier.forward(fourier.inverse(fourier.forward(np.zeros((4, 4, 4), np.float32)), (4, 4, 4)))
    assert found.seconds() == 4.0


def test_a_row_within_its_limits_misses_nothing():
    assert cases.missed(stage_row()) == []


@pytest.mark.parametrize(
    ("figure", "value"), [("ratio", 2.1), ("ratio", None), ("transforms", 11), ("of_declared", 1.01)]
)
def test_each_limit_is_judged(figure, value):
    row = stage_row()
    row.pop(figure)
    (said,) = cases.missed(row if value is None else {**row, figure: value})
    assert said.startswith(f"stage {VSHARP}: ")


def test_a_failed_measurement_is_a_miss_and_a_lacking_input_is_none():
    assert cases.missed({"kind": "stage", "name": VSHARP, "failed": "no memory"})
    assert not cases.missed({"kind": "stage", "name": VSHARP, "lacks": "phase"})


def test_vsharp_may_take_one_transform_a_sphere_and_three():
    given = {"radius_mm": 12.0, "radius_min_mm": 1.0, "radius_step_mm": 2.0}  # 12, 10.2, ..., 1: seven spheres
    assert cases.PLANS[VSHARP](0, given) == 10


def test_a_pipeline_that_takes_more_memory_than_its_stages_declare_is_a_miss():
    row = {"kind": "pipeline", "name": "swi", "seconds": 3.0, "of_declared": 0.9}
    assert cases.missed(row) == []
    (said,) = cases.missed({**row, "of_declared": 1.1})
    assert said.startswith("pipeline swi: 1.1 of the memory declared")


def test_every_shipped_pipeline_that_needs_no_atlas_is_measured():
    slots = {name: Pipeline.from_yaml(name).slots for name in resources.names("pipelines")}
    free = {name for name, steps in slots.items() if not any(step.method.atlases for slot in steps for step in slot)}
    assert set(cases.PIPELINES) == free


def test_limits_are_of_things_that_are_measured():
    measured = {name for names in KINDS.values() for name in names}
    assert set(cases.PLANS) | set(cases.THREADED) | set(cases.CACHED) <= set(STAGES)
    assert set(cases._STAGES) <= set(STAGES)
    assert set(cases._OTHERS) <= measured


def test_the_page_shows_every_row_and_names_the_misses():
    rows = [
        stage_row(),
        stage_row("background.lbv", seconds=3.5, residual=5e-5, iterations=7, converged=1),
        {"kind": "pipeline", "name": "fast", "failed": "no memory"},
        {"kind": "stage", "name": "coils.mcpc3ds", "lacks": "coil_phase"},
        {"kind": "threads", "name": VSHARP, "seconds": 2.0, "two_seconds": 1.0, "gain": 2.0, "differing": 0},
    ]
    text = page(rows)
    assert "| `background.vsharp` | 1.00 | 0.70 | 1.40 | 10 |  | 8 | 9 | <= 2 x FFT, <= 10 FFTs | pass |" in text
    assert "- stage background.lbv: 3.5 s, asked <= 3 s" in text
    assert "- pipeline fast failed: no memory" in text
    assert "`coils.mcpc3ds` (coil_phase)" in text
    assert "| `background.vsharp` | 2.00 | 1.00 | 2.00 | 0 |" in text
    assert all(line(row).startswith(f"{row['kind']} {row['name']}: ") for row in rows)
