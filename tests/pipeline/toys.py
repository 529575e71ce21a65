"""A small table of methods whose results can be worked out by hand."""

import numpy as np

from qsm_dask.kernels.solved import Solved
from qsm_dask.scan import Geometry
from qsm_dask.stages import Stage


def threshold(magnitude, /, *, level: float = 0.5):
    return magnitude[0] > level


def field(phase, mask, te, /, *, scale: float = 1.0):
    return (phase[0] / np.float32(te[0]) * mask * np.float32(scale)).astype(np.float32)


def peel(total_field, mask, /, *, depth: int = 1):
    smaller = mask.copy()
    smaller[:depth] = False
    return total_field * smaller, smaller


def peel_slowly(total_field, mask, /):
    return *peel(total_field, mask), Solved(7, 0.25, True)


def invert(local_field, mask, /, *, gain: float = 2.0):
    return local_field * np.float32(gain), Solved(3, 0.5, True)


def decay(magnitude, te, mask, /):
    return magnitude[-1] * mask


def regions(mask, chi=None, dseg=None, r2star=None, /):
    return np.zeros(1, dtype=np.int64), np.full((2, 1, 10), np.nan if chi is None else float(chi.sum()))


def hollow(local_field, mask, /):
    return np.full_like(local_field, np.nan)


def pick(chi, /, *, labels: tuple[int, ...]):
    return chi - labels[0]


def shrink(mask, /):
    smaller = mask.copy()
    smaller[-1:] = False
    return smaller


def split(local_field, /):
    return local_field, np.zeros(3)


def two_echoes(geometry: Geometry) -> str | None:
    return None if geometry.echoes >= 2 else f"needs 2 echoes, the scan has {geometry.echoes}"


def one_volume(geometry, parameters):
    return 4 * geometry.voxels


TOYS = {
    "mask.level": Stage(threshold, ("mask",), one_volume),
    "field.first": Stage(field, ("total_field",), one_volume),
    "background.peel": Stage(peel, ("local_field", "mask"), one_volume),
    "background.slow": Stage(peel_slowly, ("local_field", "mask"), one_volume),
    "inversion.gain": Stage(invert, ("chi",), one_volume, "10.1000/182"),
    "inversion.hollow": Stage(hollow, ("chi",), one_volume),
    "relaxometry.decay": Stage(decay, ("r2star",), one_volume, applies=two_echoes),
    "mask.shrink": Stage(shrink, ("mask",), one_volume),
    "inversion.split": Stage(split, ("chi", "chi_reference"), one_volume),
    "reference.pick": Stage(pick, ("chi",), one_volume),
    "roi.sum": Stage(regions, ("region_labels", "region_values"), one_volume),
}
STEPS = [
    "mask.level",
    {"field.first": {"scale": 2.0}},
    "background.peel",
    "inversion.gain",
    "relaxometry.decay",
    "roi.sum",
]
