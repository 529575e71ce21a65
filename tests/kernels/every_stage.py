"""One small oblique head in every quantity that a stage can read, and ways to turn it into an edge case.

The voxels are anisotropic, every length is odd or differs from the others, echoes are unevenly
spaced: what a stage makes of it is an edge case already.
"""

import numpy as np

from qsm_dask import stages
from qsm_dask.quantities import SPACE, base_name, quantity
from qsm_dask.scan import Geometry
from tests.kernels import analytic, fields

STAGES = {name: stage for name, stage in stages.STAGES.items() if name not in stages.ANATOMY}
"""Every kernel; the tools that anatomy adapts have tests of their own."""

SHAPE, VOXEL_SIZE = (25, 28, 21), (3.0, 2.6, 3.9)
TE = (0.004, 0.009, 0.013, 0.02)
EVEN_TE = (0.004, 0.009, 0.014, 0.019)
COILS = 3
PARAMETERS = {
    "reference.region": {"labels": (1, 2)},
    "reference.csf": {"labels": (1, 2)},
    "mask.erode": {"depth_mm": 4.0},
    "roi.candidates": {"above_ppm": 0.02, "below_ppm": -0.015, "most_mm3": 1e6, "rim_mm": 0.0},
    "mask.phase_quality": {"threshold": 0.2},
}
"""What has no default, or one that does nothing to so small a head."""

_MOST = 12
"""Iterations: enough to meet every line of a solver, too few to converge."""


def head(te=TE):
    """Every quantity by name; coils as arrays (coil, echo, x, y, z)."""
    chi, local, mask = analytic.head(SHAPE, VOXEL_SIZE, analytic.OBLIQUE)
    x, y, z = analytic.positions(SHAPE, VOXEL_SIZE)
    total = local + 0.001 * x + (2 * z**2 - x**2 - y**2) / 4e4
    rng = np.random.default_rng(5)
    times = np.array(te)
    rate = 20 + 100 * np.abs(chi)
    tissue = mask * (1 + 0.002 * x - 0.003 * y + 2 * chi)
    accrued = 2 * np.pi * fields.HZ_PER_PPM_PER_T * 3.0 * np.multiply.outer(times, total)
    signal = tissue * np.exp(-np.multiply.outer(times, rate)) * np.exp(1j * (accrued + 0.4 + 0.01 * x))

    def noisy(clean):
        return clean + 0.004 * (rng.standard_normal(clean.shape) + 1j * rng.standard_normal(clean.shape))

    coils = np.stack(
        [noisy(signal * (1.5 + part) * np.exp(1j * (part + n))) for n, part in enumerate((x / 80, y / 70, -z / 90))]
    )
    signal = noisy(signal)
    noise = 0.002 * (1 + rng.random(SHAPE))
    float32 = {
        "phase": np.angle(signal),
        "magnitude": np.abs(signal),
        "coil_phase": np.angle(coils),
        "coil_magnitude": np.abs(coils),
        "unwrapped_phase": accrued + 0.02 * rng.standard_normal(accrued.shape),
        "total_field": total + 0.0005 * rng.standard_normal(SHAPE),
        "local_field": local + 0.0005 * rng.standard_normal(SHAPE),
        "field_noise": noise,
        "phase_residual": 0.1 * rng.random(SHAPE),
        "phase_quality": rng.random(SHAPE),
        "phase_offset": 0.4 + 0.01 * x + 0 * chi,
        "chi": chi + 0.005 * rng.standard_normal(SHAPE),
        "chi_para": np.maximum(chi, 0) + 0.01,
        "chi_dia": np.minimum(chi, 0) - 0.01,
        "r2": 0.6 * rate,
        "r2star": rate,
        "r2prime": 0.4 * rate,
        "t2star": 1 / rate,
        "swi": np.abs(signal[1]),
        "probseg": np.stack([mask * rng.random(SHAPE), np.clip(0.5 + x / 40, 0, 1) * mask]),
    }
    return {name: array.astype(np.float32) for name, array in float32.items()} | {
        "te": times,
        "b0": 3.0,
        "b0_dir": analytic.OBLIQUE.copy(),
        "voxel_size": np.array(VOXEL_SIZE),
        "affine": np.diag([*VOXEL_SIZE, 1.0]),
        "mask": mask,
        "probseg_labels": np.array([2, 40]),
        "dseg": np.where(mask, 1 + (np.arange(SHAPE[0]) * 3 // SHAPE[0])[:, None, None], 0).astype(np.int32),
    }


def geometry(given):
    """What is known of a head before its voxels are read."""
    return Geometry(given["mask"].shape, tuple(map(float, given["voxel_size"])), tuple(map(float, given["te"])))


def runs_on(given):
    """The names of the stages that take such a head."""
    return [name for name, stage in STAGES.items() if stage.applies(geometry(given)) is None]


def of(given, name):
    """A quantity, or the one of which `name` is a branch."""
    return given[name if name in given else base_name(name)]


def run(stage, given, **parameters):
    """What a stage makes of a head, by name; its `Solved` is left out."""
    method = STAGES[stage]
    return dict(zip(method.outputs, returned(stage, given, **parameters)[: len(method.outputs)], strict=True))


def returned(stage, given, **parameters):
    """All that a stage returns, as a tuple."""
    method = STAGES[stage]
    chosen = PARAMETERS.get(stage, {}) | parameters
    if "max_iterations" in method.parameters:
        chosen = {"max_iterations": min(_MOST, method.parameters["max_iterations"])} | chosen
    read = [of(given, name) for name in method.inputs]
    read = [_stream(value) if quantity(n).streamed else value for n, value in zip(method.inputs, read, strict=True)]
    made = method.kernel(*read, **chosen)
    return made if isinstance(made, tuple) else (made,)


def _stream(coils):
    return lambda echoes: (volume for coil in coils for volume in coil[:echoes])


def changed(given, **changes):
    """A copy of a head with some quantities changed by functions."""
    copies = {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in given.items()}
    return copies | {name: change(copies[name]) for name, change in changes.items()}


def turned(given, axes):
    """The same head in other axes."""

    def turn(name, value):
        dims = quantity(name).dims
        if dims == ("axis",):
            return value[list(axes)]
        if name == "affine":
            return np.column_stack([value[:, list(axes)], value[:, 3]])
        if dims[-3:] == SPACE:
            lead = len(dims) - 3
            return np.ascontiguousarray(np.transpose(value, (*range(lead), *(lead + axis for axis in axes))))
        return value

    return {name: turn(name, value) for name, value in given.items()}


def part(given, x=slice(None), y=slice(None), z=slice(None)):
    """A block of a head."""
    return {
        name: np.ascontiguousarray(value[..., x, y, z]) if quantity(name).dims[-3:] == SPACE else value
        for name, value in given.items()
    }


def first_echo(given):
    """A head of one echo."""
    places = {name: quantity(name).dims.index("echo") for name in given if "echo" in quantity(name).dims}
    return given | {name: np.take(given[name], [0], axis=place) for name, place in places.items()}
