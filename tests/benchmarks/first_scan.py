"""What a worker's first scan costs beside its later ones, once kernels are compiled: imports, and loading the code."""

import json
import subprocess
import sys

# A worker's first scan: what it compiles, and what it takes beside its later scans.
FIRST_SCAN = """
import itertools, json, sys, time
start = time.process_time()
from qsm_dask import phantom
from qsm_dask.cohort import combination
from qsm_dask.pipeline import Pipeline
from qsm_dask.pipeline.plan import call
from qsm_dask.workflow import process
pipeline = Pipeline.from_yaml(sys.argv[1])
coils = int(sys.argv[2])
head = phantom.simulate(2, 1, shape=(24, 28, 20), te=(0.004, 0.008, 0.012))
have = {**head.arrays, **head.truth, "b0": 3.0}
for array in have.values():
    if hasattr(array, "setflags"):
        array.setflags(write=False)
geometry = process.Geometry((24, 28, 20), (8.0, 8.0, 8.0), (0.004, 0.008, 0.012))
plan = pipeline.plan(geometry, {*head.arrays, "dseg"})
def stream(name):
    return lambda echoes: itertools.chain.from_iterable([have[name][:echoes]] * coils)
def scan():
    begun = time.process_time()
    if coils:
        call(combination.step({}), [stream("phase"), stream("magnitude"), have["te"], have["voxel_size"]])
    list(plan.run(lambda node, name: have.get(name), [node.name for node in plan.nodes]))
    return time.process_time() - begun
imports = time.process_time() - start
first, second = scan(), scan()
kernels = [module for name, module in sys.modules.items() if name.startswith("qsm_dask.kernels")]
functions = [function for module in kernels for function in vars(module).values() if hasattr(function, "py_func")]
dispatchers = {id(function): function for function in functions}.values()
misses = sum(sum(dispatcher.stats.cache_misses.values()) for dispatcher in dispatchers)
loaded = sum(sum(dispatcher.stats.cache_hits.values()) for dispatcher in dispatchers)
print(json.dumps({"misses": misses, "loaded": loaded, "imports": imports, "calls": first - second}))
"""


def first_scan(pipeline, coils=0):
    """Processor seconds for imports and for loading compiled code, and how much was compiled and loaded.

    With coils their combination is part of it.
    """
    order = [sys.executable, "-c", FIRST_SCAN, pipeline, str(coils)]
    return json.loads(subprocess.run(order, capture_output=True, text=True, check=True).stdout)
