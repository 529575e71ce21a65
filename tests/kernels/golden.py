"""Golden values: a few numbers of each stage on a fixed input, kept with the stage's version in `golden.json`.

Stored results of a cohort are recomputed only when a stage's version changes, so results may
not change without it. After a deliberate change, raise `version` in `qsm_dask/stages.py`, then run
`python -m tests.kernels.golden`. A new stage is one function in `CASES`.
"""

import json
import sys
from pathlib import Path

import numpy as np

from qsm_dask.stages import STAGES
from tests.kernels import fields
from tests.kernels.analytic import OBLIQUE, head, positions

FILE = Path(__file__).with_name("golden.json")
SHAPE, VOXEL_SIZE = (27, 30, 20), (2.0, 2.0, 3.1)


def summary(array):
    """Mean, standard deviation and one linear mixture of every voxel, which no rearrangement leaves alone."""
    values = np.asarray(array, np.float64).ravel()
    values = values[np.isfinite(values)]
    mixture = np.cos(0.7 * np.arange(values.size))
    return [float(values.mean()), float(values.std()), float(mixture @ values / values.size)]


def of_fields(stage, field, *others, **parameters):
    outputs = STAGES[stage].kernel(field, *others, **parameters)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return [number for output in outputs[: len(STAGES[stage].outputs)] for number in summary(output)]


def background(stage):
    _, local, mask = head(SHAPE, VOXEL_SIZE, OBLIQUE, noise=0.0005)
    x, y, z = positions(SHAPE, VOXEL_SIZE)
    total = local + 0.002 * x + (2 * z**2 - x**2 - y**2) / 5000
    given = {"total_field": total.astype(np.float32), "mask": mask, "voxel_size": VOXEL_SIZE, "b0_dir": OBLIQUE}
    return of_fields(stage, *(given[name] for name in STAGES[stage].inputs if name in given))


def inversion(stage):
    _, local, mask = head(SHAPE, VOXEL_SIZE, OBLIQUE, noise=0.0005)
    return of_fields(stage, local.astype(np.float32), mask, VOXEL_SIZE, OBLIQUE)


def nonlinear(stage):
    _, local, mask = head(SHAPE, VOXEL_SIZE, OBLIQUE, noise=0.0005)
    x, y, _ = positions(SHAPE, (0.02, 0.02, 0.02))
    magnitude = (np.array([4, 3])[:, None, None, None] * (2 + x - y + (local > 0.005))).astype(np.float32)
    return of_fields(stage, local.astype(np.float32), mask, VOXEL_SIZE, OBLIQUE, 3.0, (0.01, 0.02), magnitude)


def separated(stage):
    chi, local, mask = head(SHAPE, VOXEL_SIZE, OBLIQUE, noise=0.0005)
    rate = (137 * (np.abs(chi) + 0.03 * mask)).astype(np.float32)
    return of_fields(stage, local.astype(np.float32), rate, mask, VOXEL_SIZE, OBLIQUE, 3.0)


def single_step(stage):
    _, local, mask = head(SHAPE, VOXEL_SIZE, OBLIQUE, noise=0.0005)
    te = np.array([0.004, 0.011])
    phase = fields.wrap(np.multiply.outer(2 * np.pi * fields.HZ_PER_PPM_PER_T * 3.0 * te, local))
    given = {"phase": phase, "mask": mask, "te": te, "b0": 3.0, "voxel_size": VOXEL_SIZE, "b0_dir": OBLIQUE}
    read = [given[name] for name in STAGES[stage].inputs if name in given]
    return of_fields(stage, *read, max_iterations=60)


def two_maps(stage):
    chi, field, mask = head(SHAPE, VOXEL_SIZE)
    chi, field = chi.astype(np.float32), field.astype(np.float32)
    return of_fields(stage, chi, mask, field, mask & (np.abs(chi) < 0.05))


def whole_brain(stage):
    chi, _, mask = head(SHAPE, VOXEL_SIZE)
    return of_fields(stage, chi.astype(np.float32), mask)


def region(stage):
    chi, _, mask = head(SHAPE, VOXEL_SIZE)
    return of_fields(stage, chi.astype(np.float32), (chi > 0.01).astype(np.int32), mask, labels=(1,))


def fluid(stage):
    chi, _, mask = head(SHAPE, VOXEL_SIZE)
    rate = np.where(np.abs(chi) < 0.02, 2.0, 20.0).astype(np.float32)
    return of_fields(stage, chi.astype(np.float32), mask, VOXEL_SIZE, rate)


