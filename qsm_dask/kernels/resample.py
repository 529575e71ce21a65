"""Reading images of another space at the positions that a registration or a header gives to the voxels of a scan.

Each image is interpolated once, between its own grid and the scan's.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsm_dask.kernels.jit import compiled
from qsm_dask.kernels.series import read_only

Real = NDArray[np.float32]
Labels = NDArray[np.int32]

_CORNERS = 8


def sample(values: NDArray[Any], affine: ArrayLike, positions: Real) -> Real:
    """An image at positions in its space, linear between voxel centres.

    Parameters
    ----------
    values : (x, y, z), read as float32.
    affine : (4, 4), voxel index to position [mm].
    positions : (axis, x, y, z) [mm].

    Returns
    -------
    float32 (x, y, z), 0 beyond the outermost voxel centres of the image.

    Raises
    ------
    ValueError : shapes or affine are none of these.
    """
    image = read_only(np.asarray(values, dtype=np.float32))
    found = np.zeros(_checked(image, positions), dtype=np.float32)
    _sample(image, *voxel_of(affine), read_only(positions), found)
    return found


def carry_labels(
    labels: NDArray[Any], affine: ArrayLike, positions: Real, around: ArrayLike = ((0.0, 0.0, 0.0),)
) -> Labels:
    """A label image at positions in its space: the label that fills most of what linear interpolation reads.

    The share of each label among the eight voxel centres around a position is interpolated linearly and the
    largest wins, the background among them: edges lie where those of smooth regions do, to a part of a voxel of the
    template, and no label appears that is not there. The lower of two that are equal wins. Where voxels of the scan
    are larger than those of the image, the shares at several points of each are added.

    Parameters
    ----------
    labels : (x, y, z) integers from 0 to 2^31 - 1.
    affine : (4, 4), voxel index to position [mm].
    positions : (axis, x, y, z) [mm].
    around : (point, axis) [mm] from the position of a voxel to the points of it that count, in the image's space.

    Returns
    -------
    int32 (x, y, z); beyond the outermost voxel centres of the image there is background.

    Raises
    ------
    ValueError : labels are no integers, or shapes or affine are none of these.
    """
    source = label_image(labels)
    found = np.zeros(_checked(source, positions), dtype=np.int32)
    matrix, offset = voxel_of(affine)
    points = np.asarray(around, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3 or points.shape[0] == 0:
        raise ValueError(f"around has shape {points.shape}: it must be (point, 3), at least one point")
    steps = np.ascontiguousarray(points @ matrix.T)
    _carry(source, matrix, offset, read_only(positions), read_only(steps), found)
    return found


def label_image(labels: NDArray[Any]) -> Labels:
    """Labels as int32, read only.

    Raises
    ------
    ValueError : they are no integers, or do not lie in 0 to 2^31 - 1.
    """
    image = np.asarray(labels)
    if image.dtype.kind not in "iub":
        raise ValueError(f"labels are of {image.dtype}: they must be integers")
    if image.size and (image.min() < 0 or image.max() >= 2**31):
        raise ValueError(f"labels reach from {image.min()} to {image.max()}: they must lie in 0 to 2147483647")
    found: Labels = read_only(image.astype(np.int32, copy=False))
    return found


def jacobian(positions: Real, affine: ArrayLike) -> Real:
    """Volume in the template's space over volume in the scan, at each voxel.

    Parameters
    ----------
    positions : (axis, x, y, z) [mm].
    affine : (4, 4) of the scan.

    Returns
    -------
    float32 (x, y, z): determinant of the change of `positions` per mm; negative where the map folds.
    """
    matrix = np.asarray(affine, dtype=np.float64)[:3, :3]
    if min(positions.shape[1:]) < 2:
        raise ValueError(f"a volume of {positions.shape[1:]} voxels has no slope along each axis")
    found = np.empty(positions.shape[1:], dtype=np.float32)
    _jacobian(read_only(positions), np.asarray(np.linalg.inv(matrix), dtype=np.float64), found)
    return found


def refined(coarse: Real, step: tuple[int, int, int], shape: tuple[int, int, int]) -> Real:
    """Positions on a grid from those on a coarser one, each of whose voxels holds `step` finer ones.

    Linear between the centres of coarse voxels, and continued beyond the outermost of them.

    Parameters
    ----------
    coarse : (axis, x, y, z) [mm].
    step : finer voxels in a coarser one along each axis.
    shape : of the finer grid.

    Returns
    -------
    float32 (axis, *shape).
    """
    found = np.empty((3, *shape), dtype=np.float32)
    _refine(read_only(coarse), np.array(step, dtype=np.int64), found)
    return found


def block_mean(values: NDArray[Any], step: tuple[int, int, int]) -> Real:
    """Mean over blocks of `step` voxels; a last block that is not whole is the mean of what there is.

    Parameters
    ----------
    values : (x, y, z).
    step : voxels of a block along each axis.

    Returns
    -------
    float32 (x, y, z), every length divided by the step, rounded up.
    """
    found = np.asarray(values, dtype=np.float32)
    for axis, size in enumerate(step):
        if size > 1:
            starts = np.arange(0, found.shape[axis], size)
            counts = np.diff(np.append(starts, found.shape[axis])).astype(np.float32)
            shape = [-1 if other == axis else 1 for other in range(3)]
            found = np.asarray(np.add.reduceat(found, starts, axis=axis) / counts.reshape(shape), dtype=np.float32)
    return np.ascontiguousarray(found, dtype=np.float32)


def _checked(image: NDArray[Any], positions: Real) -> tuple[int, ...]:
    if image.ndim != 3 or min(image.shape) < 2:
        raise ValueError(f"an image of shape {image.shape} cannot be interpolated: (x, y, z), at least 2 voxels each")
    if positions.ndim != 4 or positions.shape[0] != 3 or positions.dtype != np.float32:
        raise ValueError(f"positions are {positions.dtype} {positions.shape}: they must be float32 (3, x, y, z)")
    return positions.shape[1:]


def voxel_of(affine: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Matrix and offset that take positions to voxel indices."""
    matrix = np.asarray(affine, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:3, :3])) < 1e-12:
        raise ValueError(f"the affine {matrix.tolist()} takes voxels to no volume")
    inverse = np.linalg.inv(matrix)
    return np.ascontiguousarray(inverse[:3, :3]), np.ascontiguousarray(inverse[:3, 3])


