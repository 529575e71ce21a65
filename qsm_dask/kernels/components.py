"""Connected components of a mask, by its runs of voxels along the last axis.

A mask of a head has a hundredth as many runs as voxels. Labels in an image, as `scipy.ndimage.label` makes them, cost
ten times as much, and four bytes a voxel.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsm_dask.kernels import series
from qsm_dask.kernels.doors import Mask
from qsm_dask.kernels.jit import compiled

Integers = NDArray[np.int64]
Runs = NDArray[np.int32]
"""First voxel, voxel after the last, and component of each run (run, 3)."""


@dataclass(frozen=True)
class Components:
    """The components of a mask, numbered from 0 in the order of memory of their first voxels.

    Attributes
    ----------
    sizes : voxels of each.
    at_faces : whether it touches a face of the image.
    """

    sizes: Integers
    at_faces: Mask
    _shape: tuple[int, ...]
    _runs: Runs
    _starts: Integers

    def mask(self, chosen: NDArray[np.bool_]) -> Mask:
        """The voxels of the components that are chosen (component,)."""
        found = np.zeros(self._shape, np.bool_)
        _paint(self._runs, self._starts, chosen, found)
        return found

    def largest(self, number: int = 1) -> Mask:
        """The voxels of the largest components; of equal ones the first."""
        chosen = np.zeros(self.sizes.size, np.bool_)
        chosen[np.argsort(-self.sizes, kind="stable")[:number]] = True
        return self.mask(chosen)


def components(mask: NDArray[Any], *, edges: bool = False) -> Components:
    """Group the voxels of a mask, of which there may be none.

    Parameters
    ----------
    mask : bool (x, y, z).
    edges : whether voxels belong together that touch by an edge, not only by a face.
    """
    whole = series.read_only(np.ascontiguousarray(mask, dtype=np.bool_))
    nx, ny, _ = whole.shape
    starts = np.zeros(nx * ny + 1, np.int64)
    _count(whole, starts)
    np.cumsum(starts, out=starts)
    runs = np.empty((int(starts[-1]), 3), np.int32)
    _find(whole, starts, runs)
    parents = np.arange(len(runs))
    _join(runs, starts, nx, ny, edges, parents)
    number = _renumber(parents, runs)
    sizes, at_faces = np.zeros(number, np.int64), np.zeros(number, np.bool_)
    _measure(runs, starts, whole.shape, sizes, at_faces)
    return Components(sizes, at_faces, whole.shape, runs, starts)


@compiled
def _count(mask: Mask, starts: Integers) -> None:
    """Runs of each line, one place further on."""
    nx, ny, nz = mask.shape
    for i in range(nx):
        for j in range(ny):
            row = mask[i, j]
            number = np.int64(row[0])
            for m in range(1, nz):
                number += row[m] & (not row[m - 1])
            starts[i * ny + j + 1] = number


@compiled
def _find(mask: Mask, starts: Integers, runs: Runs) -> None:
    nx, ny, nz = mask.shape
    for i in range(nx):
        for j in range(ny):
            at, last, m = starts[i * ny + j], starts[i * ny + j + 1], 0
            row = mask[i, j]
            while at < last:
                while not row[m]:
                    m += 1
                runs[at, 0] = m
                while m < nz and row[m]:
                    m += 1
                runs[at, 1] = m
                at += 1


@compiled
def _join(runs: Runs, starts: Integers, nx: int, ny: int, edges: bool, parents: Integers) -> None:
    for i in range(nx):
        for j in range(ny):
            line = i * ny + j
            if starts[line] == starts[line + 1]:
                continue
            reach = 1 if edges else 0
            if j > 0:
                _touch(runs, starts, line, line - 1, reach, parents)
            if i > 0:
                _touch(runs, starts, line, line - ny, reach, parents)
                if edges and j > 0:
                    _touch(runs, starts, line, line - ny - 1, 0, parents)
                if edges and j + 1 < ny:
                    _touch(runs, starts, line, line - ny + 1, 0, parents)


@compiled
def _touch(runs: Runs, starts: Integers, line: int, other: int, reach: int, parents: Integers) -> None:
    """Join the runs of two lines that have voxels at most `reach` apart along them."""
    a, b = starts[line], starts[other]
    while a < starts[line + 1] and b < starts[other + 1]:
        if runs[a, 0] < runs[b, 1] + reach and runs[b, 0] < runs[a, 1] + reach:
            one, two = _root(parents, a), _root(parents, b)
            parents[max(one, two)] = min(one, two)
        if runs[a, 1] < runs[b, 1]:
            a += 1
        else:
            b += 1


@compiled
def _root(parents: Integers, run: int) -> int:
    while parents[run] != run:
        parents[run] = parents[parents[run]]
        run = parents[run]
    return run


@compiled
def _renumber(parents: Integers, runs: Runs) -> int:
    """Write each run's component; roots are first runs, so that a parent has its number before its children."""
    number = 0
    for run in range(parents.size):
        if parents[run] == run:
            runs[run, 2] = number
            number += 1
        else:
            runs[run, 2] = runs[parents[run], 2]
    return number


@compiled
def _measure(runs: Runs, starts: Integers, shape: tuple[int, int, int], sizes: Integers, at_faces: Mask) -> None:
    nx, ny, nz = shape
    for i in range(nx):
        for j in range(ny):
            beside = i == 0 or j == 0 or i == nx - 1 or j == ny - 1
            for run in range(starts[i * ny + j], starts[i * ny + j + 1]):
                first, last, label = runs[run, 0], runs[run, 1], runs[run, 2]
                sizes[label] += last - first
                at_faces[label] |= beside or first == 0 or last == nz


@compiled
def _paint(runs: Runs, starts: Integers, chosen: Mask, found: Mask) -> None:
    nx, ny, _ = found.shape
    for i in range(nx):
        for j in range(ny):
            for run in range(starts[i * ny + j], starts[i * ny + j + 1]):
                if chosen[runs[run, 2]]:
                    found[i, j, runs[run, 0] : runs[run, 1]] = True
