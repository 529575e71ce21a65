"""What the phase stages declare to take, against what a fresh process takes."""

import json
import os
import subprocess
import sys

import pytest

from qsm_dask import memory
from qsm_dask.scan import Geometry
from qsm_dask.stages import STAGES

SIDE, ECHOES = 160, 4

CASES = [
    ("mask.magnitude", {}),
    ("mask.phase_quality", {"threshold": 0.1}),
    ("mask.field_quality", {}),
    ("mask.segmentation", {}),
    ("mask.segmentation", {"closing_mm": 9.0}),
    ("mask.segmentation", {"closing_mm": 0.0}),
    ("mask.segmentation", {"closing_mm": 0.0, "leave_out": (3, 5)}),
    ("mask.combine", {"rule": "minus"}),
    ("mask.erode", {}),
    ("coils.mcpc3ds", {}),
    ("offset.mcpc3ds", {}),
    ("offset.bipolar", {}),
    ("unwrap.romeo", {}),
    ("unwrap.romeo", {"mode": "individual"}),
    ("unwrap.laplacian", {}),
    ("field.weighted_mean", {}),
    ("field.linear_fit", {}),
    ("field.nonlinear_fit", {}),
    ("relaxometry.arlo", {}),
    ("relaxometry.loglinear", {}),
    ("relaxometry.nonlinear", {}),
    ("relaxometry.t2star", {}),
    ("relaxometry.r2prime", {}),
    ("weighting.swi", {}),
    ("weighting.mip", {}),
    ("roi.statistics", {}),
    ("roi.candidates", {"vein_labels": (7,)}),
]
"""What is measured: stages with parameters."""

MEASURE = """
import gc, json, resource, sys
import numpy as np
from qsm_dask.stages import STAGES

name, side, echoes, parameters = json.loads(sys.argv[1])
stage = STAGES[name]

def arrays(n):
    rng = np.random.default_rng(0)
    te = 0.005 * np.arange(1, echoes + 1)
    g = np.linspace(-1, 1, n, dtype=np.float32)
    noise = rng.standard_normal((n, n, n), dtype=np.float32)
    air = (g[:, None, None] ** 2 + g[:, None] ** 2 + g**2 > 0.8).astype(np.float32)
    mask = air == 0 if name == "mask.erode" else np.ones((n, n, n), bool)
    magnitude, phase = np.empty((2, echoes, n, n, n), np.float32)
    for echo, time in enumerate(te):
        magnitude[echo] = np.float32(np.exp(-30 * time)) + np.float32(0.02) * noise
        if name == "mask.magnitude":
            magnitude[echo] -= np.float32(0.95 * np.exp(-30 * time)) * air
        phase[echo] = np.float32(0.25) * noise + np.float32(20) * g * np.float32(time / te[-1])
    np.mod(phase + np.float32(np.pi), np.float32(2 * np.pi), out=phase)
    phase -= np.float32(np.pi)
    dseg = np.broadcast_to((np.arange(n) % 100 + 1).astype(np.int32), (n, n, n)).copy()
    def coils(series):
        def volumes(leading):
            buffer = np.empty((n, n, n), np.float32)
            for number in range(leading * 3):
                buffer[...] = series[number % leading]
                yield buffer

        return volumes

    return dict(phase=phase, coil_phase=coils(phase), coil_magnitude=coils(magnitude),
        magnitude=magnitude, unwrapped_phase=phase, te=te, b0=np.array(3.0), mask=mask, mask_other=noise > 0,
        voxel_size=np.ones(3), affine=np.eye(4), dseg=dseg, chi=phase[0], r2star=magnitude[0],
        total_field=phase[1], t2star=magnitude[2], probseg=magnitude[:2] / 2, probseg_labels=np.array([3, 200]),
        r2=magnitude[1], swi=magnitude[0], r2prime=magnitude[1], chi_para=magnitude[0], chi_dia=-magnitude[1],
        field_noise=magnitude[0], phase_residual=np.zeros((n, n, n), np.float32))

def peak():
    with open("/proc/self/status") as status:
        return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in status if line.startswith("Vm")}

stage.kernel(*(arrays(16)[quantity] for quantity in stage.inputs), **parameters)
given = arrays(side)
given = [given[quantity] for quantity in stage.inputs]
gc.collect()
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = peak()["VmRSS"]
result = stage.kernel(*given, **parameters)
print(peak()["VmHWM"] - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
@pytest.mark.parametrize(("name", "parameters"), CASES)
def test_peak_memory_is_what_is_declared(name, parameters):
    """With a mask that fills the image, the worst case where it matters; never above and at most a quarter below."""
    stage = STAGES[name]
    order = json.dumps([name, SIDE, ECHOES, parameters])
    # With a fixed threshold every volume is mapped by itself, and given back when it is freed.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, order], env=environment, capture_output=True, text=True, check=True
    )
    geometry = Geometry((SIDE,) * 3, (1.0, 1.0, 1.0), tuple(0.005 * echo for echo in range(1, ECHOES + 1)))
    declared = stage.memory(geometry, {**stage.parameters, **parameters})
    measured = int(done.stdout)
    assert declared / 1.25 <= measured <= declared


def test_declarations_grow_with_what_costs():
    def scan(spacing, echoes=2):
        return Geometry((50, 60, 40), (spacing,) * 3, tuple(0.01 * echo for echo in range(1, echoes + 1)))

    assert memory.offset_removal(scan(1.0, 12), {}) > memory.offset_removal(scan(1.0, 2), {})
    volume = 4 * 50 * 60 * 40
    template = memory.spanning_tree(scan(1.0), {"mode": "template"})
    assert memory.spanning_tree(scan(1.0), {"mode": "individual"}) - template == pytest.approx(volume)
