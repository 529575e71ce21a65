"""Compile the kernels of a pipeline once for this machine, before workers need them.

Numba compiles a function when it is first called, for most of a minute in all with the default pipeline;
workers that start together would each do so, silently. One process runs the steps on a tiny
head instead, and leaves the code in the cache that all processes of this user share.
"""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, cast

import llvmlite.binding
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from qsm_dask import numba_cache, phantom
from qsm_dask.cohort import combination
from qsm_dask.digests import digest_of
from qsm_dask.errors import StageError
from qsm_dask.pipeline import Pipeline, Step
from qsm_dask.pipeline.plan import call

Progress = Callable[[int, int, str], None]

_LOG = logging.getLogger(__name__)
_SHAPE = (32, 36, 26)


def is_due(pipeline: Pipeline, threads: int = 1) -> bool:
    """Whether this machine has yet to compile what the pipeline calls on so many threads a scan."""
    return not _note(pipeline, threads).exists()


def run(pipeline: Pipeline, threads: int = 1, *, progress: Progress | None = None) -> None:
    """Compile what a pipeline calls in a process of its own, unless this machine has done so.

    Should that process fail, a warning says so, and whoever calls a kernel first compiles it.

    Parameters
    ----------
    pipeline : whose steps are run, alternatives included.
    threads : that a scan is given: loops on one and on several are compiled apart.
    progress : called with (steps compiled, steps in all, the step's name).
    """
    if not is_due(pipeline, threads):
        return
    command = [sys.executable, "-m", __name__, json.dumps([dict(pipeline.source), threads])]
    with TemporaryFile() as complaints:  # a pipe that nobody reads meanwhile would fill, and stop the process
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints) as process:
            for line in cast("IO[bytes]", process.stdout):
                if progress is not None:
                    progress(*json.loads(line))
        complaints.seek(0)
        complaint = complaints.read().decode(errors="replace").strip()
    if process.returncode:
        _LOG.warning("kernels could not be compiled ahead, so each worker compiles them: %s", complaint[-300:])
        return
    _note(pipeline, threads).touch()


def compile_steps(pipeline: Pipeline, progress: Progress) -> None:
    """Run every step of a pipeline on a tiny head, in this process, and the combination of coils before.

    A step that lacks an input, or refuses so small a head, is passed over: its first scan compiles it.
    """
    head = phantom.simulate(1, 0, shape=_SHAPE, te=(0.004, 0.008, 0.012, 0.016))
    have: dict[str, Any] = {**head.arrays, "dseg": head.truth["dseg"]}
    have |= {f"coil_{name}": _one_coil(head.arrays[name]) for name in ("phase", "magnitude")}
    steps = _steps(pipeline)
    for count, step in enumerate(steps):
        progress(count, len(steps), step.stage)
        if set(step.required) <= set(have):
            try:
                outputs, _ = call(step, [_as_read(have.get(name)) for name in step.inputs])
            except StageError:
                continue
            have.update(outputs)
    progress(len(steps), len(steps), "")


def _steps(pipeline: Pipeline) -> list[Step]:
    """What workers call: the combination of coils while they ingest, then the pipeline with its alternatives."""
    return [combination.step({}), *(step for slot in pipeline.slots for step in slot)]


def _one_coil(series: NDArray[np.float32]) -> Callable[[int], Iterator[NDArray[np.float32]]]:
    return lambda echoes: iter(series[:echoes])


def _as_read(value: object) -> object:
    """What the store hands over: arrays stay arrays, and single numbers are plain."""
    return value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value


def _note(pipeline: Pipeline, threads: int = 1) -> Path:
    """The empty file that tells that a pipeline's kernels are compiled for this kind of processor.

    Numbers do not count: another threshold calls the same code.
    """
    steps = [[step.stage, _choices(step)] for step in _steps(pipeline)]
    name = digest_of([llvmlite.binding.get_host_cpu_name(), numba_cache.installation(), threads > 1, steps])
    return Path(os.environ[numba_cache.VARIABLE]) / f"{name}.compiled"


def _choices(step: Step) -> dict[str, str]:
    numbers = (int, float)
    return {
        name: repr(value)
        for name, value in sorted(step.parameters.items())
        if isinstance(value, bool) or not isinstance(value, numbers)
    }


def _print(*fact: int | str) -> None:
    print(json.dumps(fact), flush=True)


if __name__ == "__main__":
    source, threads = json.loads(sys.argv[1])
    with scipy.fft.set_workers(threads):
        compile_steps(Pipeline.from_mapping(source), _print)
