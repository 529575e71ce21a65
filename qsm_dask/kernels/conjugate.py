"""Conjugate gradients on volumes, in float32 with inner products in float64 of a fixed order."""

import math
from collections.abc import Callable

import numpy as np

from qsm_dask.kernels.fourier import Floats, Volume
from qsm_dask.kernels.jit import compiled, prange, spread
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
    solution, sums = np.zeros_like(residual), np.empty(residual.shape[0])
    direction = (residual if precondition is None else precondition(residual)).copy()
    norm = first = dot(residual, direction)
    for done in range(iterations):
        if norm <= tolerance**2 * first:
            return solution, Solved(done, _relative(norm, first), converged=True)
        image = apply(direction)
        curvature = dot(direction, image)
        if not curvature > 0.0:
            return solution, Solved(done, _relative(norm, first), converged=False)
        _advance(solution, residual, direction, image, np.float32(norm / curvature), sums)
        del image
        gradient = residual if precondition is None else precondition(residual)
        before, norm = norm, float(sums.sum()) if precondition is None else dot(residual, gradient)
        _turn(direction, gradient, np.float32(norm / before))
        del gradient
    return solution, Solved(iterations, _relative(norm, first), converged=norm <= tolerance**2 * first)


def dot(one: Volume, other: Volume) -> float:
    """The inner product of two volumes."""
    sums = np.empty(one.shape[0])
    _products(one, other, sums)
    return float(sums.sum())


def _relative(norm: float, first: float) -> float:
    return math.sqrt(max(norm, 0.0) / first) if first else 0.0


@spread
def _products(one: Volume, other: Volume, sums: Floats) -> None:
    for i in prange(one.shape[0]):
        sums[i] = _product(one[i], other[i])


@compiled
def _product(one: Volume, other: Volume) -> float:
    ny, nz = one.shape
    parts = np.zeros(nz)
    for j in range(ny):
        for m in range(nz):
            parts[m] += np.float64(one[j, m]) * other[j, m]
    return float(parts.sum())


@spread
def _advance(
    solution: Volume, residual: Volume, direction: Volume, image: Volume, step: np.float32, sums: Floats
) -> None:
    """A step in place, and by plane the sum of the squares of what is left."""
    for i in prange(solution.shape[0]):
        sums[i] = _advance_plane(solution[i], residual[i], direction[i], image[i], step)


@compiled
def _advance_plane(solution: Volume, residual: Volume, direction: Volume, image: Volume, step: np.float32) -> float:
    ny, nz = solution.shape
    parts = np.zeros(nz)
    for j in range(ny):
        for m in range(nz):
            solution[j, m] += step * direction[j, m]
            left = residual[j, m] - step * image[j, m]
            residual[j, m] = left
            parts[m] += np.float64(left) * left
    return float(parts.sum())


@spread
def _turn(direction: Volume, gradient: Volume, factor: np.float32) -> None:
    for i in prange(direction.shape[0]):
        _turn_plane(direction[i], gradient[i], factor)


@compiled
def _turn_plane(direction: Volume, gradient: Volume, factor: np.float32) -> None:
    ny, nz = direction.shape
    for j in range(ny):
        for m in range(nz):
            direction[j, m] = gradient[j, m] + factor * direction[j, m]
