"""A parametric head with known truth, and the scanner that images it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsm_dask.phantom.brain import DEEP_GREY, LABELS, resolved
from qsm_dask.phantom.grid import affine_of, voxel_size
from qsm_dask.phantom.head import Head, build_head
from qsm_dask.phantom.scanner import (
    Fields,
    coil_echoes,
    echoes,
    fields_of,
    phase_from_integers,
    phase_to_integers,
    spin_echo_r2,
)
from qsm_dask.phantom.subject import Subject, draw_subject
from qsm_dask.phantom.template import template
from qsm_dask.phantom.tissue import chi_of_iron, iron

__all__ = [
    "DEEP_GREY",
    "DEFAULT_SHAPE",
    "DEFAULT_TE",
    "LABELS",
    "Phantom",
    "Subject",
    "affine_of",
    "check_protocol",
    "chi_of_iron",
    "draw_subject",
    "iron",
    "phase_from_integers",
    "phase_to_integers",
    "resolved",
    "simulate",
    "template",
    "voxel_size",
]

DEFAULT_SHAPE = (96, 112, 80)
DEFAULT_TE = (0.004, 0.009, 0.014, 0.019, 0.024)


@dataclass(frozen=True)
class Phantom:
    """A scan of a known head.

    Attributes
    ----------
    subject : who was scanned.
    arrays : what a scanner delivers, by names of `quantities.RAW`; and `r2`, where spin echoes were asked for.
    truth : `chi`, its parts `chi_para` and `chi_dia`, `local_field`, `total_field`, `r2star`, `r2`, `r2prime`, `mask`,
        `dseg` and `phase_offset`. The fields are those of the noiseless head; `local_field` is that of `chi` inside
        `mask` alone. R2* is R2 and R2', which is what the two parts add by `tissue.r2prime`.
    coils : scans it again with that many receive coils, whose noise is each that of `arrays`, and yields the
        magnitude and phase of one after the other.
    """

    subject: Subject
    arrays: Mapping[str, NDArray[Any]]
    truth: Mapping[str, NDArray[Any]]
    coils: Callable[[int], Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]]


def check_protocol(shape: tuple[int, int, int], te: Sequence[float], b0: float, snr: float) -> None:
    """Refuse what cannot be scanned, before anything is computed.

    Raises
    ------
    ValueError : an unusable shape, echo time, field strength or SNR.
    """
    voxel_size(shape)
    times = np.asarray(te, dtype=np.float64)
    if times.ndim != 1 or times.size == 0 or not times[0] > 0.0 or np.any(np.diff(times) <= 0.0):
        raise ValueError(f"te must be positive and ascending [s], got {tuple(te)}")
    if not times[-1] <= 0.5:
        raise ValueError(f"te is in seconds; {times[-1]:g} s is no echo time")
    if not b0 > 0.0 or not snr > 0.0:
        raise ValueError(f"b0 [T] and snr must be positive, got {b0:g} and {snr:g}")


def simulate(
    number: int,
    seed: int,
    *,
    shape: tuple[int, int, int] = DEFAULT_SHAPE,
    te: Sequence[float] = DEFAULT_TE,
    b0: float = 3.0,
    oblique: bool = False,
    snr: float = 100.0,
    age: float | None = None,
    spin_echo: bool = False,
    calcified: bool = True,
) -> Phantom:
    """Scan subject `number` of the cohort `seed`.

    Parameters
    ----------
    number, seed : the subject; a subject does not depend on how many others there are.
    shape : matrix; the field of view is always 192 x 224 x 160 mm.
    te : echo times [s], ascending.
    b0 : field strength [T].
    oblique : tilt the field of view, the head with it, against B0.
    snr : of the magnitude in the brain at the first echo; `inf` for no noise.
    age : [years]; drawn if not given.
    spin_echo : whether R2 is measured too, by spin echoes of the same noise.
    calcified : whether the head has a calcification, which holds a fifth of the energy of the susceptibility.

    Returns
    -------
    Phantom : arrays and truth.

    Raises
    ------
    ValueError : an unusable shape, echo time, field strength, SNR or age.
    """
    check_protocol(shape, te, b0, snr)
    times = np.asarray(te, dtype=np.float64)
    subject = draw_subject(number, seed, age, calcified=calcified)
    pose = subject.pose if oblique else np.eye(3)
    b0_dir = pose[2].copy()
    head = build_head(subject, shape, b0)
    fields = fields_of(head, b0_dir)
    scan: dict[str, Any] = {"te": times, "b0": b0, "snr": snr}
    rng = np.random.default_rng(subject.scan_seed)
    magnitude, phase, offset = echoes(head, fields, **scan, rng=rng)
    measured = {"r2": spin_echo_r2(head, snr=snr, te=float(times[0]), rng=rng)} if spin_echo else {}
    return Phantom(
        subject,
        {
            **measured,
            "phase": phase,
            "magnitude": magnitude,
            "te": times,
            "b0": np.asarray(b0, dtype=np.float64),
            "b0_dir": b0_dir,
            "voxel_size": np.asarray(head.voxel_size),
            "affine": affine_of(shape, pose),
        },
        {
            "chi": head.chi,
            "chi_para": head.chi + head.dia,
            "chi_dia": np.float32(0.0) - head.dia,
            "local_field": fields.local,
            "total_field": fields.total,
            "r2star": np.where(head.mask, head.r2star, np.float32(0.0)),
            "r2": head.r2,
            "r2prime": np.where(head.mask, head.r2star - head.r2, np.float32(0.0)),
            "mask": head.mask,
            "dseg": head.dseg,
            "phase_offset": offset,
        },
        partial(_coils, head, fields, scan, subject.scan_seed),
    )


def _coils(
    head: Head, fields: Fields, scan: Mapping[str, Any], seed: np.random.SeedSequence, coils: int
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    own = np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, coils))
    rng, coil_rng = np.random.default_rng(seed), np.random.default_rng(own)
    return coil_echoes(head, fields, **scan, rng=rng, coils=coils, coil_rng=coil_rng)
