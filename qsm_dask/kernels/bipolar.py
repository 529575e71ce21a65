"""Removing what read-outs of alternating polarity leave in the phase."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsm_dask.kernels import series
from qsm_dask.kernels.jit import compiled
from qsm_dask.kernels.relaxometry import equispaced
from qsm_dask.kernels.series import Mask, Real, Times

_TURN = 2 * np.pi
_STEPS = 6
"""Steps from the slopes between neighbours to the best plane; each gains digits, and three are enough."""


def bipolar(phase: NDArray[Any], mask: NDArray[Any], te: ArrayLike, magnitude: NDArray[Any] | None = None, /) -> Real:
    """Remove the linear phase by which odd and even echoes of a bipolar read-out differ.

    Gradient delays shift the echo in k-space towards one end of the read-out and, as polarity
    alternates, to the other, so phase_e = rate TE_e + offset - (-1)^e g with g linear in space
    (e counted from 1). Of three echoes at equal distances, 2 phase_2 - phase_1 - phase_3 = -4 g
    knows neither the field nor the offset, and needs no unwrapping. The plane that best fits it
    over the mask, as a complex number weighted by the inverse of its variance, is taken from every
    echo with its sign. Any direction is allowed, so the read-out axis need not be known.

    Use it before `offset.mcpc3ds`. A constant difference between polarities beyond half pi to
    either side cannot be told from one that is pi less. Data without an artefact stay as they are,
    but for noise.

    Parameters
    ----------
    phase : (echo, x, y, z) wrapped phase [rad] of three echoes or more, alternating in polarity.
    mask : (x, y, z).
    te : (echo,) echo times [s], equally spaced within 1 %.
    magnitude : (echo, x, y, z) or None: all echoes and voxels count alike.

    Returns
    -------
    float32 (echo, x, y, z) wrapped phase without the artefact [rad], zero outside the mask.

    Raises
    ------
    ValueError : fewer than three echoes or unequal spacing, shapes or echo counts that disagree,
        an empty mask, NaN or infinite values inside it, or a magnitude that is zero throughout it.

    References
    ----------
    K. Eckstein et al., Magn. Reson. Med. 2018, doi:10.1002/mrm.26963
    """
    times = series.echo_times(te, at_least=3)
    if not equispaced(times):
        raise ValueError(f"te is {times.tolist()}: bipolar read-outs are corrected for equally spaced echoes only")
    inside = series.inside(mask)
    wrapped = series.echoes("phase", phase, times, inside)
    strength = series.brightness(magnitude, times, inside)
    plane = _plane(wrapped, strength, inside)
    removed = np.zeros(wrapped.shape, dtype=np.float32)
    _remove(wrapped, inside, plane / 4, removed)
    return removed


def _plane(wrapped: Real, strength: Real | None, inside: Mask) -> Times:
    """Value at the centre of the image and slopes along the axes [rad, rad/voxel] of 4 g."""
    like = wrapped if strength is None else strength
    real, imaginary = np.zeros(inside.shape, np.float32), np.zeros(inside.shape, np.float32)
    _differences(wrapped, like, strength is not None, inside, real, imaginary)
    plane = np.concatenate([[0.0], np.angle(_slopes(real, imaginary))])
    for step in range(_STEPS):
        normal, pull, mean = _pulls(real, imaginary, inside, plane)
        if step == 0:
            # The rest of the plane is only known once its value at the centre is.
            plane[0] = np.angle(mean)
        else:
            plane += np.linalg.lstsq(normal, pull, rcond=1e-10)[0]
    plane[0] -= _TURN * np.rint(plane[0] / _TURN)
    return plane


@compiled
def _differences(phase: Real, magnitude: Real, weighted: bool, inside: Mask, real: Real, imaginary: Real) -> None:
    """The sum over triplets of echoes of exp(4 i g), by the inverse of the variance of its phase."""
    echoes, nx, ny, nz = phase.shape
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                if not inside[x, y, z]:
                    continue
                re, im, sign = 0.0, 0.0, -1.0
                for echo in range(echoes - 2):
                    angle = sign * (2 * phase[echo + 1, x, y, z] - phase[echo, x, y, z] - phase[echo + 2, x, y, z])
                    weight = 1.0
                    if weighted:
                        a = max(0.0, float(magnitude[echo, x, y, z])) ** 2
                        b = max(0.0, float(magnitude[echo + 1, x, y, z])) ** 2
                        c = max(0.0, float(magnitude[echo + 2, x, y, z])) ** 2
                        below = b * c + 4 * a * c + a * b
                        weight = a * b * c / below if below > 0 else 0.0
                    re += weight * np.cos(angle)
                    im += weight * np.sin(angle)
                    sign = -sign
                real[x, y, z] = re
                imaginary[x, y, z] = im


@compiled
def _slopes(real: Real, imaginary: Real) -> NDArray[np.complex128]:
    """The sum of each number times the conjugate of its neighbour's below, along each axis."""
    nx, ny, nz = real.shape
    sums = np.zeros(3, np.complex128)
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                here = complex(real[x, y, z], imaginary[x, y, z])
                if x > 0:
                    sums[0] += here * complex(real[x - 1, y, z], -imaginary[x - 1, y, z])
                if y > 0:
                    sums[1] += here * complex(real[x, y - 1, z], -imaginary[x, y - 1, z])
                if z > 0:
                    sums[2] += here * complex(real[x, y, z - 1], -imaginary[x, y, z - 1])
    return sums


@compiled
def _pulls(real: Real, imaginary: Real, inside: Mask, plane: Times) -> tuple[NDArray[np.float64], Times, complex]:
    """Normal matrix and right side of a step towards the best plane, and the mean number beside the plane."""
    nx, ny, nz = real.shape
    normal, pull, mean = np.zeros((4, 4)), np.zeros(4), 0j
    at = np.ones(4)
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                if not inside[x, y, z]:
                    continue
                at[1], at[2], at[3] = x - (nx - 1) / 2, y - (ny - 1) / 2, z - (nz - 1) / 2
                angle = plane[0] + plane[1] * at[1] + plane[2] * at[2] + plane[3] * at[3]
                rest = complex(real[x, y, z], imaginary[x, y, z]) * complex(np.cos(angle), -np.sin(angle))
                weight = abs(rest)
                mean += rest
                for i in range(4):
                    pull[i] += rest.imag * at[i]
                    for j in range(i + 1):
                        normal[i, j] += weight * at[i] * at[j]
    for i in range(4):
        for j in range(i):
            normal[j, i] = normal[i, j]
    return normal, pull, mean


@compiled
def _remove(phase: Real, inside: Mask, plane: Times, removed: Real) -> None:
    """Take the plane from the first echo, add it to the second, and so on."""
    echoes, nx, ny, nz = phase.shape
    sign = 1.0
    for echo in range(echoes):
        for x in range(nx):
            for y in range(ny):
                for z in range(nz):
                    if inside[x, y, z]:
                        along = plane[1] * (x - (nx - 1) / 2) + plane[2] * (y - (ny - 1) / 2)
                        along += plane[0] + plane[3] * (z - (nz - 1) / 2)
                        angle = phase[echo, x, y, z] - sign * along
                        removed[echo, x, y, z] = angle - _TURN * np.rint(angle / _TURN)
        sign = -sign