def scanned(stage):
    """A noisy head in four echoes with a phase offset; each stage reads of it what its signature names."""
    image, brain = fields.head(SHAPE)
    te = np.array([0.005, 0.011, 0.017, 0.023])
    rng = np.random.default_rng(1)
    x, _, z = positions(SHAPE, (0.1, 0.1, 0.1))
    decay = np.exp(-np.multiply.outer(te, 25 + 10 * x + 0 * image))
    signal = image * decay * np.exp(1j * (fields.accrued(fields.smooth(SHAPE, 7, 1.0) / 0.012, te) + 0.5 + z))
    signal = signal + 0.03 * (rng.standard_normal(signal.shape) + 1j * rng.standard_normal(signal.shape))
    phase, magnitude = np.angle(signal).astype(np.float32), np.abs(signal).astype(np.float32)
    dseg = np.where(brain, np.arange(SHAPE[0])[:, None, None] // 5 + 11, 0)
    given = {
        "phase": phase,
        "unwrapped_phase": phase * np.float32(1.7),
        "magnitude": magnitude,
        "te": te,
        "b0": 3.0,
        "voxel_size": (6.0, 6.0, 9.0),
        "mask": image > 0.5,
        "affine": np.diag([6.0, 6.0, 9.0, 1.0]),
        "dseg": dseg,
        "chi": phase[0],
        "r2star": 30 * magnitude[1],
        "swi": magnitude[0],
        "t2star": magnitude[1] / 30,
        "total_field": phase[2] / 9,
        "probseg": np.minimum(magnitude[:2], 1),
        "probseg_labels": np.array([12, 900]),
        "r2": 20 * magnitude[2],
        "r2prime": 10 * magnitude[1],
        "chi_para": np.abs(phase[0]),
        "chi_dia": -np.abs(phase[1]),
        "field_noise": 1 / np.maximum(magnitude[0], np.float32(0.1)),
        "phase_residual": np.abs(phase[1]) / 7,
    }
    chosen = {
        "mask.erode": {"depth_mm": 7.0},
        "roi.candidates": {"above_ppm": 2.9, "below_ppm": -2.9, "most_mm3": 1e5, "least_voxels": 1},
    }
    parameters = chosen.get(stage, {})
    return of_fields(stage, *(given[name] for name in STAGES[stage].inputs), **parameters)


def coils(stage):
    """Three coils around the noisy head of `scanned`, in three echoes."""
    image, _ = fields.head(SHAPE)
    te = np.array([0.005, 0.011, 0.017])
    x, y, z = positions(SHAPE, (0.1, 0.1, 0.1))
    phase = fields.accrued(fields.smooth(SHAPE, 7, 1.0) / 0.012, te)
    rng = np.random.default_rng(1)
    images = [
        image * (1.5 + slope) * np.exp(1j * (phase + number + slope)) + 0.03 * rng.standard_normal((3, *SHAPE))
        for number, slope in enumerate((0.4 * x, 0.5 * y, -0.3 * z))
    ]

    def stream(part):
        return lambda echoes: (part(volume).astype(np.float32) for coil in images for volume in coil[:echoes])

    return of_fields(stage, stream(np.angle), stream(np.abs), te, (6.0, 6.0, 9.0))


CASES = {
    "coils.mcpc3ds": coils,
    **dict.fromkeys(
        (
            "mask.magnitude",
            "mask.phase_quality",
            "mask.erode",
            "mask.field_quality",
            "offset.mcpc3ds",
            "offset.bipolar",
            "unwrap.romeo",
            "unwrap.laplacian",
            "field.weighted_mean",
            "field.linear_fit",
            "field.nonlinear_fit",
            "relaxometry.arlo",
            "relaxometry.loglinear",
            "relaxometry.nonlinear",
            "relaxometry.t2star",
            "relaxometry.r2prime",
            "weighting.swi",
            "weighting.mip",
            "roi.statistics",
            "roi.candidates",
        ),
        scanned,
    ),
    **dict.fromkeys(
        [f"background.{name}" for name in ("lbv", "tfi", "pdf", "sharp", "resharp", "ismv", "vsharp")], background
    ),
    "inversion.tkd": inversion,
    "inversion.tsvd": inversion,
    "inversion.tikhonov": inversion,
    "inversion.rts": inversion,
    "inversion.tv": inversion,
    "inversion.fansi": nonlinear,
    "inversion.hdqsm": nonlinear,
    "inversion.ilsqr": inversion,
    "inversion.l1": nonlinear,
    "inversion.medi": nonlinear,
    "inversion.ndi": nonlinear,
    "inversion.star": inversion,
    "inversion.whqsm": nonlinear,
    "separation.r2prime": separated,
    "separation.r2star": separated,
    "background.harperella": single_step,
    "inversion.tgv": single_step,
    "inversion.two_pass": two_maps,
    "reference.whole_brain": whole_brain,
    "reference.region": region,
    "reference.csf": fluid,
}
"""Stage: a function of its name that returns its numbers."""


def differs(kept, now):
    """Whether numbers changed by more than processors differ."""
    return len(kept) != len(now) or not np.allclose(kept, now, rtol=1e-3, atol=1e-4 * np.abs(now).max())


def main():
    """Write the numbers of new stages and of stages whose version was raised."""
    rows = json.loads(FILE.read_text()) if FILE.exists() else {}
    for stage, case in CASES.items():
        row = {"version": STAGES[stage].version, "values": case(stage)}
        kept = rows.get(stage, {"version": 0, "values": []})
        if kept["version"] == row["version"] and differs(kept["values"], row["values"]):
            sys.exit(f"{stage} changed its results: raise its version in qsm_dask/stages.py first")
        if kept["version"] != row["version"]:
            rows[stage] = row
    FILE.write_text(json.dumps(dict(sorted(rows.items())), indent=1) + "\n")


if __name__ == "__main__":
    main()
