"""Total variation by the alternating direction method of multipliers, with two transforms an iteration.

Minimises  F(x) + weight * sum |Ex|  where F is quadratic and diagonal in k-space, and E takes
forward differences [1/mm] on the periodic padded grid, so that EᴴE has the symbol
sum (2 - 2 cos 2 pi i / n) / size^2. In each iteration

    z = shrink(Ex + u, weight / rho),   u = u + Ex - z,   x = argmin F(x) + rho/2 |Ex - z + u|^2

and as z and the new u are the two parts of Ex + u, one pass over the volume takes u to its new
value and leaves Eᴴ(z - u), which is all that the next x needs: z is never stored.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qsm_dask.kernels import fourier
from qsm_dask.kernels.doors import Vector, check_extensions
from qsm_dask.kernels.fourier import Floats, Shape, Spectrum, Volume
from qsm_dask.kernels.inversion.extension import EVERY, KnownField
from qsm_dask.kernels.jit import compiled, prange, spread, threads
from qsm_dask.kernels.solved import Solved

Symbols = tuple[Volume, Volume, Volume]

Update = Callable[[Spectrum, Symbols, float], None]
"""Replaces the spectrum g of Eᴴ(z - u) by that of x, given the symbols of EᴴE and rho."""

_STALLED = 0.7
_FASTER = 5.0


@dataclass(frozen=True)
class Schedule:
    """How ADMM runs.

    Attributes
    ----------
    weight : of the total variation.
    rho : first penalty on the splitting.
    adaptive : multiply rho by 5 whenever the splitting residual falls by less than 30 %, as Kames 2018 does.
    extensions : how often the data are extended by `KnownField.extend`.
    tolerance : relative change of x at which it has converged.
    iterations : most iterations done.
    """

    weight: float
    rho: float
    adaptive: bool
    extensions: int
    tolerance: float
    iterations: int

    def __post_init__(self) -> None:
        """Refuse what would be taken for no extension at all."""
        check_extensions(self.extensions)


def symbols(shape: Shape, voxel_size: Vector) -> Symbols:
    """The symbol of EᴴE [1/mm^2] along each axis of the half spectrum; the symbol is their sum."""
    x, y, z = (
        ((2 - 2 * np.cos(2 * np.pi * np.arange(count) / n)) / size**2).astype(np.float32)
        for count, n, size in zip(fourier.half_shape(shape), shape, voxel_size, strict=True)
    )
    return x, y, z


def gradient_rms(spectrum: Spectrum, shape: Shape, voxel_size: Vector) -> float:
    """The root mean square of |Ex| over the grid [unit of x per mm], from the spectrum of x."""
    sums = np.empty(shape[0])
    _roughness(spectrum, *symbols(shape, voxel_size), shape[2] % 2 == 0, sums)
    voxels = shape[0] * shape[1] * shape[2]
    return math.sqrt(float(sums.sum())) / voxels


def minimise(
    start: Volume, data: KnownField | None, update: Update, voxel_size: Vector, schedule: Schedule
) -> tuple[Volume, Solved]:
    """Run ADMM from `start`, a padded volume that is overwritten.

    Parameters
    ----------
    start : first x.
    data : extended by x after every second of the first iterations; none where the data know their mask.
    update : makes the spectrum of the next x.
    voxel_size : spacing [mm].
    schedule : how to run.

    Returns
    -------
    x : the padded volume.
    Solved : its residual is the relative change of x in the last iteration.
    """
    shape = start.shape
    x, previous = start, np.zeros(shape, np.float32)
    del start
    dual = np.zeros((3, *shape), np.float32)
    symbol = symbols(shape, voxel_size)
    per_mm = (1 / np.array(voxel_size)).astype(np.float32)
    sums = np.empty((shape[0], 3))
    rho, rescale, split, done = schedule.rho, 1.0, math.inf, 0
    while True:
        limit = np.float32(schedule.weight / rho)
        shrink(x, previous, dual, per_mm, limit, np.float32(rescale), sums)
        changed, size, now = np.sqrt(sums.sum(axis=0)).tolist()
        change = changed / size if size else 0.0
        stalled = schedule.adaptive and now > _STALLED * split
        # With a penalty so weak that z stays zero, x does not move either: that is no convergence.
        converged = bool(done) and change <= schedule.tolerance and not stalled
        if converged or done == schedule.iterations:
            return x, Solved(done, change, converged)
        if data and done and done % EVERY == 0 and done <= EVERY * schedule.extensions:
            data.extend(x)
        spectrum = fourier.forward(previous)
        previous = x  # lets go of one volume before the inverse takes one
        update(spectrum, symbol, rho)
        x = fourier.inverse(spectrum, shape)
        del spectrum
        rho, rescale = (rho * _FASTER, 1 / _FASTER) if stalled else (rho, 1.0)
        split = now
        done += 1


@compiled
def _roughness(spectrum: Spectrum, lx: Volume, ly: Volume, lz: Volume, even: bool, sums: Floats) -> None:
    nx, ny, nz = spectrum.shape
    parts = np.empty(nz)
    for i in range(nx):
        parts[:] = 0.0
        for j in range(ny):
            lxy = lx[i] + ly[j]
            for m in range(nz):
                value = spectrum[i, j, m]
                parts[m] += (value.real * value.real + value.imag * value.imag) * (lxy + lz[m])
        parts[1:] *= 2
        if even:
            parts[nz - 1] *= 0.5
        sums[i] = parts.sum()


def shrink(
    x: Volume,
    previous: Volume,
    dual: Volume,
    per_mm: Volume,
    limit: np.float32,
    rescale: np.float32,
    sums: Floats,
) -> None:
    """One pass: the new dual in place, Eᴴ(z - u) in place of the previous x, and sums by plane.

    The sums are |x - previous|^2, |x|^2 and |Ex - z|^2, in float64 for each plane, so that
    their order is fixed. Each thread takes a slab of planes.
    """
    starts = np.linspace(0, x.shape[0], min(threads(), x.shape[0]) + 1).astype(np.int64)
    behind = np.zeros((starts.size - 1, *x.shape[1:]), np.float32)
    _shrink_slabs(x, previous, dual, per_mm, limit, rescale, sums, starts, behind)
    previous[0] += behind[-1]


@spread
def _shrink_slabs(
    x: Volume,
    previous: Volume,
    dual: Volume,
    per_mm: Volume,
    limit: np.float32,
    rescale: np.float32,
    sums: Floats,
    starts: NDArray[np.int64],
    behind: Volume,
) -> None:
    for slab in prange(1, starts.size - 1):
        _flow(x, dual, per_mm, limit, rescale, starts[slab] - 1, behind[slab])
    for slab in prange(starts.size - 1):
        _shrink_slab(x, previous, dual, per_mm, limit, rescale, sums, starts[slab], starts[slab + 1], behind[slab])


@compiled
def _flow(
    x: Volume, dual: Volume, per_mm: Volume, limit: np.float32, rescale: np.float32, i: int, flow: Volume
) -> None:
    """What a plane hands on along x, before the slab that it ends changes its dual; see `_shrink_slab`."""
    _, ny, nz = x.shape
    one, two = np.float32(1.0), np.float32(2.0)
    for j in range(ny):
        here, ahead, beside = x[i, j], x[i + 1, j], x[i, (j + 1) % ny]
        for m in range(nz):
            sx = (ahead[m] - here[m]) * per_mm[0] + dual[0, i, j, m] * rescale
            sy = (beside[m] - here[m]) * per_mm[1] + dual[1, i, j, m] * rescale
            sz = (here[(m + 1) % nz] - here[m]) * per_mm[2] + dual[2, i, j, m] * rescale
            keep = limit / max(limit, np.sqrt(sx * sx + sy * sy + sz * sz))
            flow[j, m] = sx * (one - two * keep) * per_mm[0]


@compiled
def _shrink_slab(
    x: Volume,
    previous: Volume,
    dual: Volume,
    per_mm: Volume,
    limit: np.float32,
    rescale: np.float32,
    sums: Floats,
    first: int,
    last: int,
    behind: Volume,
) -> None:
    """Planes from first to before last; `behind` is what the plane before hands on, and then what the last does."""
    nx, ny, nz = x.shape
    along = np.empty((3, ny, nz), np.float32)
    wx, wy, wz = np.empty(nz, np.float32), np.empty(nz, np.float32), np.empty(nz, np.float32)
    parts = np.empty((3, nz))
    one, two = np.float32(1.0), np.float32(2.0)
    for i in range(first, last):
        parts[:] = 0.0
        for j in range(ny):
            here, ahead, beside = x[i, j], x[(i + 1) % nx, j], x[i, (j + 1) % ny]
            ux, uy, uz = dual[0, i, j], dual[1, i, j], dual[2, i, j]
            for m in range(nz - 1):
                wz[m] = (here[m + 1] - here[m]) * per_mm[2]
            wz[nz - 1] = (here[0] - here[nz - 1]) * per_mm[2]
            for m in range(nz):
                wx[m] = (ahead[m] - here[m]) * per_mm[0]
                wy[m] = (beside[m] - here[m]) * per_mm[1]
            for m in range(nz):
                ox, oy, oz = ux[m] * rescale, uy[m] * rescale, uz[m] * rescale
                sx, sy, sz = wx[m] + ox, wy[m] + oy, wz[m] + oz
                keep = limit / max(limit, np.sqrt(sx * sx + sy * sy + sz * sz))
                ux[m], uy[m], uz[m] = sx * keep, sy * keep, sz * keep
                z_minus_u = one - two * keep
                along[0, j, m] = sx * z_minus_u * per_mm[0]
                along[1, j, m] = sy * z_minus_u * per_mm[1]
                along[2, j, m] = sz * z_minus_u * per_mm[2]
                rx, ry, rz = ux[m] - ox, uy[m] - oy, uz[m] - oz
                step = here[m] - previous[i, j, m]
                parts[0, m] += step * step
                parts[1, m] += here[m] * here[m]
                parts[2, m] += rx * rx + ry * ry + rz * rz
        for j in range(ny):
            before = (j - 1) % ny
            for m in range(1, nz):
                previous[i, j, m] = (
                    behind[j, m]
                    - along[0, j, m]
                    + (along[1, before, m] - along[1, j, m])
                    + (along[2, j, m - 1] - along[2, j, m])
                )
            previous[i, j, 0] = (
                behind[j, 0]
                - along[0, j, 0]
                + (along[1, before, 0] - along[1, j, 0])
                + (along[2, j, nz - 1] - along[2, j, 0])
            )
        behind[:] = along[0]
        for part in range(3):
            sums[i, part] = parts[part].sum()
