"""Kernels are compiled once for a machine: told ahead, in one process, and found by every worker after."""

import os
import shutil

import numpy as np
import pytest

from qsm_dask import numba_cache
from qsm_dask.pipeline import Pipeline
from qsm_dask.workflow import compile_ahead
from tests.benchmarks.first_scan import first_scan

QUICK = {"name": "quick", "goal": ["mask"], "steps": ["mask.magnitude"]}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of compiled code, for this process and its children."""
    folder = tmp_path / "cache" / numba_cache.folder_name()
    folder.mkdir(parents=True)
    monkeypatch.setenv(numba_cache.VARIABLE, str(folder))
    return folder


@pytest.mark.slow
def test_a_worker_compiles_nothing_after(cache):
    pipeline = Pipeline.from_yaml("consensus")
    assert compile_ahead.is_due(pipeline)
    told = []
    compile_ahead.run(pipeline, progress=lambda *step: told.append(step))
    steps = ["coils.mcpc3ds", *(step.stage for slot in pipeline.slots for step in slot)]
    assert told == [*((n, len(steps), name) for n, name in enumerate(steps)), (len(steps), len(steps), "")]
    assert not compile_ahead.is_due(pipeline)
    found = first_scan("consensus", coils=2)
    assert found["misses"] == 0
    assert found["loaded"] > 20


def test_it_is_done_once(cache, monkeypatch):
    pipeline = Pipeline.from_mapping(QUICK)
    (compile_ahead._note(pipeline)).touch()
    compile_ahead.run(pipeline, progress=lambda *_: pytest.fail("it was compiled again"))


def test_another_number_calls_the_same_code_and_another_choice_does_not():
    def note(**parameters):
        steps = ["mask.magnitude", {"unwrap.romeo": parameters}]
        return compile_ahead._note(Pipeline.from_mapping({"goal": ["unwrapped_phase"], "steps": steps}))

    assert note() == note(uncertain=0.25)
    assert note() != note(mode="individual")


def test_a_process_that_fails_is_a_warning_and_is_tried_again(cache, monkeypatch, caplog):
    pipeline = Pipeline.from_mapping(QUICK)
    monkeypatch.setattr(compile_ahead, "__name__", "qsm_dask.no_such_module")
    compile_ahead.run(pipeline)
    assert "could not be compiled ahead" in caplog.text
    assert compile_ahead.is_due(pipeline)


def test_a_step_that_cannot_run_on_the_tiny_head_is_passed_over():
    steps = ["mask.magnitude", {"background.vsharp": {"radius_mm": 500.0}}, "inversion.tkd", "reference.whole_brain"]
    fields = ["unwrap.laplacian", "field.weighted_mean"]
    told = []
    pipeline = Pipeline.from_mapping({"steps": [steps[0], *fields, *steps[1:]]})
    compile_ahead.compile_steps(pipeline, lambda *step: told.append(step[2]))
    assert told[-1] == ""
    assert np.unique(told).size == len(told) == 8


def test_several_threads_call_other_code():
    pipeline = Pipeline.from_mapping(QUICK)
    assert compile_ahead._note(pipeline, 2) == compile_ahead._note(pipeline, 4) != compile_ahead._note(pipeline, 1)


def test_another_copy_of_the_sources_is_compiled_for_itself(tmp_path, monkeypatch):
    """Numba keeps what it compiled for each file by its path and time."""
    pipeline = Pipeline.from_mapping(QUICK)
    before = compile_ahead._note(pipeline)
    shutil.copytree(numba_cache.KERNELS, tmp_path / "kernels")
    monkeypatch.setattr(numba_cache, "KERNELS", tmp_path / "kernels")
    copied = compile_ahead._note(pipeline)
    os.utime(tmp_path / "kernels" / "jit.py")
    assert len({before, copied, compile_ahead._note(pipeline)}) == 3
