"""A stage with its inputs in memory, ready to be timed."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qsm_dask.kernels import fourier
from qsm_dask.stages import STAGES
from tests.benchmarks import head_case


class Lacking(Exception):
    """The head has not every input of a stage."""


class Prepared:
    """A stage, its inputs on the full head, and its code compiled or loaded by a call on the small one."""

    def __init__(self, name: str, folder: Path, changed: Mapping[str, Any] | None = None) -> None:
        """Prepare a stage at its default parameters but for those changed."""
        self.stage = STAGES[name]
        labels = {"labels": (1, 2)} if name == "reference.region" else {}
        self.parameters = {**self.stage.parameters, **labels, **(changed or {})}
        small = head_case.read(folder / "small", self.stage.inputs)
        lacking = [one for one in self.stage.inputs if one not in small and one not in self.stage.optional]
        if lacking:
            raise Lacking(", ".join(lacking))
        self.stage.kernel(*[small.get(one) for one in self.stage.inputs], **self.parameters)
        full = head_case.read(folder / "full", self.stage.inputs)
        self.inputs = [full.get(one) for one in self.stage.inputs]

    def timed(self) -> tuple[float, Any]:
        """Processor seconds of a call, and its result."""
        start = time.process_time()
        result = self.stage.kernel(*self.inputs, **self.parameters)
        return time.process_time() - start, result


def reference_transform() -> float:
    """Seconds of one rfftn of the padded grid, the least of several."""
    shape = fourier.padded_shape(head_case.SHAPE, np.ones(3), fourier.MARGIN_MM)
    volume = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    spent = []
    for _ in range(5):
        start = time.process_time()
        fourier.forward(volume)
        spent.append(time.process_time() - start)
    return min(spent)
