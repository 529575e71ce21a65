"""What registration, carried labels and brain extraction declare to take, against what a fresh process takes."""

import json
import os
import subprocess
import sys

import pytest

from qsm_dask.scan import Geometry
from qsm_dask.stages import STAGES

CASES = ("anatomy.register", "anatomy.labels", "anatomy.probabilities", "anatomy.standard")
"""What is measured with an atlas."""

MEASURE = """
import gc, json, sys
import numpy as np
from qsm_dask.atlas import Atlas, Grid, Image
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
    if name == "anatomy.standard":
        grid = Grid(other, affine(shape[0] / other[0], other))
        maps = kernel(positions, magnitude, mask, magnitude[0], magnitude[0], template=Atlas(grid=grid))
        packed = maps[0].tobytes()  # as the store does while all maps are held
    elif name == "anatomy.register":
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
@pytest.mark.parametrize("name", CASES)
def test_declared_memory_holds_and_is_not_wasteful(name, other):
    shape = (192, 224, 160)
    call = [sys.executable, "-c", MEASURE, json.dumps([name, shape, other])]
    measured = int(subprocess.run(call, check=True, capture_output=True, text=True).stdout)
    stage = STAGES[name]
    images = {"anatomy.register": 3, "anatomy.labels": 1, "anatomy.probabilities": 3, "anatomy.standard": 1}[name]
    sizes = dict.fromkeys(stage.atlases, images * other[0] * other[1] * other[2])
    declared = stage.memory(Geometry(shape, (1.0, 1.0, 1.0), (0.005,), 3), {**stage.parameters, **sizes})
    assert measured <= declared <= 1.25 * measured


EXTRACTION = ("mask.bet", "mask.deepbet")

MEASURE_EXTRACTION = """
import gc, json, sys
import numpy as np
from qsm_dask.stages import STAGES

name, shape, size = json.loads(sys.argv[1])

def peak():
    with open("/proc/self/status") as status:
        return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in status if line.startswith("Vm")}

def upright(size):
    return np.diag([*size, 1.0])

def run(shape, size):
    rng = np.random.default_rng(0)
    grid = np.meshgrid(*((np.arange(n) / n - 0.5) * n * s for n, s in zip(shape, size)), indexing="ij", sparse=True)
    radius = np.sqrt(sum(g * g for g in grid)).astype(np.float32)
    image = np.where(radius < 70, np.float32(1.0), np.where((radius > 78) & (radius < 84), np.float32(0.7), 0.02))
    magnitude = (image + 0.02 * rng.standard_normal(shape))[None].repeat(3, axis=0).astype(np.float32)
    del grid, radius, image
    gc.collect()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = peak()["VmRSS"]
    kernel = STAGES[name].kernel
    found = kernel(magnitude, size, iterations=20) if name == "mask.bet" else kernel(magnitude, upright(size))
    assert found.any()
    return peak()["VmHWM"] - before

if name == "mask.bet":  # of a network, loading it is the most of what it takes
    run((40, 44, 40), (5.0, 5.0, 5.0))
print(run(shape, size))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
@pytest.mark.parametrize(
    ("shape", "size"),
    [((192, 224, 160), (1.0, 1.0, 1.0)), ((192, 224, 80), (1.0, 1.0, 2.0)), ((96, 112, 80), (2.0, 2.0, 2.0))],
    ids=["fine", "thick", "coarse"],
)
@pytest.mark.parametrize("name", EXTRACTION)
def test_extraction_declares_what_it_takes(name, shape, size):
    for package, extra in STAGES[name].packages.items():
        pytest.importorskip(package, reason=f"pip install qsm-dask[{extra}]")
    call = [sys.executable, "-c", MEASURE_EXTRACTION, json.dumps([name, shape, size])]
    # With a fixed threshold every volume is mapped by itself, and given back when it is freed.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
    measured = int(subprocess.run(call, env=environment, check=True, capture_output=True, text=True).stdout)
    stage = STAGES[name]
    declared = stage.memory(Geometry(shape, size, (0.005, 0.01, 0.015)), dict(stage.parameters))
    assert measured <= declared <= 1.25 * measured, f"{declared / measured:.3f} of what is measured"


STRUCTURAL = "anatomy.align_t1w"

MEASURE_STRUCTURAL = """
import gc, json, sys
import numpy as np
from scipy import ndimage
from qsm_dask.stages import STAGES

name, shape, own, resolution_mm = json.loads(sys.argv[1])

def peak():
    with open("/proc/self/status") as status:
        return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in status if line.startswith("Vm")}

def upright(size, shape):
    found = np.diag([size, size, size, 1.0])
    found[:3, 3] = -size * np.array(shape) / 2
    return found

def run(shape, own):
    blocks = np.random.default_rng(0).random((8, 8, 8), dtype=np.float32)
    one, other = (ndimage.zoom(blocks, np.array(s) / 8, order=1) for s in (shape, own))
    mask = np.zeros(shape, bool)
    mask[4:-4, 4:-4, 4:-4] = True
    magnitude = np.stack([one, one, one])
    given = magnitude, mask, upright(1.0, shape), 1 - other, upright(0.8, own)
    del blocks, one, other
    gc.collect()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = peak()["VmRSS"]
    STAGES[name].kernel(*given, resolution_mm=resolution_mm, iterations=(2, 1, 1))
    return peak()["VmHWM"] - before

run((80, 80, 80), (100, 100, 100))
print(run(shape, own))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
@pytest.mark.parametrize("resolution_mm", [2.0, 1.0])
def test_alignment_declares_what_it_takes_of_the_largest_t1w(resolution_mm):
    pytest.importorskip("picsl_greedy", reason="pip install qsm-dask[anatomy]")
    shape = (192, 224, 160)
    call = [sys.executable, "-c", MEASURE_STRUCTURAL, json.dumps([STRUCTURAL, shape, (320, 320, 320), resolution_mm])]
    measured = int(subprocess.run(call, check=True, capture_output=True, text=True).stdout)
    stage = STAGES[STRUCTURAL]
    parameters = {**stage.parameters, "resolution_mm": resolution_mm}
    declared = stage.memory(Geometry(shape, (1.0, 1.0, 1.0), (0.005, 0.01, 0.015)), parameters)
    assert measured <= declared <= 1.25 * measured, f"{declared / measured:.3f} of what is measured"