@compiled
def cell_at(at: float, size: int) -> tuple[int, float]:
    """The voxel below a position and the way from it to the next; a negative voxel is outside."""
    if not (at >= 0.0 and at <= size - 1.0):
        return -1, 0.0
    low = min(int(at), size - 2)
    return low, at - low


@compiled
def _sample(
    image: Real, matrix: NDArray[np.float64], offset: NDArray[np.float64], positions: Real, found: Real
) -> None:
    nx, ny, nz = found.shape
    sx, sy, sz = image.shape
    for i in range(nx):
        for j in range(ny):
            for k in range(nz):
                x, y, z = positions[0, i, j, k], positions[1, i, j, k], positions[2, i, j, k]
                a, u = cell_at(matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] * z + offset[0], sx)
                b, v = cell_at(matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] * z + offset[1], sy)
                c, w = cell_at(matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] * z + offset[2], sz)
                if a >= 0 and b >= 0 and c >= 0:
                    near = (1 - v) * ((1 - w) * image[a, b, c] + w * image[a, b, c + 1])
                    near += v * ((1 - w) * image[a, b + 1, c] + w * image[a, b + 1, c + 1])
                    far = (1 - v) * ((1 - w) * image[a + 1, b, c] + w * image[a + 1, b, c + 1])
                    far += v * ((1 - w) * image[a + 1, b + 1, c] + w * image[a + 1, b + 1, c + 1])
                    found[i, j, k] = (1 - u) * near + u * far


@compiled
def _carry(
    image: Labels,
    matrix: NDArray[np.float64],
    offset: NDArray[np.float64],
    positions: Real,
    steps: NDArray[np.float64],
    found: Labels,
) -> None:
    nx, ny, nz = found.shape
    met = np.empty(_CORNERS * steps.shape[0] + 1, dtype=np.int32)
    share = np.empty(met.size, dtype=np.float64)
    for i in range(nx):
        for j in range(ny):
            for k in range(nz):
                x, y, z = positions[0, i, j, k], positions[1, i, j, k], positions[2, i, j, k]
                u = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] * z + offset[0]
                v = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] * z + offset[1]
                w = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] * z + offset[2]
                count = 0
                for point in range(steps.shape[0]):
                    count = _shares(
                        image, u + steps[point, 0], v + steps[point, 1], w + steps[point, 2], met, share, count
                    )
                best = 0
                for place in range(1, count):
                    if share[place] > share[best] or (share[place] == share[best] and met[place] < met[best]):
                        best = place
                found[i, j, k] = met[best]


