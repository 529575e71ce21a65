"""Straight lines through the phase of a voxel's echoes, weighted by squared magnitude: slope, misfit and noise."""

import numpy as np

from qsm_dask.kernels.jit import compiled
from qsm_dask.kernels.noise import phase_variance
from qsm_dask.kernels.series import Mask, Real, Times


@compiled
def weigh(
    magnitude: Real, weighted: bool, te: Times, x: int, y: int, z: int, intercept: bool, weights: Times
) -> tuple[float, float]:
    """Fill in the weights of a voxel's echoes; their mean time (0 without intercept) and spread about it."""
    lit = 0
    for echo in range(te.size):
        value = max(0.0, float(magnitude[echo, x, y, z])) if weighted else 1.0
        weights[echo] = value * value
        lit += value > 0
    if lit < 1 + intercept:
        weights[:] = 1.0
    total, first, spread = 0.0, 0.0, 0.0
    for echo in range(te.size):
        total += weights[echo]
        first += weights[echo] * te[echo]
    mean = first / total if intercept else 0.0
    for echo in range(te.size):
        spread += weights[echo] * (te[echo] - mean) ** 2
    return mean, spread


@compiled
def line(phase: Times, weights: Times, te: Times, mean: float, spread: float, intercept: bool) -> tuple[float, float]:
    """Slope and value at the mean time of the best line."""
    slope, total, value = 0.0, 0.0, 0.0
    for echo in range(te.size):
        slope += weights[echo] * (te[echo] - mean) * phase[echo]
        total += weights[echo]
        value += weights[echo] * phase[echo]
    return slope / spread, value / total if intercept else 0.0


@compiled
def misfit(phase: Times, weights: Times, te: Times, mean: float, slope: float, value: float) -> float:
    """Weighted root mean square distance from the line."""
    squares, total = 0.0, 0.0
    for echo in range(te.size):
        rest = phase[echo] - value - slope * (te[echo] - mean)
        squares += weights[echo] * rest * rest
        total += weights[echo]
    return float(np.sqrt(squares / total))


@compiled
def fit_lines(
    phase: Real,
    magnitude: Real,
    weighted: bool,
    inside: Mask,
    te: Times,
    intercept: bool,
    scale: float,
    field: Real,
    residual: Real,
) -> None:
    """The slope of each voxel's line, times `scale`, and its misfit."""
    nx, ny, nz = inside.shape
    weights, values = np.empty(te.size), np.empty(te.size)
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                if not inside[x, y, z]:
                    continue
                mean, spread = weigh(magnitude, weighted, te, x, y, z, intercept, weights)
                for echo in range(te.size):
                    values[echo] = phase[echo, x, y, z]
                slope, value = line(values, weights, te, mean, spread, intercept)
                field[x, y, z] = scale * slope
                residual[x, y, z] = misfit(values, weights, te, mean, slope, value)


@compiled
def deviations(
    magnitude: Real,
    weighted: bool,
    inside: Mask,
    te: Times,
    intercept: bool,
    level: float,
    scale: float,
    deviation: Real,
) -> None:
    """The standard deviation that noise of a level gives the slope."""
    nx, ny, nz = inside.shape
    weights = np.empty(te.size)
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                if not inside[x, y, z]:
                    continue
                mean, spread = weigh(magnitude, weighted, te, x, y, z, intercept, weights)
                variance = 0.0
                for echo in range(te.size):
                    share = weights[echo] * (te[echo] - mean) / spread
                    bright = float(magnitude[echo, x, y, z]) if weighted else 1.0
                    variance += share * share * phase_variance(level, bright)
                deviation[x, y, z] = scale * np.sqrt(variance)
