"""Total generalised variation with a data term of `split`, by ADMM with an exact step of map and slopes together.

Minimises over chi and w  sum T(D chi) + weight * sum |E chi - w| + second * sum |F w|  where E takes forward
differences and F symmetrised backward ones [1/mm], both periodic; the field is a phase [rad]. Split off are
E chi - w, F w and the field y = D chi. In k-space chi and the three components of w make a system of four
unknowns a frequency, whose block of w is a multiple of the identity plus a matrix of rank one, so that it is solved
in closed form. Five volumes go there and five come back: ten transforms an iteration.

References
----------
Bredies 2010, doi:10.1137/090769521; Milovic 2018, doi:10.1002/mrm.27073
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qsm_dask.kernels import fourier
from qsm_dask.kernels.doors import Vector
from qsm_dask.kernels.fourier import Floats, Shape, Spectrum, Volume
from qsm_dask.kernels.inversion.door import Grid
from qsm_dask.kernels.inversion.split import SplitField
from qsm_dask.kernels.jit import compiled
from qsm_dask.kernels.solved import Solved

Steps = tuple[NDArray[np.complex128], NDArray[np.complex128], NDArray[np.complex128]]

_HALF, _ONE, _TWO = np.float32(0.5), np.float32(1.0), np.float32(2.0)


@dataclass(frozen=True)
class Variation:
    """Weights of the first and the second variation, and the penalties of their splittings.

    Attributes
    ----------
    first, second : weights, in the units of the data term times mm/rad and mm^2/rad.
    first_rho, second_rho : penalties [units of the data term * mm^2 / rad^2, mm^4 / rad^2].
    """

    first: float
    second: float
    first_rho: float
    second_rho: float


@dataclass
class _State:
    """Slopes w, and the arguments of both shrinkages with the part of each that its dual keeps."""

    slopes: Volume
    first: Volume
    first_kept: Volume
    second: Volume
    second_kept: Volume

    @classmethod
    def zeros(cls, shape: Shape) -> "_State":
        three, six = np.zeros((3, *shape), np.float32), np.zeros((6, *shape), np.float32)
        return cls(three, np.zeros_like(three), np.zeros(shape, np.float32), six, np.zeros(shape, np.float32))


def solve(
    split: SplitField, grid: Grid, variation: Variation, tolerance: float, iterations: int
) -> tuple[Volume, Solved]:
    """Run ADMM from no sources.

    Parameters
    ----------
    split : of the field.
    grid : where.
    variation : weights and penalties.
    tolerance : relative change of chi at which it has converged.
    iterations : most done.

    Returns
    -------
    chi : on the padded grid [rad].
    Solved : iterations, relative change and whether it converged.
    """
    shape, v = grid.shape, variation
    per_mm = (1 / np.array(grid.size)).astype(np.float32)
    limits = np.float32(v.first / v.first_rho), np.float32(v.second / v.second_rho)
    rhos = np.float32(v.first_rho), np.float32(v.second_rho)
    steps = forward_steps(shape, grid.size)
    state = _State.zeros(shape)
    x, previous = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    sums, done = np.empty((shape[0], 2)), 0
    while True:
        _changes(x, previous, sums)
        changed, size = np.sqrt(sums.sum(axis=0)).tolist()
        change = changed / size if size else 0.0
        converged = bool(done) and change <= tolerance
        if converged or done == iterations:
            return x, Solved(done, change, converged)
        _shrink_second(state.slopes, state.second, state.second_kept, per_mm, limits[1])
        _shrink_first(x, state.slopes, state.first, state.first_kept, per_mm, limits[0])
        _flatten(state.first, state.first_kept, per_mm, previous)
        _bend(state.first, state.first_kept, state.second, state.second_kept, per_mm, *rhos, state.slopes)
        spectra = [fourier.forward(volume) for volume in (previous, *state.slopes)]
        previous = x  # lets go of one volume before the inverse takes one
        chi, wx, wy, wz = spectra
        solve_block(chi, wx, wy, wz, split.wanted, grid.dipole, *steps, v.first_rho, v.second_rho, float(split.penalty))
        split.follow(chi)
        del chi, wx, wy, wz
        for axis in (2, 1, 0):
            state.slopes[axis] = fourier.inverse(spectra.pop(), shape)
        x = fourier.inverse(spectra.pop(), shape)
        done += 1


def forward_steps(shape: Shape, voxel_size: Vector) -> Steps:
    """The symbol of E [1/mm] along each axis of the half spectrum; that of F's differences is minus its conjugate."""
    x, y, z = (
        (np.exp(2j * np.pi * np.arange(count) / n) - 1) / size
        for count, n, size in zip(fourier.half_shape(shape), shape, voxel_size, strict=True)
    )
    return x, y, z


