"""The Laplacian of the field, straight from wrapped phase."""

import numpy as np

from qsm_dask.kernels.doors import Mask, Vector
from qsm_dask.kernels.jit import compiled
from qsm_dask.kernels.series import Real, Times

_TURN = 2 * np.pi


def phase_laplacian(phase: Real, magnitude: Real | None, inside: Mask, te: Times, size: Vector, *, points: int) -> Real:
    """The Laplacian of the slope of phase over echo time, without unwrapping in space.

    Between two neighbours the phase of the first echo differs by less than half a turn; that wrapped difference
    predicts the one of the second echo up to whole turns, both together that of the third, and so on. So only the
    first echo must not be steep, and the later ones still give their precision. The echoes of an edge are combined
    with the weights magnitude^2 te^2, the least-squares slope through the origin: phase must be free of
    offset, or the offset smooth.

    Parameters
    ----------
    phase : (echo, x, y, z) wrapped [rad].
    magnitude : (echo, x, y, z) or None: all echoes are as bright. So they are where it is zero in every echo.
    inside : (x, y, z); edges that leave it count as flat.
    te : (echo,) [s].
    size : spacing [mm].
    points : of the stencil. 7 are second differences along the axes; 19 are those of `multigrid`, whose error on a
        harmonic background is of the fourth order.

    Returns
    -------
    float32 (x, y, z) [rad/s/mm^2], right in every voxel whose neighbours that the stencil reads are inside.
    """
    result, slopes = np.zeros(inside.shape, np.float32), np.empty(inside.shape, np.float32)
    bright = phase if magnitude is None else magnitude
    per_square = np.array([1 / length**2 for length in size])
    for axis in range(3):
        _slopes(phase, bright, magnitude is not None, inside, te, axis, slopes)
        _second(slopes, axis, np.float32(per_square[axis]), result)
        # Along a face of two axes goes the product of their second differences, by way of the first of them.
        for beside in range(axis + 1, 3) if points == 19 else ():
            _fourth(slopes, axis, beside, np.float32((per_square[axis] + per_square[beside]) / 12), result)
    return result


@compiled
def _slopes(phase: Real, magnitude: Real, weighted: bool, inside: Mask, te: Times, axis: int, slopes: Real) -> None:
    """From each voxel to the next along an axis, zero where one of them is not inside."""
    nx, ny, nz = inside.shape
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                slopes[x, y, z] = 0
                a, b, c = x + (axis == 0), y + (axis == 1), z + (axis == 2)
                if inside[x, y, z] and a < nx and b < ny and c < nz and inside[a, b, c]:
                    slopes[x, y, z] = _slope(phase, magnitude, weighted, te, x, y, z, a, b, c)


@compiled
def _second(slopes: Real, axis: int, weight: np.float32, result: Real) -> None:
    """Add the second difference along an axis."""
    nx, ny, nz = slopes.shape
    i, j, k = axis == 0, axis == 1, axis == 2
    for x in range(i, nx):
        for y in range(j, ny):
            for z in range(k, nz):
                result[x, y, z] += weight * (slopes[x, y, z] - slopes[x - i, y - j, z - k])


@compiled
def _fourth(slopes: Real, axis: int, beside: int, weight: np.float32, result: Real) -> None:
    """Add the second difference along another axis of the second difference along one."""
    nx, ny, nz = slopes.shape
    i, j, k = axis == 0, axis == 1, axis == 2
    p, q, r = beside == 0, beside == 1, beside == 2
    two = np.float32(2.0)
    for x in range(max(i, p), nx - p):
        for y in range(max(j, q), ny - q):
            for z in range(max(k, r), nz - r):
                ahead = slopes[x + p, y + q, z + r] - slopes[x + p - i, y + q - j, z + r - k]
                behind = slopes[x - p, y - q, z - r] - slopes[x - p - i, y - q - j, z - r - k]
                here = slopes[x, y, z] - slopes[x - i, y - j, z - k]
                result[x, y, z] += weight * (ahead - two * here + behind)


@compiled
def _slope(
    phase: Real, magnitude: Real, weighted: bool, te: Times, x: int, y: int, z: int, a: int, b: int, c: int
) -> float:
    """What a unit of echo time adds to the difference between two neighbours."""
    total, sums, slope = 0.0, 0.0, 0.0
    brightest = 1.0
    if weighted:
        brightest = 0.0
        for echo in range(te.size):
            brightest = max(brightest, float(magnitude[echo, x, y, z]) * float(magnitude[echo, a, b, c]))
    for echo in range(te.size):
        weight = te[echo] * te[echo]
        if weighted and brightest > 0:
            # A dark echo must not leave the slope undefined; it hardly counts beside a bright one.
            weight *= float(magnitude[echo, x, y, z]) * float(magnitude[echo, a, b, c]) / brightest + 1e-6
        step = float(phase[echo, a, b, c]) - float(phase[echo, x, y, z])
        step += _TURN * np.rint((slope * te[echo] - step) / _TURN)
        total += weight
        sums += weight * step / te[echo]
        slope = sums / total
    return slope
