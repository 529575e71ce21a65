"""Kernels are compiled once for a machine: told ahead, in one process, and found by every worker after."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from qsm_dask import numba_cache
from qsm_dask.pipeline import Pipeline
from qsm_dask.workflow import compile_ahead

QUICK = {"name": "quick", "goal": ["mask"], "steps": ["mask.magnitude"]}

# A worker's first scan: what it compiles, and what it takes beside its later scans.
FIRST_SCAN = """
import json, sys, time
start = time.process_time()
from qsm_dask import phantom
from qsm_dask.pipeline import Pipeline
from qsm_dask.workflow import process
from qsm_dask.workflow.compile_ahead import is_due
pipeline = Pipeline.from_yaml(sys.argv[1])
head = phantom.simulate(2, 1, shape=(24, 28, 20), te=(0.004, 0.008, 0.012))
have = {**head.arrays, **head.truth, "b0": 3.0}
for array in have.values():
    if hasattr(array, "setflags"):
        array.setflags(write=False)
geometry = process.Geometry((24, 28, 20), (8.0, 8.0, 8.0), (0.004, 0.008, 0.012))
plan = pipeline.plan(geometry, {*head.arrays, "dseg"})
def scan():
    begun = time.process_time()
    list(plan.run(lambda node, name: have.get(name), [node.name for node in plan.nodes]))
    return time.process_time() - begun
imports = time.process_time() - start
first, second = scan(), scan()
kernels = [module for name, module in sys.modules.items() if name.startswith("qsm_dask.kernels")]
functions = [function for module in kernels for function in vars(module).values() if hasattr(function, "py_func")]
dispatchers = {id(function): function for function in functions}.values()
misses = sum(sum(dispatcher.stats.cache_misses.values()) for dispatcher in dispatchers)
loaded = sum(sum(dispatcher.stats.cache_hits.values()) for dispatcher in dispatchers)
print(json.dumps({"misses": misses, "loaded": loaded, "due": is_due(pipeline), "extra_s": imports + first - second}))
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of compiled code, for this process and its children."""
    folder = tmp_path / "cache" / numba_cache.folder_name()
    folder.mkdir(parents=True)
    monkeypatch.setenv(numba_cache.VARIABLE, str(folder))
    return folder


def first_scan(pipeline):
    done = subprocess.run(
        [sys.executable, "-c", FIRST_SCAN, pipeline], capture_output=True, text=True, check=True, env=os.environ
    )
    return json.loads(done.stdout)


@pytest.mark.slow
def test_a_worker_compiles_nothing_after(cache):
    pipeline = Pipeline.from_yaml("consensus")
    assert compile_ahead.is_due(pipeline)
    told = []
    compile_ahead.run(pipeline, progress=lambda *step: told.append(step))
    steps = [step.stage for slot in pipeline.slots for step in slot]
    assert told == [*((n, len(steps), name) for n, name in enumerate(steps)), (len(steps), len(steps), "")]
    found = first_scan("consensus")
    assert not found["due"]
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
    assert np.unique(told).size == len(told) == 7
