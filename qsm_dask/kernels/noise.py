"""How noisy a series is, told from what a fit leaves of it, and what that makes of phase."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri

from qsm_dask.kernels.jit import compiled
from qsm_dask.kernels.series import Mask, Real, Times

_TURN = 2 * np.pi
_UNIFORM = np.pi**2 / 3
"""Variance [rad^2] of phase that is nothing but noise: no phase is noisier."""
SAMPLE = 50_000  # voxels that tell a median well enough


def phase_noise(phase: Real, magnitude: Real | None, inside: Mask, te: Times, intercept: bool) -> float:
    """The noise of the real and imaginary part of a series, in units of its magnitude.

    It is the median, over voxels, of what a straight line in echo time leaves of the unwrapped
    phase, so that voxels whose phase is no line do not count. Without enough echoes for that it
    is the median of a second difference along two axes, which smooth phase does not have.

    Parameters
    ----------
    phase : (echo, x, y, z) unwrapped [rad].
    magnitude : (echo, x, y, z), or None: 1 everywhere, and the noise is that of the phase [rad].
    inside : (x, y, z).
    te : (echo,) [s].
    intercept : whether the line may have an offset.

    Returns
    -------
    The standard deviation; infinite where too few voxels tell.
    """
    freedom = te.size - 1 - intercept
    if freedom < 1:
        return spatial_noise(phase, magnitude, inside)
    sums = _misfits(phase, phase if magnitude is None else magnitude, magnitude is not None, inside, te, intercept)
    return scale_of(sums, freedom) if sums.size else spatial_noise(phase, magnitude, inside)


def residual_noise(residual: Real, magnitude: Real | None, inside: Mask, freedom: int) -> float:
    """As `phase_noise`, from the weighted root mean square misfit [rad] of a fit with `freedom` echoes to spare."""
    like = residual[np.newaxis] if magnitude is None else magnitude
    sums = _squared(residual, like, magnitude is not None, inside, freedom)
    return scale_of(sums, freedom) if sums.size else math.inf


def spatial_noise(phase: Real, magnitude: Real | None, inside: Mask) -> float:
    """As `phase_noise`, from the first echo alone; whole turns between neighbours do no harm.

    References
    ----------
    J. Immerkaer, Comput. Vis. Image Underst. 1996, doi:10.1006/cviu.1996.0060
    """
    like = phase if magnitude is None else magnitude
    sums = _differences(phase[0], like[0], magnitude is not None, inside)
    return scale_of(sums, 1) if sums.size else math.inf


def scale_of(sums: NDArray[np.float64], freedom: int) -> float:
    """The scale of sums of squares that follow a chi-square distribution, by their median."""
    return math.sqrt(float(np.median(sums)) / float(chdtri(freedom, 0.5)))


@compiled
def phase_variance(level: float, magnitude: float) -> float:
    """Variance [rad^2] of the phase of a signal, at most that of noise alone."""
    return min(_UNIFORM, (level / magnitude) ** 2) if magnitude > 0 else _UNIFORM


@compiled
def stride_of(inside: Mask) -> int:
    """Every how manyth voxel makes a sample of `SAMPLE` voxels, or up to twice as many."""
    voxels = 0
    for here in inside.ravel():
        voxels += 1 if here else 0
    return max(1, voxels // SAMPLE)


@compiled
def _misfits(
    phase: Real, magnitude: Real, weighted: bool, inside: Mask, te: Times, intercept: bool
) -> NDArray[np.float64]:
    """Weighted squared misfit of the best line in voxels that have signal in every echo."""
    echoes, nx, ny, nz = phase.shape
    stride, seen, found = stride_of(inside), 0, 0
    sums = np.empty(2 * SAMPLE)
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                if not inside[x, y, z]:
                    continue
                seen += 1
                if seen % stride:
                    continue
                lit = True
                w, wt, wtt, wp, wtp, wpp = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
                for echo in range(echoes):
                    value = float(magnitude[echo, x, y, z]) if weighted else 1.0
                    lit = lit and value > 0
                    here, time, weight = float(phase[echo, x, y, z]), te[echo], value * value
                    w, wt, wtt = w + weight, wt + weight * time, wtt + weight * time * time
                    wp, wtp, wpp = wp + weight * here, wtp + weight * time * here, wpp + weight * here * here
                if not lit:
                    continue
                if intercept:
                    wtt, wtp, wpp = wtt - wt * wt / w, wtp - wt * wp / w, wpp - wp * wp / w
                sums[found] = max(0.0, wpp - wtp * wtp / wtt)
                found += 1
    return sums[:found]


@compiled
def _squared(residual: Real, magnitude: Real, weighted: bool, inside: Mask, freedom: int) -> NDArray[np.float64]:
    """Undo the mean of a root mean square misfit, in voxels that have signal in every echo."""
    nx, ny, nz = inside.shape
    stride, seen, found = stride_of(inside), 0, 0
    echoes = magnitude.shape[0] if weighted else freedom + 2
    sums = np.empty(2 * SAMPLE)
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                if not inside[x, y, z]:
                    continue
                seen += 1
                if seen % stride:
                    continue
                weight, lit = float(echoes), True
                if weighted:
                    weight = 0.0
                    for echo in range(echoes):
                        value = float(magnitude[echo, x, y, z])
                        lit = lit and value > 0
                        weight += value * value
                if lit:
                    sums[found] = weight * float(residual[x, y, z]) ** 2
                    found += 1
    return sums[:found]


@compiled
def _differences(phase: Real, magnitude: Real, weighted: bool, inside: Mask) -> NDArray[np.float64]:
    """Squared second differences along x and y, over what noise of 1 makes of them."""
    nx, ny, nz = inside.shape
    stride, seen, found = stride_of(inside), 0, 0
    sums = np.empty(2 * SAMPLE)
    for x in range(1, nx - 1):
        for y in range(1, ny - 1):
            for z in range(nz):
                if not inside[x, y, z]:
                    continue
                seen += 1
                if seen % stride:
                    continue
                total, variance, whole = 0.0, 0.0, True
                for i in range(-1, 2):
                    for j in range(-1, 2):
                        value = float(magnitude[x + i, y + j, z]) if weighted else 1.0
                        whole = whole and inside[x + i, y + j, z] and value > 0
                        if whole:
                            factor = float((3 * i * i - 2) * (3 * j * j - 2))
                            total += factor * phase[x + i, y + j, z]
                            variance += (factor / value) ** 2
                if whole:
                    total -= _TURN * np.rint(total / _TURN)
                    sums[found] = total * total / variance
                    found += 1
    return sums[:found]
