"""Poisson's equation inside a mask of any form: a geometric multigrid cycle as preconditioner.

The operator is a stencil of minus the Laplacian [1/mm^2] at the active voxels, with zero at all others. It has
nineteen points, along faces and edges: on functions that are nearly harmonic its error is of the fourth order, where
that of the seven points along faces is of the second, which next to sources like air is more than the local
field. The two are equal within a factor of three at every frequency, on voxels of any form, so the cycle
does with seven points. Coarser grids keep every second voxel of the axes whose spacing is not much above the smallest,
so that anisotropic voxels become isotropic first; otherwise a point smoother leaves the errors
along the long edges untouched. A coarse voxel is active where its fine one is. Steps between grids are
trilinear and each other's transpose, and smoothing visits the two colours of a chequerboard in one order before
and in the other after the coarse grid: the cycle is symmetric, as conjugate gradients require.

References
----------
McAdams 2010, doi:10.2312/SCA/SCA10/065-073
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qsm_dask.kernels.doors import Mask, Vector
from qsm_dask.kernels.fourier import Volume
from qsm_dask.kernels.jit import compiled

_COARSEST = 6
_SWEEPS = 10


@dataclass(frozen=True)
class _Level:
    active: Mask
    weights: Volume
    steps: NDArray[np.int64]
    solution: Volume
    right: Volume
    rest: Volume


class Poisson:
    """Minus the Laplacian at the active voxels of an array, none of which lies on its faces, and its inverse, about."""

    def __init__(self, active: Mask, voxel_size: Vector) -> None:
        """Prepare the coarser grids.

        Parameters
        ----------
        active : voxels that are unknown; all others are held at zero.
        voxel_size : spacing [mm].
        """
        self._levels: list[_Level] = []
        spacing = np.array(voxel_size)
        while True:
            steps = np.where(spacing < 1.5 * spacing.min(), 2, 1)
            volumes = [np.zeros(active.shape, np.float32) for _ in range(3 if self._levels else 2)]
            right = volumes[2] if self._levels else volumes[0]
            weights = (1 / spacing**2).astype(np.float32)
            self._levels.append(_Level(active, weights, steps, volumes[0], right, volumes[1]))
            coarser = _coarser(active, steps)
            if max(active.shape) <= _COARSEST or not coarser.any():
                return
            active, spacing = coarser, spacing * steps

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the volumes it works on."""
        return self._levels[0].active.shape

    def apply(self, volume: Volume) -> Volume:
        """Minus the Laplacian [1/mm^2] of a volume at the active voxels."""
        return self.laplacian(volume, self._levels[0].active)

    def laplacian(self, volume: Volume, where: Mask) -> Volume:
        """Minus the Laplacian [1/mm^2] of a volume at chosen voxels, none of which lies on the faces."""
        level = self._levels[0]
        _laplacian(volume, where, level.weights, level.rest)
        return level.rest

    def precondition(self, right: Volume) -> Volume:
        """One cycle from zero."""
        self._cycle(0, right)
        return self._levels[0].solution

    def _cycle(self, number: int, right: Volume) -> None:
        level = self._levels[number]
        x, active, weights = level.solution, level.active, level.weights
        x[:] = 0.0
        if number == len(self._levels) - 1:
            for _ in range(_SWEEPS):
                _relax(x, right, active, weights, 0)
                _relax(x, right, active, weights, 1)
            for _ in range(_SWEEPS):
                _relax(x, right, active, weights, 1)
                _relax(x, right, active, weights, 0)
            return
        _relax(x, right, active, weights, 0)
        _relax(x, right, active, weights, 1)
        _residual(x, right, active, weights, level.rest)
        coarse = self._levels[number + 1]
        _restrict(level.rest, coarse.right, coarse.active, level.steps)
        self._cycle(number + 1, coarse.right)
        _prolong(coarse.solution, x, active, level.steps)
        _relax(x, right, active, weights, 1)
        _relax(x, right, active, weights, 0)


