"""The Laplacian of the field, straight from wrapped phase."""

import numpy as np

from qsm_dask.kernels.doors import Mask, Vector
from qsm_dask.kernels.jit import compiled
from qsm_dask.kernels.series import Real, Times

_TURN = 2 * np.pi


def phase_laplacian(phase: Real, magnitude: Real | None, inside: Mask, te: Times, size: Vector) -> Real:
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

    Returns
    -------
    float32 (x, y, z) [rad/s/mm^2], right in every voxel whose six neighbours are inside.
    """
    result = np.zeros(inside.shape, np.float32)
    per_square = np.array([1 / length**2 for length in size])
    _divergence(phase, phase if magnitude is None else magnitude, magnitude is not None, inside, te, per_square, result)
    return result


@compiled
def _divergence(
    phase: Real, magnitude: Real, weighted: bool, inside: Mask, te: Times, per_square: Times, result: Real
) -> None:
    nx, ny, nz = inside.shape
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                if not inside[x, y, z]:
                    continue
                for axis in range(3):
                    a, b, c = x + (axis == 0), y + (axis == 1), z + (axis == 2)
                    if a < nx and b < ny and c < nz and inside[a, b, c]:
                        flux = _slope(phase, magnitude, weighted, te, x, y, z, a, b, c) * per_square[axis]
                        result[x, y, z] += np.float32(flux)
                        result[a, b, c] -= np.float32(flux)


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