@compiled
def solve_block(
    chi: Spectrum,
    wx: Spectrum,
    wy: Spectrum,
    wz: Spectrum,
    wanted: Spectrum,
    dipole: Volume,
    gx: NDArray[np.complex128],
    gy: NDArray[np.complex128],
    gz: NDArray[np.complex128],
    first: float,
    second: float,
    penalty: float,
) -> None:
    """Replace the spectra of E'p and of  second F'q - first p  by those of chi and w.

    They minimise  penalty |D chi - wanted|^2 + first |E chi - w - p|^2 + second |F w - q|^2. With g and b the symbols
    of E and of F's differences and s = |g|^2, the block of w is  (first + second s / 2) + second / 2 b b'.
    """
    nx, ny, nz = chi.shape
    for i in range(nx):
        for j in range(ny):
            for m in range(nz):
                a, b, c = gx[i], gy[j], gz[m]
                s = (
                    a.real * a.real + a.imag * a.imag + b.real * b.real + b.imag * b.imag + c.real * c.real
                ) + c.imag * c.imag
                diagonal = first + 0.5 * second * s
                share = 0.5 * second / (diagonal + 0.5 * second * s)
                u, v, w = np.complex128(wx[i, j, m]), np.complex128(wy[i, j, m]), np.complex128(wz[i, j, m])
                # b'r is -(g . r), and b'g is -(g . g), without conjugates.
                along, square = a * u + b * v + c * w, a * a + b * b + c * c
                value = 0j
                if s > 0:
                    d = float(dipole[i, j, m])
                    own = (
                        a.conjugate() * u + b.conjugate() * v + c.conjugate() * w
                    ) - share * square.conjugate() * along
                    right = penalty * d * wanted[i, j, m] + first * (chi[i, j, m] + own / diagonal)
                    size = square.real * square.real + square.imag * square.imag
                    # first s - first^2 (s - share size) / diagonal, without the difference of two large numbers.
                    stiff = first / diagonal * (0.5 * second * s * s + first * share * size)
                    value = right / (penalty * d * d + stiff)
                chi[i, j, m] = value
                u, v, w = u + first * a * value, v + first * b * value, w + first * c * value
                along = share * (along + first * square * value)
                wx[i, j, m] = (u - a.conjugate() * along) / diagonal
                wy[i, j, m] = (v - b.conjugate() * along) / diagonal
                wz[i, j, m] = (w - c.conjugate() * along) / diagonal


@compiled
def _shrink_first(x: Volume, slopes: Volume, argument: Volume, kept: Volume, per_mm: Volume, limit: np.float32) -> None:
    """The next argument of the shrinkage of E chi - w, and which part of it its dual keeps."""
    nx, ny, nz = x.shape
    for i in range(nx):
        for j in range(ny):
            here, ahead, beside = x[i, j], x[(i + 1) % nx, j], x[i, (j + 1) % ny]
            for m in range(nz):
                above = here[m + 1] if m + 1 < nz else here[0]
                stay = kept[i, j, m]
                a = (ahead[m] - here[m]) * per_mm[0] - slopes[0, i, j, m] + argument[0, i, j, m] * stay
                b = (beside[m] - here[m]) * per_mm[1] - slopes[1, i, j, m] + argument[1, i, j, m] * stay
                c = (above - here[m]) * per_mm[2] - slopes[2, i, j, m] + argument[2, i, j, m] * stay
                argument[0, i, j, m], argument[1, i, j, m], argument[2, i, j, m] = a, b, c
                kept[i, j, m] = limit / max(limit, np.sqrt(a * a + b * b + c * c))