def _coarser(active: Mask, steps: NDArray[np.int64]) -> Mask:
    """Every second voxel, with one more at the end, so that no active one lies on a face."""
    taken = active[tuple(slice(None, None, int(step)) for step in steps)]
    shape = tuple(n // 2 + 1 if step == 2 else n for n, step in zip(active.shape, steps, strict=True))
    coarse = np.zeros(shape, np.bool_)
    coarse[tuple(slice(n) for n in taken.shape)] = taken
    return coarse


@compiled
def _laplacian(x: Volume, active: Mask, w: Volume, out: Volume) -> None:
    nx, ny, nz = x.shape
    # Along a face of two axes go the fourth derivatives: (h_i^2 + h_j^2) / 12 of the product of two second differences.
    xy, xz, yz = (w[0] + w[1]) / np.float32(12.0), (w[0] + w[2]) / np.float32(12.0), (w[1] + w[2]) / np.float32(12.0)
    two = np.float32(2.0)
    centre = two * (w[0] + w[1] + w[2]) - two * two * (xy + xz + yz)
    along_x, along_y, along_z = w[0] - two * (xy + xz), w[1] - two * (xy + yz), w[2] - two * (xz + yz)
    for i in range(1, nx - 1):
        for j in range(1, ny - 1):
            for m in range(1, nz - 1):
                value = (
                    centre * x[i, j, m]
                    - along_x * (x[i - 1, j, m] + x[i + 1, j, m])
                    - along_y * (x[i, j - 1, m] + x[i, j + 1, m])
                    - along_z * (x[i, j, m - 1] + x[i, j, m + 1])
                    - xy * (x[i - 1, j - 1, m] + x[i - 1, j + 1, m] + x[i + 1, j - 1, m] + x[i + 1, j + 1, m])
                    - xz * (x[i - 1, j, m - 1] + x[i - 1, j, m + 1] + x[i + 1, j, m - 1] + x[i + 1, j, m + 1])
                    - yz * (x[i, j - 1, m - 1] + x[i, j - 1, m + 1] + x[i, j + 1, m - 1] + x[i, j + 1, m + 1])
                )
                out[i, j, m] = value if active[i, j, m] else np.float32(0.0)


@compiled
def _residual(x: Volume, right: Volume, active: Mask, w: Volume, out: Volume) -> None:
    nx, ny, nz = x.shape
    centre = np.float32(2.0) * (w[0] + w[1] + w[2])
    for i in range(1, nx - 1):
        for j in range(1, ny - 1):
            for m in range(1, nz - 1):
                value = right[i, j, m] - (
                    centre * x[i, j, m]
                    - w[0] * (x[i - 1, j, m] + x[i + 1, j, m])
                    - w[1] * (x[i, j - 1, m] + x[i, j + 1, m])
                    - w[2] * (x[i, j, m - 1] + x[i, j, m + 1])
                )
                out[i, j, m] = value if active[i, j, m] else np.float32(0.0)


@compiled
def _relax(x: Volume, right: Volume, active: Mask, w: Volume, colour: int) -> None:
    nx, ny, nz = x.shape
    share = np.float32(0.5) / (w[0] + w[1] + w[2])
    for i in range(1, nx - 1):
        for j in range(1, ny - 1):
            for m in range(1 + (i + j + 1 + colour) % 2, nz - 1, 2):
                if active[i, j, m]:
                    x[i, j, m] = share * (
                        right[i, j, m]
                        + w[0] * (x[i - 1, j, m] + x[i + 1, j, m])
                        + w[1] * (x[i, j - 1, m] + x[i, j + 1, m])
                        + w[2] * (x[i, j, m - 1] + x[i, j, m + 1])
                    )


@compiled
def _restrict(fine: Volume, coarse: Volume, active: Mask, steps: NDArray[np.int64]) -> None:
    """The weighted mean around each coarse voxel: the transpose of `_prolong` over the voxels of a coarse one."""
    nx, ny, nz = coarse.shape
    sides = [
        np.array([0.25, 0.5, 0.25], np.float32) if s == 2 else np.array([0.0, 1.0, 0.0], np.float32) for s in steps
    ]
    for i in range(1, nx - 1):
        for j in range(1, ny - 1):
            for m in range(1, nz - 1):
                total = np.float32(0.0)
                if active[i, j, m]:
                    for a in range(-1, 2):
                        for b in range(-1, 2):
                            wab = sides[0][a + 1] * sides[1][b + 1]
                            if wab > 0:
                                row = fine[steps[0] * i + a, steps[1] * j + b]
                                c = steps[2] * m
                                total += wab * (
                                    sides[2][0] * row[c - 1] + sides[2][1] * row[c] + sides[2][2] * row[c + 1]
                                )
                coarse[i, j, m] = total


@compiled
def _prolong(coarse: Volume, fine: Volume, active: Mask, steps: NDArray[np.int64]) -> None:
    """Add the trilinear interpolation of a correction."""
    nx, ny, nz = fine.shape
    half = np.float32(0.5)
    line = np.empty(coarse.shape[2], np.float32)
    for i in range(1, nx - 1):
        i0, i1 = i // steps[0], (i + steps[0] - 1) // steps[0]
        for j in range(1, ny - 1):
            j0, j1 = j // steps[1], (j + steps[1] - 1) // steps[1]
            for m in range(line.size):
                line[m] = half * half * (coarse[i0, j0, m] + coarse[i1, j0, m] + coarse[i0, j1, m] + coarse[i1, j1, m])
            for m in range(1, nz - 1):
                value = half * (line[m // steps[2]] + line[(m + steps[2] - 1) // steps[2]])
                fine[i, j, m] += value if active[i, j, m] else np.float32(0.0)
