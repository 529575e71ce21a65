"""Laplacian unwrapping: one Poisson equation an echo, no path and no failure, but not exact."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsm_dask.kernels import fourier, series
from qsm_dask.kernels.doors import Vector, check_voxel_size
from qsm_dask.kernels.jit import compiled
from qsm_dask.kernels.series import Mask, Real

_TURN = np.float32(2 * np.pi)
_PER_TURN = np.float32(1 / (2 * np.pi))


def laplacian(phase: NDArray[Any], mask: NDArray[Any], voxel_size: ArrayLike, /) -> Real:
    """Unwrap phase up to a harmonic function, by a Poisson equation for its wrapped differences.

    The result is the function whose differences between neighbours come closest, in least
    squares over the box around the mask, to the wrapped differences inside the mask and to zero
    outside it. Its Laplacian is that of the true phase in every voxel with six neighbours in the
    mask, so that the sources inside are kept; it *loses the harmonic part*, which sources outside
    cause, by an amount that grows towards the edge of the mask, and the mean of each echo. Use it
    before a background removal that takes harmonic fields away, and never for the total field
    itself. Where the mask fills the image nothing but the mean is lost. Disjoint components
    stand in no known relation.

    No flux crosses the faces of the box (cosine transforms), so nothing is wrapped around.
    Wrapped differences stand for the sines of the differences in the original, which fall short
    where phase is steep.

    Parameters
    ----------
    phase : (echo, x, y, z) wrapped phase [rad]; each echo is unwrapped by itself.
    mask : (x, y, z).
    voxel_size : spacing [mm].

    Returns
    -------
    float32 (echo, x, y, z) phase [rad], of zero mean over the mask and zero outside it.

    Raises
    ------
    ValueError : shapes disagree, the mask is empty, or phase is NaN or infinite inside it.

    References
    ----------
    M. A. Schofield, Y. Zhu, Opt. Lett. 2003, doi:10.1364/OL.28.001194
    """
    inside = series.inside(mask)
    size = check_voxel_size(voxel_size)
    wrapped = series.echoes("phase", phase, None, inside)
    box = _bounding_box(inside)
    unwrapped = np.zeros(wrapped.shape, dtype=np.float32)
    for source, target in zip(wrapped, unwrapped, strict=True):
        _unwrap(source[box], inside[box], size, target[box])
    return unwrapped


def _unwrap(phase: Real, inside: Mask, size: Vector, result: Real) -> None:
    nx, ny, nz = inside.shape
    field = np.zeros(inside.shape, dtype=np.float32)  # no wider: the space between mask and wall costs harmonic part
    weights = (1 / size[0] ** 2, 1 / size[1] ** 2, 1 / size[2] ** 2)
    _divergence(phase, inside, weights, field)
    field = fourier.cosine(field)
    _divide(field, _eigenvalues(nx, weights[0]), _eigenvalues(ny, weights[1]), _eigenvalues(nz, weights[2]))
    field = fourier.inverse_cosine(field)
    _centre(field, inside, result)


@compiled
def _centre(field: Real, inside: Mask, result: Real) -> None:
    """The field without its mean over the mask, zero outside it."""
    nx, ny, nz = inside.shape
    total, count = np.zeros(nz), np.zeros(nz)  # of each column, so that sums do not wait for one another
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                total[z] += field[x, y, z] if inside[x, y, z] else np.float32(0)
                count[z] += 1.0 if inside[x, y, z] else 0.0
    mean = np.float32(total.sum() / count.sum())
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                result[x, y, z] = field[x, y, z] - mean if inside[x, y, z] else np.float32(0)


def _bounding_box(inside: Mask) -> tuple[slice, ...]:
    """The smallest box around the mask, or a little more where the image has room for a faster transform."""
    box = []
    for span, length in zip(fourier.smallest_box(inside), inside.shape, strict=True):
        tight = span.stop - span.start
        fast = fourier.fast_length(tight)
        wide = fast if fast <= length else tight
        start = min(span.start, length - wide)
        box.append(slice(start, start + wide))
    return tuple(box)


def _eigenvalues(length: int, weight: float) -> Real:
    """Of the second difference without flux through the ends [1/mm^2]."""
    values: Real = (-4 * weight * np.sin(np.arange(length) * np.pi / (2 * length)) ** 2).astype(np.float32)
    return values


@compiled
def _divergence(phase: Real, inside: Mask, weights: Vector, field: Real) -> None:
    nx, ny, nz = inside.shape
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                if not inside[x, y, z]:
                    continue
                for axis in range(3):
                    a = x + (axis == 0)
                    b = y + (axis == 1)
                    c = z + (axis == 2)
                    if a < nx and b < ny and c < nz and inside[a, b, c]:
                        step = phase[a, b, c] - phase[x, y, z]
                        flux = (step - _TURN * np.rint(step * _PER_TURN)) * np.float32(weights[axis])
                        field[x, y, z] += flux
                        field[a, b, c] -= flux


@compiled
def _divide(spectrum: Real, along_x: Real, along_y: Real, along_z: Real) -> None:
    nx, ny, nz = spectrum.shape
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                spectrum[x, y, z] /= along_x[x] + along_y[y] + along_z[z]
    spectrum[0, 0, 0] = 0
