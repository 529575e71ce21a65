"""Conjugate gradients on volumes, in float32 with inner products in float64 of a fixed order."""

import math
from collections.abc import Callable

import numpy as np

from qsm_dask.kernels.fourier import Floats, Volume
from qsm_dask.kernels.jit import compiled
from qsm_dask.kernels.solved import Solved

Operator = Callable[[Volume], Volume]
"""Symmetric; returns a volume of its own, which may be overwritten by its next call."""


def solve(
    apply: Operator, residual: Volume, *, tolerance: float, iterations: int, precondition: Operator | None = None
) -> tuple[Volume, Solved]:
    """Solve a symmetric, positive semi-definite system from a start of zero.

    Parameters
    ----------
    apply : the system's operator.
    residual : its right side, overwritten.
    tolerance : converged when the residual, in the norm of the preconditioner, has fallen to this
        fraction of the right side. With a good preconditioner that is the energy norm of the error.
    iterations : most iterations done.
    precondition : an approximate inverse, symmetric and positive definite.

    Returns
    -------
    solution : of the residual's shape.
    Solved : its residual is the one that is compared with the tolerance.

    References
    ----------
    Hestenes and Stiefel 1952, doi:10.6028/jres.049.044
    """
    precondition = precondition or _as_it_is
    solution = np.zeros_like(residual)
    direction = precondition(residual).copy()
    norm = first = dot(residual, direction)
    for done in range(iterations):
        if norm <= tolerance**2 * first:
            return solution, Solved(done, _relative(norm, first), converged=True)
        image = apply(direction)
        curvature = dot(direction, image)
        if not curvature > 0.0:
            return solution, Solved(done, _relative(norm, first), converged=False)
        _advance(solution, residual, direction, image, np.float32(norm / curvature))
        del image
        gradient = precondition(residual)
        before, norm = norm, dot(residual, gradient)
        _turn(direction, gradient, np.float32(norm / before))
        del gradient
    return solution, Solved(iterations, _relative(norm, first), converged=norm <= tolerance**2 * first)


def dot(one: Volume, other: Volume) -> float:
    """The inner product of two volumes."""
    sums = np.empty(one.shape[0])
    _products(one, other, sums)
    return float(sums.sum())


def _as_it_is(volume: Volume) -> Volume:
    return volume


def _relative(norm: float, first: float) -> float:
    return math.sqrt(max(norm, 0.0) / first) if first else 0.0


@compiled
def _products(one: Volume, other: Volume, sums: Floats) -> None:
    nx, ny, nz = one.shape
    parts = np.empty(nz)
    for i in range(nx):
        parts[:] = 0.0
        for j in range(ny):
            for m in range(nz):
                parts[m] += np.float64(one[i, j, m]) * other[i, j, m]
        sums[i] = parts.sum()


@compiled
def _advance(solution: Volume, residual: Volume, direction: Volume, image: Volume, step: np.float32) -> None:
    nx, ny, nz = solution.shape
    for i in range(nx):
        for j in range(ny):
            for m in range(nz):
                solution[i, j, m] += step * direction[i, j, m]
                residual[i, j, m] -= step * image[i, j, m]


@compiled
def _turn(direction: Volume, gradient: Volume, factor: np.float32) -> None:
    nx, ny, nz = direction.shape
    for i in range(nx):
        for j in range(ny):
            for m in range(nz):
                direction[i, j, m] = gradient[i, j, m] + factor * direction[i, j, m]
