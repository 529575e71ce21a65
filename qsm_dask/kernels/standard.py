"""Maps of a scan on the grid of a template: the registration inverted voxel by voxel, and one interpolation."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsm_dask.kernels.doors import check_mask, check_volume
from qsm_dask.kernels.jit import compiled
from qsm_dask.kernels.series import read_only

Real = NDArray[np.float32]
Mask = NDArray[np.bool_]
Matrix = NDArray[np.float64]

TOLERANCE_MM = 1.0 / 64.0
"""How near to its voxel of the template a position must come: that to which registrations are rounded."""

_STEPS = 24
_HALVINGS = 6
_FITTED, _FEW = 20_000, 1000


def to_template(
    maps: Mapping[str, Real], mask: Mask, positions: Real, shape: tuple[int, int, int], affine: ArrayLike
) -> tuple[dict[str, Real], Real, int]:
    """Resample maps of a scan to a template's grid, each value interpolated once.

    For each voxel of the template the place in the scan is sought that the registration takes there, by Newton's
    method on the positions between voxels (linear), with steps halved while they lead away. There the maps are
    interpolated linearly, among voxels inside the mask only: nothing bleeds in from outside.

    Parameters
    ----------
    maps : (x, y, z) each, on the scan's grid.
    mask : (x, y, z) voxels of the scan that count.
    positions : (axis, x, y, z) position in the template's space of each voxel of the scan [mm].
    shape : of the template's grid.
    affine : (4, 4) of the template, voxel index to position [mm].

    Returns
    -------
    dict : float32 (x, y, z) of the template by name; NaN where less than half of what would be interpolated lies
        inside the mask, and where the registration cannot be inverted.
    float32 (axis, x, y, z) : how far from each voxel of the template the affine map that fits the registration best
        takes its place in the scan [mm]: what the registration does beyond it. NaN where nothing was found.
    int : voxels of the template whose place in the scan was not found within `TOLERANCE_MM`, though it lies in reach
        of the mask.

    Raises
    ------
    ValueError : the mask is empty or so thin that no affine map can be fitted, shapes differ, or a value inside the
        mask is NaN or infinite.
    """
    inside = check_mask(mask)
    for name, values in maps.items():
        check_volume(name, values, inside)
    if positions.shape != (3, *inside.shape) or min(inside.shape) < 2:
        raise ValueError(f"positions have shape {positions.shape}: they must be (3, x, y, z) of the mask's matrix")
    if not all(np.isfinite(along).all() for along in positions):
        raise ValueError("template_position is NaN or infinite in places: run the registration again")
    given, weight = read_only(positions), read_only(inside)
    linear = _fitted(positions, inside)
    back, usual = np.asarray(np.linalg.inv(linear[:, :3]), dtype=np.float64), float(np.linalg.det(linear[:, :3]))
    low, high = _extent(inside)
    grid = np.ascontiguousarray(affine, dtype=np.float64)
    found = {name: np.full(shape, np.nan, dtype=np.float32) for name in maps}
    place = np.empty((3, *shape[1:]), dtype=np.float32)
    shift = np.empty((3, *shape), dtype=np.float32)
    index = np.indices((1, *shape[1:]))[:, 0]
    missed = 0
    for plane in range(shape[0]):
        missed += _invert(given, linear, back, usual, grid, plane, low, high, place)
        for name, values in maps.items():
            _read(read_only(values), weight, place, found[name][plane])
        index[0] = plane
        for axis in range(3):
            there = np.tensordot(linear[axis, :3], place, 1) + linear[axis, 3]
            shift[axis, plane] = there - np.tensordot(grid[axis, :3], index, 1) - grid[axis, 3]
    return found, shift, missed


def _fitted(positions: Real, inside: Mask) -> Matrix:
    """The affine map (3, 4) from voxel index to position that fits best inside the mask."""
    step = max(1, int(np.cbrt(np.count_nonzero(inside) / _FITTED)))
    found = step * np.argwhere(inside[::step, ::step, ::step])
    index = tuple((found if len(found) >= _FEW else np.argwhere(inside)).T)
    columns = np.column_stack([*index, np.ones(len(index[0]))])
    wanted = np.column_stack([along[index] for along in positions]).astype(np.float64)
    solution, _, rank, _ = np.linalg.lstsq(columns, wanted, rcond=None)
    if rank < 4 or abs(np.linalg.det(solution[:3])) < 1e-9:
        raise ValueError("mask is too thin, or the registration too flat, to fit an affine map to it")
    return np.ascontiguousarray(solution.T)


def _extent(inside: Mask) -> tuple[Matrix, Matrix]:
    """First and last index of the mask along each axis, and a voxel more."""
    along = [np.flatnonzero(inside.any(axis=tuple(other for other in range(3) if other != axis))) for axis in range(3)]
    low = np.array([one[0] - 1.0 for one in along])
    return low, np.array([one[-1] + 1.0 for one in along])


@compiled
def _at(positions: Real, linear: Matrix, v: Matrix, p: Matrix, slope: Matrix) -> None:
    """Position and its slope at a place between voxels; beyond the outermost ones it goes on as the affine map does."""
    low = np.empty(3, dtype=np.int64)
    part = np.empty(3, dtype=np.float64)
    rest = np.empty(3, dtype=np.float64)
    for axis in range(3):
        size = positions.shape[1 + axis]
        held = min(max(v[axis], 0.0), size - 1.0)
        low[axis] = min(int(held), size - 2)
        part[axis] = held - low[axis]
        rest[axis] = v[axis] - held
    for row in range(3):
        value = 0.0
        for axis in range(3):
            slope[row, axis] = 0.0
        for corner in range(8):
            da, db, dc = corner >> 2 & 1, corner >> 1 & 1, corner & 1
            a = part[0] if da else 1.0 - part[0]
            b = part[1] if db else 1.0 - part[1]
            c = part[2] if dc else 1.0 - part[2]
            here = positions[row, low[0] + da, low[1] + db, low[2] + dc]
            value += a * b * c * here
            slope[row, 0] += (b * c if da else -b * c) * here
            slope[row, 1] += (a * c if db else -a * c) * here
            slope[row, 2] += (a * b if dc else -a * b) * here
        for axis in range(3):
            value += linear[row, axis] * rest[axis]
            if rest[axis] != 0.0:
                slope[row, axis] = linear[row, axis]
        p[row] = value


@compiled
def _solved(slope: Matrix, r: Matrix, back: Matrix, usual: float, step: Matrix) -> None:
    """The step that takes a residual away; that of the affine map where the slope folds."""
    a, b, c = slope[0, 0], slope[0, 1], slope[0, 2]
    d, e, f = slope[1, 0], slope[1, 1], slope[1, 2]
    g, h, i = slope[2, 0], slope[2, 1], slope[2, 2]
    determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    if determinant * usual <= 0.01 * usual * usual:
        for axis in range(3):
            step[axis] = back[axis, 0] * r[0] + back[axis, 1] * r[1] + back[axis, 2] * r[2]
        return
    step[0] = ((e * i - f * h) * r[0] + (c * h - b * i) * r[1] + (b * f - c * e) * r[2]) / determinant
    step[1] = ((f * g - d * i) * r[0] + (a * i - c * g) * r[1] + (c * d - a * f) * r[2]) / determinant
    step[2] = ((d * h - e * g) * r[0] + (b * g - a * h) * r[1] + (a * e - b * d) * r[2]) / determinant


@compiled
def _place_of(
    target: Matrix,
    v: Matrix,
    positions: Real,
    linear: Matrix,
    back: Matrix,
    usual: float,
    low: Matrix,
    high: Matrix,
) -> bool:
    """Move `v` to where the positions reach the target; whether it did, or left the mask's reach for good."""
    p, slope = np.empty(3), np.empty((3, 3))
    r, step, tried = np.empty(3), np.empty(3), np.empty(3)
    _at(positions, linear, v, p, slope)
    off = 0.0
    for axis in range(3):
        r[axis] = target[axis] - p[axis]
        off += r[axis] * r[axis]
    for _ in range(_STEPS):
        if off <= TOLERANCE_MM * TOLERANCE_MM / 16.0:
            return True
        _solved(slope, r, back, usual, step)
        share = 1.0
        for _ in range(_HALVINGS):
            for axis in range(3):
                tried[axis] = v[axis] + share * step[axis]
            _at(positions, linear, tried, p, slope)
            now = 0.0
            for axis in range(3):
                now += (target[axis] - p[axis]) ** 2
            if now < off:
                break
            share *= 0.5
        if not now < off:
            break
        off = now
        for axis in range(3):
            v[axis] = tried[axis]
            r[axis] = target[axis] - p[axis]
    if off <= TOLERANCE_MM * TOLERANCE_MM:
        return True
    away = False
    for axis in range(3):
        away |= v[axis] < low[axis] or v[axis] > high[axis]
    return away


