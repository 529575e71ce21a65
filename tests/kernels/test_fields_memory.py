"""What background removal, inversion and referencing declare to take, against what a fresh process takes."""

import json
import subprocess
import sys

import pytest

from qsm_dask.scan import Geometry
from qsm_dask.stages import STAGES

CASES = {
    "harperella": ("background.harperella", {}),
    "lbv": ("background.lbv", {}),
    "tfi": ("background.tfi", {"max_iterations": 2}),
    "pdf": ("background.pdf", {"max_iterations": 4}),
    "sharp": ("background.sharp", {}),
    "resharp": ("background.resharp", {"max_iterations": 2}),
    "ismv": ("background.ismv", {"max_iterations": 2}),
    "vsharp": ("background.vsharp", {}),
    "vsharp-wide": ("background.vsharp", {"radius_mm": 40.0, "radius_step_mm": 10.0}),
    "tkd": ("inversion.tkd", {}),
    "tsvd": ("inversion.tsvd", {}),
    "tikhonov": ("inversion.tikhonov", {}),
    "rts": ("inversion.rts", {}),
    "tv": ("inversion.tv", {"max_iterations": 9}),
    "fansi": ("inversion.fansi", {"max_iterations": 5}),
    "fansi-tgv": ("inversion.fansi", {"max_iterations": 3, "regularisation": "tgv"}),
    "hdqsm": ("inversion.hdqsm", {"first_iterations": 3, "max_iterations": 3}),
    "ilsqr": ("inversion.ilsqr", {"max_iterations": 3, "streak_iterations": 3}),
    "l1": ("inversion.l1", {"max_iterations": 5}),
    "medi": ("inversion.medi", {"max_iterations": 2, "cg_iterations": 2}),
    "medi-csf": ("inversion.medi", {"max_iterations": 2, "cg_iterations": 2, "csf_weight": 100.0}),
    "ndi": ("inversion.ndi", {"max_iterations": 3}),
    "star": ("inversion.star", {"max_iterations": 5}),
    "whqsm": ("inversion.whqsm", {"max_iterations": 4}),
    "separation-r2prime": ("separation.r2prime", {"max_iterations": 5}),
    "separation-r2star": ("separation.r2star", {"max_iterations": 5}),
    "tgv": ("inversion.tgv", {"max_iterations": 2}),
    "two_pass": ("inversion.two_pass", {}),
    "whole_brain": ("reference.whole_brain", {}),
    "region": ("reference.region", {"labels": [1]}),
    "csf": ("reference.csf", {}),
    "csf-labels": ("reference.csf", {"labels": [1]}),
}
"""What is measured: a stage and its parameters, by a short name."""

MEASURE = """
import gc, json, sys
import numpy as np
from qsm_dask.kernels import fourier
from qsm_dask.stages import STAGES

name, shape, parameters = json.loads(sys.argv[1])
stage = STAGES[name]

def arrays(shape):
    field = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return dict(total_field=field, local_field=field, chi=field, mask=np.ones(shape, bool),
        magnitude=field[None], phase=field[None], chi_filled=field,
        chi_reliable=field, mask_reliable=np.ones(shape, bool),
        field_noise=np.ones(shape, np.float32), b0=3.0, te=(0.02,),
        r2prime=np.abs(field), r2star=np.abs(field),
        dseg=np.ones(shape, np.int32), voxel_size=np.ones(3), b0_dir=np.array([0, 0.6, 0.8]))

def run(shape):
    given = arrays(shape)
    given = [given[quantity] for quantity in stage.inputs]
    gc.collect()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = peak()["VmRSS"]
    result = stage.kernel(*given, **parameters)
    return peak()["VmHWM"] - before

def peak():
    with open("/proc/self/status") as status:
        return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in status if line.startswith("Vm")}

run((20, 22, 24))
fourier.spectra = fourier.SpectrumCache(fourier.CACHE_BYTES)
print(run(shape))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
@pytest.mark.parametrize("shape", [(128, 128, 128), (192, 160, 160)], ids=["cube", "head"])
@pytest.mark.parametrize(("name", "parameters"), CASES.values(), ids=CASES)
def test_peak_memory_is_what_is_declared(name, parameters, shape):
    """With a mask that fills the image, the worst case; never above and at most a quarter below.

    Of a stage that takes little, the pages that the allocator takes or gives back are more than a quarter.
    """
    order = json.dumps([name, shape, parameters])
    done = subprocess.run([sys.executable, "-c", MEASURE, order], capture_output=True, text=True, check=True)
    stage = STAGES[name]
    bound = stage.memory(Geometry(shape, (1.0, 1.0, 1.0), (0.02,)), {**stage.parameters, **parameters})
    measured = int(done.stdout)
    pages = 2**22 if bound < 2**24 else 0
    assert (bound - pages) / 1.25 <= measured <= bound, f"{measured / bound:.3f} of what is declared"
