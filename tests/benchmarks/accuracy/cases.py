"""Scans whose truth is known: the project's own heads, and cylinders that `qsm-forward` images."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsm_dask import phantom
from qsm_dask.kernels import decay, masking
from qsm_dask.kernels.dipole import forward_field
from qsm_dask.kernels.fieldmap import weighted_mean
from qsm_dask.kernels.inversion.rts import rts
from qsm_dask.scan import Geometry
from qsm_dask.units import radians_per_ppm

CORE_MM = 6.0
AIR_PPM = 9.4


@dataclass(frozen=True)
class Case:
    """A scan and all that is true of it.

    Attributes
    ----------
    group : cases of one group are averaged; name : within it.
    scan : what a scanner delivers, R2 of spin echoes included where it was measured.
    known : the true input of every stage, as good as a scan of this noise can deliver it.
    truth : what every stage should find.
    core : the mask less its outer 6 mm.
    regions : labels of `truth["dseg"]` whose means are compared.
    source : the strongest source, for its streaks; empty if there is none.
    """

    group: str
    name: str
    scan: Mapping[str, Any]
    known: Mapping[str, Any]
    truth: Mapping[str, Any]
    core: NDArray[np.bool_]
    regions: Sequence[int]
    source: NDArray[np.bool_]

    @property
    def geometry(self) -> Geometry:
        """What a plan asks for."""
        x, y, z = self.truth["mask"].shape
        dx, dy, dz = (float(v) for v in self.scan["voxel_size"])
        return Geometry((x, y, z), (dx, dy, dz), tuple(float(t) for t in self.scan["te"]))


def head(seed: int, shape: tuple[int, int, int], snr: float, *, calcified: bool, oblique: bool) -> Case:
    """The first subject of a cohort."""
    made = phantom.simulate(1, seed, shape=shape, snr=snr, oblique=oblique, calcified=calcified, spin_echo=True)
    labels = made.truth["dseg"]
    spacing = phantom.voxel_size(shape)
    number = next(label for label, name in phantom.LABELS.items() if name == "calcification")
    truth = {**made.truth, "t2star": _t2star(made.truth["r2star"])}
    return _case(
        "calcified heads" if calcified else "heads without calcification",
        f"seed {seed}",
        made.arrays,
        truth,
        [label for label in phantom.DEEP_GREY if phantom.resolved(label, spacing) and (labels == label).any()],
        labels == number,
    )


def forward(kind: str) -> Case:
    """Cylinders of 5 to 500 ppb, imaged by the functions of `qsm-forward`; a ball of air lies outside them.

    `axial` has voxels of 1 mm at 3 T; `oblique` has 0.8 x 0.8 x 1.6 mm, tilted by 32.5 degrees, at 7 T. The signal
    decays alike in all of them, so that there is no R2' of the sources, and no true source to be separated.
    """
    import qsm_forward  # of the extra `evidence`

    from tests import forward_datasets

    oblique = kind == "oblique"
    voxel, b0 = ((0.8, 0.8, 1.6), 7.0) if oblique else ((1.0, 1.0, 1.0), 3.0)
    tilt = forward_datasets.TILT if oblique else 0.0
    b0_dir = np.array([0.0, math.sin(tilt), math.cos(tilt)])
    fine = forward_datasets.phantom()
    chi, air = (_thick(part, 2 if oblique else 1) for part in (fine, _ball(fine.shape)))
    mask = chi != 0.0
    local, everything = (
        qsm_forward.generate_field(sources, voxel_size=list(voxel), B0_dir=b0_dir) for sources in (chi, chi + air)
    )
    total = qsm_forward.generate_shimmed_field(everything, mask, order=2)[1]
    offset = qsm_forward.generate_phase_offset(mask.astype(float), mask, mask.shape)
    rng = np.random.default_rng(7)
    signals = [
        qsm_forward.add_noise(forward_datasets.echo_of(total, mask, offset, te, b0), peak_snr=100, rng=rng)
        for te in forward_datasets.ECHOES
    ]
    labels = np.zeros(mask.shape, np.int32)
    for label, value in enumerate((0.05, 0.1, 0.2, 0.5), start=1):
        labels[np.abs(chi - value) < 0.1 * value] = label
    scan = {
        "phase": np.stack([np.angle(signal) for signal in signals]).astype(np.float32),
        "magnitude": np.stack([np.abs(signal) for signal in signals]).astype(np.float32),
        "te": np.asarray(forward_datasets.ECHOES, dtype=np.float64),
        "b0": np.asarray(b0),
        "b0_dir": b0_dir,
        "voxel_size": np.array(voxel),
        "affine": np.diag([*voxel, 1.0]),
    }
    truth = {
        "chi": chi.astype(np.float32),
        "local_field": local.astype(np.float32),
        "total_field": total.astype(np.float32),
        "r2star": np.where(mask, np.float32(50.0), np.float32(0.0)),
        "t2star": np.where(mask, np.float32(0.02), np.float32(0.0)),
        "mask": mask,
        "dseg": labels,
        "phase_offset": offset.astype(np.float32),
    }
    return _case("qsm-forward", kind, scan, truth, [1, 2, 3, 4], labels == 4)


def two_maps(case: Case) -> dict[str, Any]:
    """What `inversion.two_pass` joins: maps of the whole mask and of its reliable voxels, both by `inversion.rts`.

    The sources in the other voxels are background to the reliable ones, of which a perfect removal leaves nothing.
    """
    known, mask = case.known, case.known["mask"]
    reliable = masking.field_quality(mask, known["field_noise"])
    place = known["voxel_size"], known["b0_dir"]
    strong = forward_field(np.where(reliable, np.float32(0.0), case.truth["chi"]), *place)
    return {
        "chi_filled": rts(known["local_field"], mask, *place)[0],
        "chi_reliable": rts((known["local_field"] - strong) * reliable, reliable, *place)[0],
        "mask_reliable": reliable,
    }


def _thick(volume: NDArray[np.float64], slices: int) -> NDArray[np.float64]:
    """Means of so many slices, as thicker ones hold them."""
    x, y, z = volume.shape
    averaged: NDArray[np.float64] = volume.reshape(x, y, z // slices, slices).mean(axis=3)
    return averaged


def _ball(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Air in a ball of 9 voxels, 7 from the cylinders: as near as phase can still be unwrapped."""
    place = np.indices(shape) - np.array([88, 88, 60]).reshape(3, 1, 1, 1)
    return AIR_PPM * ((place**2).sum(axis=0) < 9.0**2)


