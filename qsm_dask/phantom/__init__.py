"""A parametric head with known truth, and the scanner that images it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsm_dask.phantom.brain import DEEP_GREY, LABELS, resolved
from qsm_dask.phantom.grid import affine_of, voxel_size
from qsm_dask.phantom.head import build_head
from qsm_dask.phantom.scanner import echoes, fields_of, phase_from_integers, phase_to_integers
from qsm_dask.phantom.subject import Subject, draw_subject
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
    arrays : what a scanner delivers, by names of `quantities.RAW`.
    truth : `chi`, `local_field`, `total_field`, `r2star`, `mask`, `dseg` and `phase_offset`. The fields are those
        of the noiseless head; `local_field` is that of `chi` inside `mask` alone.
    """

    subject: Subject
    arrays: Mapping[str, NDArray[Any]]
    truth: Mapping[str, NDArray[Any]]


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
    rng = np.random.default_rng(subject.scan_seed)
    magnitude, phase, offset = echoes(head, fields, te=times, b0=b0, snr=snr, rng=rng)
    return Phantom(
        subject,
        {
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
            "local_field": fields.local,
            "total_field": fields.total,
            "r2star": np.where(head.mask, head.r2star, np.float32(0.0)),
            "mask": head.mask,
            "dseg": head.dseg,
            "phase_offset": offset,
        },
    )