@compiled
def _shares(image: Labels, x: float, y: float, z: float, met: Labels, share: NDArray[np.float64], count: int) -> int:
    """Add the shares of labels at one point to those met before; how many labels there are now."""
    sx, sy, sz = image.shape
    a, u = cell_at(x, sx)
    b, v = cell_at(y, sy)
    c, w = cell_at(z, sz)
    if a < 0 or b < 0 or c < 0:
        return _met(0, 1.0, met, share, count)
    near = image[a, b, c]
    alike = image[a, b, c + 1] == near and image[a, b + 1, c] == near and image[a, b + 1, c + 1] == near
    alike = alike and image[a + 1, b, c] == near and image[a + 1, b, c + 1] == near
    if alike and image[a + 1, b + 1, c] == near and image[a + 1, b + 1, c + 1] == near:
        return _met(near, 1.0, met, share, count)
    for corner in range(_CORNERS):
        da, db, dc = corner >> 2 & 1, corner >> 1 & 1, corner & 1
        weight = (u if da else 1 - u) * (v if db else 1 - v) * (w if dc else 1 - w)
        count = _met(image[a + da, b + db, c + dc], weight, met, share, count)
    return count


@compiled
def _met(label: int, weight: float, met: Labels, share: NDArray[np.float64], count: int) -> int:
    place = 0
    while place < count and met[place] != label:
        place += 1
    if place == count:
        met[place] = label
        share[place] = 0.0
        count += 1
    share[place] += weight
    return count


@compiled
def _slope(positions: Real, row: int, i: int, j: int, k: int, axis: int) -> float:
    """Change of one coordinate per voxel along an axis, over two voxels where there are two."""
    size = positions.shape[1 + axis]
    at = (i, j, k)[axis]
    low, high = max(at - 1, 0), min(at + 1, size - 1)
    if axis == 0:
        change = positions[row, high, j, k] - positions[row, low, j, k]
    elif axis == 1:
        change = positions[row, i, high, k] - positions[row, i, low, k]
    else:
        change = positions[row, i, j, high] - positions[row, i, j, low]
    return float(change / (high - low))


@compiled
def _jacobian(positions: Real, per_mm: NDArray[np.float64], found: Real) -> None:
    nx, ny, nz = found.shape
    slopes = np.empty((3, 3), dtype=np.float64)
    scale = np.linalg.det(per_mm)
    for i in range(nx):
        for j in range(ny):
            for k in range(nz):
                for row in range(3):
                    for axis in range(3):
                        slopes[row, axis] = _slope(positions, row, i, j, k, axis)
                determinant = slopes[0, 0] * (slopes[1, 1] * slopes[2, 2] - slopes[1, 2] * slopes[2, 1])
                determinant -= slopes[0, 1] * (slopes[1, 0] * slopes[2, 2] - slopes[1, 2] * slopes[2, 0])
                determinant += slopes[0, 2] * (slopes[1, 0] * slopes[2, 1] - slopes[1, 1] * slopes[2, 0])
                found[i, j, k] = determinant * scale


@compiled
def _cell(index: int, step: int, size: int) -> tuple[int, float]:
    """The coarse voxel below a fine one and the way to the next, below 0 or above 1 beyond the outermost."""
    if size == 1:
        return 0, 0.0
    at = (index - 0.5 * (step - 1)) / step
    low = min(max(int(np.floor(at)), 0), size - 2)
    return low, at - low


@compiled
def _refine(coarse: Real, step: NDArray[np.int64], found: Real) -> None:
    nx, ny, nz = found.shape[1:]
    sx, sy, sz = coarse.shape[1:]
    for i in range(nx):
        a, u = _cell(i, step[0], sx)
        e = min(a + 1, sx - 1)
        for j in range(ny):
            b, v = _cell(j, step[1], sy)
            f = min(b + 1, sy - 1)
            for k in range(nz):
                c, w = _cell(k, step[2], sz)
                g = min(c + 1, sz - 1)
                for row in range(3):
                    near = (1 - v) * ((1 - w) * coarse[row, a, b, c] + w * coarse[row, a, b, g])
                    near += v * ((1 - w) * coarse[row, a, f, c] + w * coarse[row, a, f, g])
                    far = (1 - v) * ((1 - w) * coarse[row, e, b, c] + w * coarse[row, e, b, g])
                    far += v * ((1 - w) * coarse[row, e, f, c] + w * coarse[row, e, f, g])
                    found[row, i, j, k] = (1 - u) * near + u * far