@compiled
def _shrink_second(slopes: Volume, argument: Volume, kept: Volume, per_mm: Volume, limit: np.float32) -> None:
    """The same for F w, whose components are xx, yy, zz, xy, xz, yz; those off the diagonal count twice."""
    _, nx, ny, nz = slopes.shape
    for i in range(nx):
        for j in range(ny):
            for m in range(nz):
                n = m - 1 if m > 0 else nz - 1
                stay = kept[i, j, m]
                x, y, z = slopes[0, i, j, m], slopes[1, i, j, m], slopes[2, i, j, m]
                xx = (x - slopes[0, i - 1, j, m]) * per_mm[0]
                yy = (y - slopes[1, i, j - 1, m]) * per_mm[1]
                zz = (z - slopes[2, i, j, n]) * per_mm[2]
                xy = ((x - slopes[0, i, j - 1, m]) * per_mm[1] + (y - slopes[1, i - 1, j, m]) * per_mm[0]) * _HALF
                xz = ((x - slopes[0, i, j, n]) * per_mm[2] + (z - slopes[2, i - 1, j, m]) * per_mm[0]) * _HALF
                yz = ((y - slopes[1, i, j, n]) * per_mm[2] + (z - slopes[2, i, j - 1, m]) * per_mm[1]) * _HALF
                xx, yy, zz = (
                    xx + argument[0, i, j, m] * stay,
                    yy + argument[1, i, j, m] * stay,
                    zz + argument[2, i, j, m] * stay,
                )
                xy, xz, yz = (
                    xy + argument[3, i, j, m] * stay,
                    xz + argument[4, i, j, m] * stay,
                    yz + argument[5, i, j, m] * stay,
                )
                argument[0, i, j, m], argument[1, i, j, m], argument[2, i, j, m] = xx, yy, zz
                argument[3, i, j, m], argument[4, i, j, m], argument[5, i, j, m] = xy, xz, yz
                size = np.sqrt(xx * xx + yy * yy + zz * zz + _TWO * (xy * xy + xz * xz + yz * yz))
                kept[i, j, m] = limit / max(limit, size)


@compiled
def _flatten(argument: Volume, kept: Volume, per_mm: Volume, out: Volume) -> None:
    """E' of what E chi - w shall be: the shrunk argument minus the dual, or argument * (1 - 2 kept)."""
    nx, ny, nz = out.shape
    for i in range(nx):
        for j in range(ny):
            for m in range(nz):
                n = m - 1 if m > 0 else nz - 1
                keep = _ONE - _TWO * kept[i, j, m]
                x = argument[0, i - 1, j, m] * (_ONE - _TWO * kept[i - 1, j, m]) - argument[0, i, j, m] * keep
                y = argument[1, i, j - 1, m] * (_ONE - _TWO * kept[i, j - 1, m]) - argument[1, i, j, m] * keep
                z = argument[2, i, j, n] * (_ONE - _TWO * kept[i, j, n]) - argument[2, i, j, m] * keep
                out[i, j, m] = x * per_mm[0] + y * per_mm[1] + z * per_mm[2]


@compiled
def _bend(
    first: Volume,
    first_kept: Volume,
    second: Volume,
    second_kept: Volume,
    per_mm: Volume,
    first_rho: np.float32,
    second_rho: np.float32,
    out: Volume,
) -> None:
    """What w shall be: second_rho F'q - first_rho p."""
    _, nx, ny, nz = out.shape
    for i in range(nx):
        for j in range(ny):
            for m in range(nz):
                p, q, r = (i + 1) % nx, (j + 1) % ny, m + 1 if m + 1 < nz else 0
                here = (_ONE - _TWO * second_kept[i, j, m]) * second_rho
                ahead = (_ONE - _TWO * second_kept[p, j, m]) * second_rho
                beside = (_ONE - _TWO * second_kept[i, q, m]) * second_rho
                above = (_ONE - _TWO * second_kept[i, j, r]) * second_rho
                slope = (_ONE - _TWO * first_kept[i, j, m]) * first_rho
                for a in range(3):
                    x = 0 if a == 0 else (3 if a == 1 else 4)
                    y = 3 if a == 0 else (1 if a == 1 else 5)
                    z = 4 if a == 0 else (5 if a == 1 else 2)
                    out[a, i, j, m] = (
                        (second[x, i, j, m] * here - second[x, p, j, m] * ahead) * per_mm[0]
                        + (second[y, i, j, m] * here - second[y, i, q, m] * beside) * per_mm[1]
                        + (second[z, i, j, m] * here - second[z, i, j, r] * above) * per_mm[2]
                        - first[a, i, j, m] * slope
                    )


@compiled
def _changes(x: Volume, previous: Volume, sums: Floats) -> None:
    nx, ny, nz = x.shape
    for i in range(nx):
        changed, size = 0.0, 0.0
        for j in range(ny):
            for m in range(nz):
                step = float(x[i, j, m]) - float(previous[i, j, m])
                changed += step * step
                size += float(x[i, j, m]) ** 2
        sums[i, 0], sums[i, 1] = changed, size
