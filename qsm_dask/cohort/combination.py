"""Combining receive coils while a scan is ingested: the one stage that runs before anything is stored."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from qsm_dask.io.series import Outline, Reading
from qsm_dask.pipeline.plan import call, record
from qsm_dask.pipeline.schema import read_step
from qsm_dask.pipeline.steps import Step
from qsm_dask.scan import Geometry

STAGE = "coils.mcpc3ds"


def step(parameters: Mapping[str, Any]) -> Step:
    """The stage with its parameters, those given and the defaults of the others.

    Raises
    ------
    ConfigError : a parameter is unknown or of the wrong type.
    """
    return read_step("ingest", {STAGE: dict(parameters)})


def projected_bytes(outline: Outline) -> int:
    """Peak memory of reading and combining the coils of a scan, however many there are."""
    header, method = outline.header, step({}).method
    x, y, z = (float(size) for size in header.voxel_size)
    taken = method.memory(Geometry(header.shape, (x, y, z), (0.0,) * outline.echoes), method.parameters)
    return taken + header.voxels * header.dtype.itemsize


def run(step: Step, reading: Reading) -> tuple[Reading, list[dict[str, Any]]]:
    """The scan with its coils combined, and the provenance of that; as it is where there are none.

    Raises
    ------
    InputError : a file is damaged.
    StageError : the coils cannot be combined.
    """
    coils = reading.coils
    if coils is None:
        return reading, []
    started = time.perf_counter()
    header = reading.header
    made, _ = call(step, [coils.phase, coils.magnitude, header["te"], header["voxel_size"]])
    sources = {
        name: {**source, "combined": step.stage} if name in made else source for name, source in reading.sources.items()
    }
    combined = replace(reading, arrays={**made, **reading.arrays}, sources=sources, coils=None)
    return combined, [record(step, time.perf_counter() - started, None)]
