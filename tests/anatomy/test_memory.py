"""What registration and carried labels declare to take, against what a fresh process takes."""

import json
import subprocess
import sys

import pytest

from qsm_dask.scan import Geometry
from qsm_dask.stages import STAGES

MEASURE = """
import gc, json, sys
import numpy as np
from qsm_dask.atlas import Atlas, Image
from qsm_dask.stages import STAGES

name, shape, other = json.loads(sys.argv[1])
kernel = STAGES[name].kernel
rng = np.random.default_rng(0)

def peak():
    with open("/proc/self/status") as status:
        return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in status if line.startswith("Vm")}

def affine(size, shape):
    found = np.diag([size, size, size, 1.0])
    found[:3, 3] = -size * np.array(shape) / 2
    return found

def scan(shape):
    mask = np.zeros(shape, bool)
    mask[2:-2, 2:-2, 2:-2] = True
    return rng.random((1, *shape), dtype=np.float32), mask, affine(1.0, shape)

def template(shape, other):
    grid = affine(shape[0] / other[0], other)
    contrasts = {n: Image(rng.random(other, dtype=np.float32), grid) for n in ("magnitude", "chi")}
    return Atlas("", contrasts, Image(np.ones(other, bool), grid))

def atlas(shape, other):
    labels = np.ascontiguousarray(np.broadcast_to(np.arange(other[2], dtype=np.int64) // 9, other))
    grid = affine(shape[0] / other[0], other)
    if name == "anatomy.probabilities":
        given = Image(rng.random((3, *other), dtype=np.float32), grid)
        return Atlas(probabilities=given, names={1: "a", 2: "b", 3: "c"})
    return Atlas(labels=Image(labels.astype(np.int32), grid), names={n: str(n) for n in range(1, other[2] // 9)})

def run(shape, other):
    magnitude, mask, grid = scan(shape)
    index = np.indices(shape).astype(np.float32)
    positions = index + grid[:3, 3].reshape(3, 1, 1, 1).astype(np.float32)
    del index
    gc.collect()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = peak()["VmRSS"]
    if name == "anatomy.register":
        few = {"affine_iterations": (2, 1, 0), "iterations": (2, 2, 1)}
        kernel(magnitude, mask, grid, magnitude[0] * 0.1, template=template(shape, other), **few)
    else:
        kernel(positions, grid, mask, atlas=atlas(shape, other))
    return peak()["VmHWM"] - before

run((40, 44, 48), (40, 44, 48))
print(run(shape, other))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
@pytest.mark.parametrize("other", [(96, 112, 80), (192, 224, 160)], ids=["coarse atlas", "fine atlas"])
@pytest.mark.parametrize("name", ["anatomy.register", "anatomy.labels", "anatomy.probabilities"])
def test_declared_memory_holds_and_is_not_wasteful(name, other):
    shape = (192, 224, 160)
    call = [sys.executable, "-c", MEASURE, json.dumps([name, shape, other])]
    measured = int(subprocess.run(call, check=True, capture_output=True, text=True).stdout)
    stage = STAGES[name]
    images = {"anatomy.register": 3, "anatomy.labels": 1, "anatomy.probabilities": 3}[name]
    sizes = dict.fromkeys(stage.atlases, images * other[0] * other[1] * other[2])
    declared = stage.memory(Geometry(shape, (1.0, 1.0, 1.0), (0.005,), 3), {**stage.parameters, **sizes})
    assert measured <= declared <= 1.25 * measured