@compiled
def _invert(
    positions: Real,
    linear: Matrix,
    back: Matrix,
    usual: float,
    grid: Matrix,
    plane: int,
    low: Matrix,
    high: Matrix,
    place: Real,
) -> int:
    """The places in the scan [voxel] of one plane of the template; NaN where none is found. How many were not."""
    ny, nz = place.shape[1:]
    target, v = np.empty(3), np.empty(3)
    missed = 0
    for j in range(ny):
        found = False
        for k in range(nz):
            for axis in range(3):
                before = target[axis]
                target[axis] = grid[axis, 0] * plane + grid[axis, 1] * j + grid[axis, 2] * k + grid[axis, 3]
                if found:  # from the place of the voxel before
                    p = target[axis] - before
                    for other in range(3):
                        v[other] += back[other, axis] * p
            if not found:
                for other in range(3):
                    v[other] = 0.0
                    for axis in range(3):
                        v[other] += back[other, axis] * (target[axis] - linear[axis, 3])
            found = _place_of(target, v, positions, linear, back, usual, low, high)
            missed += not found
            for axis in range(3):
                place[axis, j, k] = v[axis] if found else np.nan
    return missed


@compiled
def _read(values: Real, mask: Mask, place: Real, found: Real) -> None:
    """Values at places between voxels, weighted by what of them the mask holds."""
    ny, nz = found.shape
    sx, sy, sz = values.shape
    for j in range(ny):
        for k in range(nz):
            x, y, z = place[0, j, k], place[1, j, k], place[2, j, k]
            if not (x >= 0.0 and y >= 0.0 and z >= 0.0 and x <= sx - 1.0 and y <= sy - 1.0 and z <= sz - 1.0):
                continue
            a, b, c = min(int(x), sx - 2), min(int(y), sy - 2), min(int(z), sz - 2)
            u, v, w = x - a, y - b, z - c
            total, held = 0.0, 0.0
            for corner in range(8):
                da, db, dc = corner >> 2 & 1, corner >> 1 & 1, corner & 1
                if mask[a + da, b + db, c + dc]:
                    weight = (u if da else 1.0 - u) * (v if db else 1.0 - v) * (w if dc else 1.0 - w)
                    held += weight
                    total += weight * values[a + da, b + db, c + dc]
            if held >= 0.5:
                found[j, k] = total / held
