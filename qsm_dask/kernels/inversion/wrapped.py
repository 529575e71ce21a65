"""The local field as what was measured: a phase that is known up to whole turns, with weights.

Nonlinear inversions compare exp(i D chi) with exp(i field), so that a turn lost in unwrapping and
the noise of a dark voxel do no harm that spreads. For that the field is taken back to radians, and
from there on it is a phase: whole turns of the field are nowhere told apart.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsm_dask.kernels import series
from qsm_dask.kernels.doors import Mask
from qsm_dask.kernels.fourier import Volume
from qsm_dask.kernels.jit import compiled, prange, spread
from qsm_dask.units import radians_per_ppm

_BRIGHTEST = 2.0
"""Largest squared weight, the median being 1: gradient steps must be stable where a coil makes the image bright."""


@dataclass(frozen=True)
class WrappedField:
    """Phase and squared weights on the scan's own grid, zero outside the mask.

    Attributes
    ----------
    phase : of the local field after the effective echo time, within half a turn [rad].
    weight : squared, relative to the median inside the mask, at most 2.
    scale : radians per ppm.
    """

    phase: Volume
    weight: Volume
    scale: float


def effective_te(te: ArrayLike) -> float:
    """The time [s] over which a field accrues one turn where a fit over the echoes is ambiguous.

    The mean spacing of the echoes, or the echo time if there is one only.

    Raises
    ------
    ValueError : te is no list of ascending echo times.
    """
    times = series.echo_times(te)
    return float(times[0]) if times.size == 1 else float((times[-1] - times[0]) / (times.size - 1))


def wrapped_field(
    local_field: NDArray[np.float32],
    inside: Mask,
    b0: ArrayLike,
    te: ArrayLike,
    magnitude: NDArray[np.float32] | None,
    field_noise: NDArray[np.float32] | None,
) -> WrappedField:
    """The phase of a local field, and the weights of its voxels.

    Parameters
    ----------
    local_field : relative field (x, y, z) [ppm].
    inside : voxels where it is known.
    b0 : field strength [T].
    te : echo times [s].
    magnitude : of each echo; the weight squared is sum (magnitude * te)^2, the inverse of the variance of the field.
    field_noise : standard deviation of the field [ppm]; its inverse is the weight, in place of the magnitude's.

    Raises
    ------
    ValueError : inputs do not fit one another, are not finite inside the mask, or noise is not positive there.
    """
    times = series.echo_times(te)
    scale = radians_per_ppm(series.field_strength(b0), effective_te(times))
    field = series.volume("local_field", local_field, inside)
    phase, weight = np.zeros(inside.shape, np.float32), np.zeros(inside.shape, np.float32)
    _wrap(field, inside, scale, phase)
    np.copyto(weight, np.float32(1.0), where=inside)
    if field_noise is not None:
        noise = series.volume("field_noise", field_noise, inside)
        if not (noise[inside] > 0).all():
            raise ValueError("field_noise is not positive in some voxels of the mask: take them out of the mask")
        np.divide(np.float32(1.0), noise, out=weight, where=inside)
        np.square(weight, out=weight)
    elif magnitude is not None:
        _reliability(series.echoes("magnitude", magnitude, times, inside), inside, times, weight)
    median = float(np.median(weight[inside]))
    if not median > 0:
        raise ValueError("magnitude is zero in most of the mask: mask those voxels out, or leave the magnitude away")
    weight /= np.float32(median)
    np.minimum(weight, np.float32(_BRIGHTEST), out=weight)
    return WrappedField(phase, weight, scale)


@spread
def mismatch(field: Volume, phase: Volume, weight: Volume, factor: np.float32, cost: NDArray[np.float64]) -> None:
    """Replace D chi [rad] on the padded grid by factor * weight * sin(D chi - phase), the slope of the misfit.

    `cost` takes the sum of weight * (1 - cos(D chi - phase)) of each plane.
    """
    for i in prange(field.shape[0]):
        _mismatch_plane(field, phase, weight, factor, cost, i)


@compiled
def _mismatch_plane(
    field: Volume, phase: Volume, weight: Volume, factor: np.float32, cost: NDArray[np.float64], i: int
) -> None:
    nx, ny, nz = phase.shape
    if i >= nx:
        field[i] = 0
        return
    total = 0.0
    for j in range(field.shape[1]):
        if j >= ny:
            field[i, j] = 0
            continue
        for m in range(nz):
            squared = weight[i, j, m]
            if squared > 0:
                turn = field[i, j, m] - phase[i, j, m]
                field[i, j, m] = factor * squared * np.sin(turn)
                total += squared * (np.float32(1.0) - np.cos(turn))
            else:
                field[i, j, m] = 0
        field[i, j, nz:] = 0
    cost[i] = total


@compiled
def _wrap(field: Volume, inside: Mask, scale: float, phase: Volume) -> None:
    nx, ny, nz = field.shape
    for i in range(nx):
        for j in range(ny):
            for m in range(nz):
                if inside[i, j, m]:
                    turns = field[i, j, m] * scale / (2 * math.pi)
                    phase[i, j, m] = (turns - np.rint(turns)) * 2 * math.pi


@compiled
def _reliability(magnitude: Volume, inside: Mask, times: NDArray[np.float64], weight: Volume) -> None:
    echoes, nx, ny, nz = magnitude.shape
    for i in range(nx):
        for j in range(ny):
            for m in range(nz):
                if inside[i, j, m]:
                    total = 0.0
                    for echo in range(echoes):
                        value = magnitude[echo, i, j, m] * times[echo]
                        total += value * value
                    weight[i, j, m] = total
