"""One measurement in a process of its own: `python -m tests.benchmarks.speed.measure KIND NAME FOLDER` prints its row.

Times are processor time of the process, so that other work on the machine disturbs them little.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qsm_dask.engine.resources import PeakMemory, resident
from qsm_dask.kernels import fourier
from qsm_dask.kernels.solved import Solved
from qsm_dask.pipeline import Pipeline
from qsm_dask.quantities import QUANTITIES, RAW
from qsm_dask.stages import STAGES
from tests.benchmarks import head_case
from tests.benchmarks.speed import compare
from tests.benchmarks.speed.calls import Lacking, Prepared, reference_transform
from tests.benchmarks.speed.cases import PLANS, Row
from tests.benchmarks.speed.transforms import Recorder

VOLUME = 4 * int(np.prod(head_case.SHAPE))
MB = 1e6
_LONG_S = 5.0


def stage(name: str, folder: Path) -> Row:
    """Time, transforms and peak memory of one stage; this process has done nothing else.

    A short stage runs three times, and the time is the median.
    """
    try:
        prepared = Prepared(name, folder)
    except Lacking as lacking:
        return {"lacks": str(lacking)}
    before, peak = resident(), PeakMemory()
    with Recorder() as transforms, peak:
        first, result = prepared.timed()
    taken = peak.bytes - before
    solved = [part for part in (result if isinstance(result, tuple) else ()) if isinstance(part, Solved)]
    del result
    seconds = first if first > _LONG_S else float(np.median([first] + [prepared.timed()[0] for _ in range(2)]))
    alone = transforms.seconds()
    declared = STAGES[name].memory(head_case.geometry(head_case.SHAPE), prepared.parameters)
    row: dict[str, Any] = {
        "seconds": seconds,
        "transforms": transforms.count(VOLUME // 32),
        "transform_seconds": alone,
        "ratio": seconds / alone if alone else None,
        "peak_mb": taken / MB,
        "declared_mb": declared / MB,
        "of_declared": taken / declared,
    }
    for end in solved:
        row |= {"iterations": end.iterations, "residual": end.residual, "converged": int(end.converged)}
    if name in PLANS:
        row["planned"] = PLANS[name](row.get("iterations", 0), prepared.parameters)
    return row


def pipeline(name: str, folder: Path) -> Row:
    """Kernel time of a whole pipeline, and its peak with every array read when it is needed and freed after."""
    names = tuple({*RAW, "dseg", "r2"} & QUANTITIES.keys())
    whole = Pipeline.from_yaml(name)

    def run(size: str, shape: tuple[int, int, int]) -> int:
        """Run it whole; returns the memory that it declares."""
        with tempfile.TemporaryDirectory() as scratch:
            plan = whole.plan(head_case.geometry(shape), head_case.present(folder / size, names))

            def load(node: str, wanted: str) -> Any:
                return head_case.read(folder / size if node == "ingest" else Path(scratch), (wanted,)).get(wanted)

            for result in plan.run(load, [node.name for node in plan.nodes]):
                for output, array in result.outputs.items():
                    np.save(f"{scratch}/{output}.npy", array)
        return plan.peak_bytes()

    run("small", head_case.SMALL)
    before, peak = resident(), PeakMemory()
    start = time.process_time()
    with peak:
        declared = run("full", head_case.SHAPE)
    seconds = time.process_time() - start
    taken = peak.bytes - before
    transform = reference_transform()
    return {
        "seconds": seconds,
        "transform_seconds": transform,
        "in_transforms": seconds / transform,
        "volumes": taken / VOLUME,
        "declared_volumes": declared / VOLUME,
        "of_declared": taken / declared,
        "peak_mb": taken / MB,
        "grid": list(fourier.padded_shape(head_case.SHAPE, np.ones(3), fourier.MARGIN_MM)),
    }


KINDS: Mapping[str, Callable[[str, Path], Row]] = {
    "stage": stage,
    "pipeline": pipeline,
    "compare": lambda name, folder: compare.COMPARISONS[name](folder),
    "threads": compare.two_threads,
    "cache": compare.kept_spectra,
}


def head(folder: Path) -> None:
    """Simulate the two heads, unless the folder has them."""
    head_case.write(folder / "small", head_case.SMALL)
    head_case.write(folder / "full", head_case.SHAPE)


if __name__ == "__main__":
    kind, measured, where = sys.argv[1:]
    if kind == "head":
        head(Path(where))
        print("{}")
    else:
        print(json.dumps(KINDS[kind](measured, Path(where))))