def _t2star(r2star: NDArray[np.float32]) -> NDArray[np.float32]:
    """As long as echoes can tell: the largest time that `relaxometry.t2star` returns is 0.5 s."""
    return np.where(r2star > 0.0, 1.0 / np.maximum(r2star, 2.0), 0.0).astype(np.float32)


def _case(
    group: str,
    name: str,
    scan: Mapping[str, Any],
    truth: dict[str, Any],
    regions: Sequence[int],
    source: NDArray[np.bool_],
) -> Case:
    """Complete a case: the true input of each stage is the truth with the noise of this scan on it.

    A perfect unwrapping finds the measured phase plus whole turns, next to the true phase. A perfect removal of the
    background leaves the local field, and the noise of the total field. R2* is what least squares make of the
    magnitude, and R2' what it has over the measured R2.
    """
    mask, te, b0 = truth["mask"], scan["te"], float(scan["b0"])
    inside = mask.astype(np.float32)
    exact = np.stack([np.float32(radians_per_ppm(b0, float(time))) * truth["total_field"] for time in te])
    noise = np.angle(np.exp(1j * (scan["phase"] - truth["phase_offset"] - exact)))
    truth["unwrapped_phase"] = ((exact + noise) * inside).astype(np.float32)
    phase = np.angle(np.exp(1j * (scan["phase"] - truth["phase_offset"]))).astype(np.float32)
    total, deviation = weighted_mean(truth["unwrapped_phase"], mask, te, b0, scan["magnitude"])
    background = (truth["total_field"] - truth["local_field"]) * inside
    r2star, _ = decay.nonlinear(scan["magnitude"], te, mask)
    known = {
        **scan,
        "phase": phase,
        "dseg": truth["dseg"],
        "mask": mask,
        "unwrapped_phase": truth["unwrapped_phase"],
        "total_field": total,
        "field_noise": deviation,
        "local_field": total - background,
        "r2star": r2star,
        **({"r2prime": decay.r2prime(r2star, scan["r2"], mask)} if "r2" in scan else {}),
    }
    core = masking.erode(mask, scan["voxel_size"], depth_mm=CORE_MM)
    return Case(group, name, scan, known, truth, core, regions, source & mask)
