"""Total generalised variation under a differential equation, by a primal-dual method of local steps.

Minimises over chi, psi and w

    sum |psi|^2 / 2 + first * |grad chi - w| + second * |sym grad w|    with    Lap psi + Box chi = data,

where Box is Laplacian / 3 - (b . grad)^2, which takes chi to the Laplacian of its field. So psi is the part of the
field that chi does not explain, free of everything harmonic: background is not removed but never
asked about. Dual variables v of the equation, p and q of the two variations make it a saddle point; an iteration is one
pass over the duals and one over the primals, each with stencils of neighbouring voxels alone.

All volumes have a border of zeros one voxel wide, so that no stencil needs to look where the array ends, and only
dual variables need masks: a primal variable moves where a dual one reaches.

References
----------
Chambolle and Pock 2011, doi:10.1007/s10851-010-0251-1; Bredies 2010, doi:10.1137/090769521
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qsm_dask.kernels.doors import Mask, Vector
from qsm_dask.kernels.fourier import Floats, Volume
from qsm_dask.kernels.jit import compiled

Flags = NDArray[np.uint8]
"""Bits of a voxel: forward edges x, y, z (1, 2, 4), all three backward ones (8), known data (16), mask (32)."""


@dataclass
class State:
    """Variables on a bordered grid: chi, psi, w with their extrapolations, and the duals v, p, q.

    Attributes
    ----------
    chi, psi, v : (x, y, z).
    w, p : (3, x, y, z) along the axes.
    q : (6, x, y, z): xx, yy, zz, xy, xz, yz.
    chi_ahead, psi_ahead, w_ahead : twice the present primal variable minus the one before.
    """

    chi: Volume
    psi: Volume
    w: Volume
    v: Volume
    p: Volume
    q: Volume
    chi_ahead: Volume
    psi_ahead: Volume
    w_ahead: Volume

    @classmethod
    def zeros(cls, shape: tuple[int, ...]) -> "State":
        """All variables zero."""
        counts = (0, 0, 3, 0, 3, 6, 0, 0, 3)
        return cls(*(np.zeros((count, *shape) if count else shape, np.float32) for count in counts))

    @property
    def variables(self) -> tuple[Volume, ...]:
        """All but the extrapolations."""
        return self.chi, self.psi, self.w, self.v, self.p, self.q


@dataclass(frozen=True)
class Problem:
    """What is solved on one grid.

    Attributes
    ----------
    data : Laplacian of the field, per square of the unit of length.
    flags : bits of each voxel.
    box : coefficients of Box, (3, 3, 3).
    per_length : inverse spacing along each axis.
    first, second : weights of the variations.
    """

    data: Volume
    flags: Flags
    box: Floats
    per_length: Floats
    first: float
    second: float


def dipole_stencil(size: Vector, b0_dir: Vector) -> Floats:
    """Coefficients (3, 3, 3) of Laplacian / 3 - (b . grad)^2: second differences, and mixed ones from four corners.

    Parameters
    ----------
    size : spacing, in the unit of length whose square the result is per.
    b0_dir : unit vector of B0 in array axes.
    """
    stencil = np.zeros((3, 3, 3))
    unit = np.eye(3, dtype=int)
    for a in range(3):
        second = (1 / 3 - b0_dir[a] ** 2) / size[a] ** 2
        for sign in (-1, 1):
            stencil[tuple(1 + sign * unit[a])] += second
        for b in range(a + 1, 3):
            mixed = -2 * b0_dir[a] * b0_dir[b] / (4 * size[a] * size[b])
            for one in (-1, 1):
                for other in (-1, 1):
                    stencil[tuple(1 + one * unit[a] + other * unit[b])] += mixed * one * other
    stencil[1, 1, 1] = -stencil.sum()
    return stencil


def flags_of(inside: Mask, known: Mask) -> Flags:
    """The bits of each voxel of a mask with a border; `known` must lie a voxel below its surface."""
    flags = np.zeros(inside.shape, np.uint8)
    backed = inside.copy()
    for axis in range(3):
        edge = inside & np.roll(inside, -1, axis)
        flags |= edge.astype(np.uint8) << axis
        backed &= np.roll(inside, 1, axis)
    flags |= backed.astype(np.uint8) << 3
    flags |= known.astype(np.uint8) << 4
    flags |= inside.astype(np.uint8) << 5
    return flags


def steps(problem: Problem, sizes: tuple[float, float, float]) -> NDArray[np.float32]:
    """Step sizes of chi, psi, w, v, p and q for which the method converges, whatever the sizes.

    Let the operator have blocks of norms n_ij from primal j to dual i. With sizes a_j and b_i of the variables, the
    steps  tau_j = a_j / sum_i n_ij b_i  and  sigma_i = b_i / sum_j n_ij a_j  give, as
    2 |y_i| |x_j| <= |y_i|^2 a_j / b_i + |x_j|^2 b_i / a_j,  an operator scaled by them whose norm is at most 1. The
    block norms are bounds: of convolutions the sums of the magnitudes of their coefficients; masks make none larger.

    Parameters
    ----------
    problem : its operators.
    sizes : how large chi, psi and v are expected to be; those of p and q are the weights. They set the speed alone.
    """
    gradient = 2 * math.sqrt(float((problem.per_length**2).sum()))
    norms = np.zeros((3, 3))
    norms[0] = float(np.abs(problem.box).sum()), gradient**2, 0.0
    norms[1] = gradient, 0.0, 1.0
    norms[2] = 0.0, 0.0, gradient
    chi, psi, v = sizes
    primal = np.array([chi, psi, chi * gradient / 2])
    dual = np.array([v, problem.first, problem.second])
    return np.concatenate([primal / (norms.T @ dual), dual / (norms @ primal)]).astype(np.float32)


def iterate(state: State, problem: Problem, step: NDArray[np.float32]) -> None:
    """One iteration, in place."""
    s, limits = state, np.array([problem.first, problem.second], np.float32)
    box, per = problem.box.astype(np.float32), problem.per_length.astype(np.float32)
    _ascend(s.chi_ahead, s.psi_ahead, s.w_ahead, s.v, s.p, s.q, problem.data, problem.flags, box, per, step, limits)
    _descend(s.chi, s.psi, s.w, s.chi_ahead, s.psi_ahead, s.w_ahead, s.v, s.p, s.q, problem.flags, box, per, step)


@compiled
def _stencil(volume: Volume, i: int, j: int, box: Volume, out: Volume) -> None:
    """The 27-point stencil of one row, into `out`."""
    nz = volume.shape[2]
    out[:] = 0
    for a in range(-1, 2):
        for b in range(-1, 2):
            row = volume[i + a, j + b]
            below, centre, above = box[a + 1, b + 1, 0], box[a + 1, b + 1, 1], box[a + 1, b + 1, 2]
            if below != 0 or above != 0:
                for m in range(1, nz - 1):
                    out[m] += below * row[m - 1] + centre * row[m] + above * row[m + 1]
            elif centre != 0:
                for m in range(1, nz - 1):
                    out[m] += centre * row[m]


@compiled
def _add_laplacian(volume: Volume, i: int, j: int, per: Volume, out: Volume) -> None:
    """Add the seven-point Laplacian of one row to `out`."""
    nz = volume.shape[2]
    x, y, z = per[0] * per[0], per[1] * per[1], per[2] * per[2]
    centre = np.float32(-2.0) * (x + y + z)
    row, left, right, up, down = volume[i, j], volume[i - 1, j], volume[i + 1, j], volume[i, j - 1], volume[i, j + 1]
    for m in range(1, nz - 1):
        out[m] += x * (left[m] + right[m]) + y * (up[m] + down[m]) + z * (row[m - 1] + row[m + 1]) + centre * row[m]


@compiled
def _difference(ahead: Volume, behind: Volume, factor: np.float32, out: Volume) -> None:
    for m in range(out.size):
        out[m] += factor * (ahead[m] - behind[m])


@compiled
def _ascend(
    chi: Volume,
    psi: Volume,
    w: Volume,
    v: Volume,
    p: Volume,
    q: Volume,
    data: Volume,
    flags: Flags,
    box: Volume,
    per: Volume,
    step: Volume,
    limits: Volume,
) -> None:
    """Move the duals along the misfit of the equation and along both variations, and project these on their balls."""
    nx, ny, nz = chi.shape
    total = np.empty(nz, np.float32)
    first = np.empty((3, nz), np.float32)
    second = np.empty((6, nz), np.float32)
    for i in range(1, nx - 1):
        for j in range(1, ny - 1):
            bits = flags[i, j]
            if not bits.any():
                continue
            _stencil(chi, i, j, box, total)
            _add_laplacian(psi, i, j, per, total)
            row, known = v[i, j], data[i, j]
            for m in range(1, nz - 1):
                row[m] += step[3] * (total[m] - known[m]) * np.float32((bits[m] >> 4) & 1)
            _ascend_first(chi, w, p, i, j, bits, per, step[4], limits[0], first, total)
            _ascend_second(w, q, i, j, bits, per, step[5], limits[1], second, total)


@compiled
def _ascend_first(
    chi: Volume,
    w: Volume,
    p: Volume,
    i: int,
    j: int,
    bits: Flags,
    per: Volume,
    step: np.float32,
    limit: np.float32,
    slopes: Volume,
    keep: Volume,
) -> None:
    """One row of p: along grad chi - w, then onto its ball; `slopes` and `keep` are scratch."""
    here = chi[i, j]
    for a in range(3):
        slopes[a] = -w[a, i, j]
    _difference(chi[i + 1, j], here, per[0], slopes[0])
    _difference(chi[i, j + 1], here, per[1], slopes[1])
    _difference(here[1:], here[:-1], per[2], slopes[2, :-1])
    keep[:] = 0
    for a in range(3):
        _advance(p[a, i, j], slopes[a], bits, a, step, np.float32(1.0), keep)
    for m in range(keep.size):
        keep[m] = limit / max(limit, np.sqrt(keep[m]))
    for a in range(3):
        _scale(p[a, i, j], slopes[a], keep)


@compiled
def _ascend_second(
    w: Volume,
    q: Volume,
    i: int,
    j: int,
    bits: Flags,
    per: Volume,
    step: np.float32,
    limit: np.float32,
    slopes: Volume,
    keep: Volume,
) -> None:
    """One row of q: along the symmetric gradient of w, then onto its ball; off the diagonal all counts twice."""
    one, two, half = np.float32(1.0), np.float32(2.0), np.float32(0.5)
    slopes[:] = 0
    _difference(w[0, i, j], w[0, i - 1, j], per[0], slopes[0])
    _difference(w[1, i, j], w[1, i, j - 1], per[1], slopes[1])
    _difference(w[2, i, j, 1:], w[2, i, j, :-1], per[2], slopes[2, 1:])
    _difference(w[1, i, j], w[1, i - 1, j], half * per[0], slopes[3])
    _difference(w[0, i, j], w[0, i, j - 1], half * per[1], slopes[3])
    _difference(w[2, i, j], w[2, i - 1, j], half * per[0], slopes[4])
    _difference(w[0, i, j, 1:], w[0, i, j, :-1], half * per[2], slopes[4, 1:])
    _difference(w[2, i, j], w[2, i, j - 1], half * per[1], slopes[5])
    _difference(w[1, i, j, 1:], w[1, i, j, :-1], half * per[2], slopes[5, 1:])
    keep[:] = 0
    for a in range(6):
        _advance(q[a, i, j], slopes[a], bits, 3, step, one if a < 3 else two, keep)
    for m in range(keep.size):
        keep[m] = limit / max(limit, np.sqrt(keep[m]))
    for a in range(6):
        _scale(q[a, i, j], slopes[a], keep)


@compiled
def _advance(
    dual: Volume, slope: Volume, bits: Flags, bit: int, step: np.float32, times: np.float32, square: Volume
) -> None:
    """The moved dual in place of its slope, zero where the voxel lacks a bit, and its share of the squared norm."""
    for m in range(slope.size):
        value = (dual[m] + step * slope[m]) * np.float32((bits[m] >> bit) & 1)
        slope[m] = value
        square[m] += times * value * value


@compiled
def _scale(dual: Volume, moved: Volume, keep: Volume) -> None:
    for m in range(dual.size):
        dual[m] = moved[m] * keep[m]


@compiled
def _descend(
    chi: Volume,
    psi: Volume,
    w: Volume,
    chi_ahead: Volume,
    psi_ahead: Volume,
    w_ahead: Volume,
    v: Volume,
    p: Volume,
    q: Volume,
    flags: Flags,
    box: Volume,
    per: Volume,
    step: Volume,
) -> None:
    """Move the primals against the transposes of the duals, psi towards zero too, and extrapolate."""
    nx, ny, nz = chi.shape
    total = np.empty(nz, np.float32)
    two = np.float32(2.0)
    shrink = np.float32(1.0) / (np.float32(1.0) + step[1])
    for i in range(1, nx - 1):
        for j in range(1, ny - 1):
            if not flags[i, j].any():
                continue
            total[:] = 0
            _add_laplacian(v, i, j, per, total)
            row, ahead = psi[i, j], psi_ahead[i, j]
            for m in range(nz):
                now = (row[m] - step[1] * total[m]) * shrink
                ahead[m] = two * now - row[m]
                row[m] = now
            _stencil(v, i, j, box, total)
            _difference(p[0, i - 1, j], p[0, i, j], per[0], total)
            _difference(p[1, i, j - 1], p[1, i, j], per[1], total)
            _difference(p[2, i, j, :-1], p[2, i, j, 1:], per[2], total[1:])
            _move(chi[i, j], chi_ahead[i, j], total, step[0])
            for a in range(3):
                total[:] = -p[a, i, j]
                x = 0 if a == 0 else (3 if a == 1 else 4)
                y = 3 if a == 0 else (1 if a == 1 else 5)
                z = 4 if a == 0 else (5 if a == 1 else 2)
                _difference(q[x, i, j], q[x, i + 1, j], per[0], total)
                _difference(q[y, i, j], q[y, i, j + 1], per[1], total)
                _difference(q[z, i, j, :-1], q[z, i, j, 1:], per[2], total[:-1])
                _move(w[a, i, j], w_ahead[a, i, j], total, step[2])


@compiled
def _move(row: Volume, ahead: Volume, slope: Volume, step: np.float32) -> None:
    for m in range(row.size):
        now = row[m] - step * slope[m]
        ahead[m] = np.float32(2.0) * now - row[m]
        row[m] = now


def change(state: State) -> float:
    """The relative change of chi in the last iteration."""
    sums = np.empty((state.chi.shape[0], 2))
    _changes(state.chi, state.chi_ahead, sums)
    changed, size = np.sqrt(sums.sum(axis=0)).tolist()
    return changed / size if size else 0.0


@compiled
def _changes(chi: Volume, ahead: Volume, sums: Floats) -> None:
    nx, ny, nz = chi.shape
    for i in range(nx):
        changed, size = 0.0, 0.0
        for j in range(ny):
            for m in range(nz):
                step = float(ahead[i, j, m]) - float(chi[i, j, m])
                changed += step * step
                size += float(chi[i, j, m]) ** 2
        sums[i, 0], sums[i, 1] = changed, size
