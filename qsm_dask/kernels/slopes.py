"""Slopes of a map from voxel to voxel: where an image has edges, and penalties on the slopes elsewhere."""

import numpy as np
from numpy.typing import NDArray

from qsm_dask.kernels import fourier
from qsm_dask.kernels.doors import Mask, Vector
from qsm_dask.kernels.fourier import Floats, Shape, Volume
from qsm_dask.kernels.jit import compiled, prange, spread

Edges = NDArray[np.uint8]


def find_edges(image: Volume | None, mask: Mask, shape: Shape, voxel_size: Vector, fraction: float) -> Edges:
    """The surface of a mask, and the strongest slopes of an image inside it.

    Parameters
    ----------
    image : magnitude (x, y, z), or none.
    mask : voxels of the image that are read.
    shape : of the edges, at least the mask's; the mask lies in its first corner.
    voxel_size : spacing [mm].
    fraction : share of the slopes inside the mask that count as edges.

    Returns
    -------
    edges : one bit an axis, whether the difference to the next voxel is an edge; of `shape`.
    """
    edges, inside = np.zeros(shape, np.uint8), np.zeros(shape, np.bool_)
    x, y, z = mask.shape
    inside[:x, :y, :z] = mask
    image = None if image is None else fourier.pad(image, mask, shape)
    pairs, slopes = [], []
    for axis in range(3):
        ahead = np.roll(inside, -1, axis)
        edges |= (inside != ahead).astype(np.uint8) << axis
        pairs.append(inside & ahead)
        if image is not None:
            slopes.append(np.abs(np.roll(image, -1, axis) - image) / np.float32(voxel_size[axis]))
    if slopes and fraction:
        found = np.concatenate([slope[pair] for slope, pair in zip(slopes, pairs, strict=True)])
        limit = float(np.quantile(found, 1 - fraction)) if found.size else 0.0
        for axis, (slope, pair) in enumerate(zip(slopes, pairs, strict=True)):
            edges |= (pair & (slope > limit)).astype(np.uint8) << axis
    return edges


def per_mm2(voxel_size: Vector) -> Volume:
    """Inverse squared voxel size along each axis [1/mm^2]."""
    inverse: Volume = (1 / np.square(voxel_size)).astype(np.float32)
    return inverse


def reweigh(x: Volume, edges: Edges, data: Volume | Mask, per_mm2: Volume, flat: np.float32, weights: Volume) -> float:
    """The weights of squared slopes that make their sum that of absolute slopes away from edges.

    Parameters
    ----------
    x : a volume, on a periodic grid.
    edges : of the grid.
    data : positive (or true) where there are data, in the grid's first corner.
    per_mm2 : inverse squared voxel size along each axis [1/mm^2].
    flat : added to the squared slopes under the root [unit of x^2/mm^2].
    weights : takes the result (3, grid).

    Returns
    -------
    float : the mean of the weights where there are data.
    """
    sums = np.empty((x.shape[0], 2))
    _reweigh(x, edges, data, per_mm2, flat, weights, sums)
    total, count = sums.sum(axis=0).tolist()
    return float(total / (count + 1))


@spread
def _reweigh(
    x: Volume, edges: Edges, data: Volume | Mask, per_mm2: Volume, flat: np.float32, weights: Volume, sums: Floats
) -> None:
    for i in prange(x.shape[0]):
        _reweigh_plane(x, edges, data, per_mm2, flat, weights, sums, i)


@compiled
def _reweigh_plane(
    x: Volume,
    edges: Edges,
    data: Volume | Mask,
    per_mm2: Volume,
    flat: np.float32,
    weights: Volume,
    sums: Floats,
    i: int,
) -> None:
    nx, ny, nz = x.shape
    ax, ay, az = data.shape
    total, count = 0.0, 0
    for j in range(ny):
        for m in range(nz):
            here = x[i, j, m]
            within = i < ax and j < ay and m < az and data[i, j, m] > 0
            bits = edges[i, j, m]
            for axis in range(3):
                if axis == 0:
                    other = x[(i + 1) % nx, j, m]
                elif axis == 1:
                    other = x[i, (j + 1) % ny, m]
                else:
                    other = x[i, j, (m + 1) % nz]
                square = (other - here) * (other - here) * per_mm2[axis]
                weight = np.float32(0.0) if (bits >> axis) & 1 else np.float32(1.0) / np.sqrt(square + flat)
                weights[axis, i, j, m] = weight
                if within:
                    total += float(weight)
                    count += 1
    sums[i, 0], sums[i, 1] = total, count


def curvature(x: Volume, weights: Volume, per_mm2: Volume, out: Volume) -> None:
    """The adjoint gradient of the weighted gradient of x, on the periodic grid.

    Parameters
    ----------
    x : a padded volume.
    weights : of the squared slope to the next voxel along each axis (3, padded volume).
    per_mm2 : inverse squared voxel size along each axis [1/mm^2].
    out : takes the result [unit of x / mm^2].
    """
    _curvature(x, weights, per_mm2, out)


@spread
def _curvature(x: Volume, weights: Volume, per_mm2: Volume, out: Volume) -> None:
    for i in prange(x.shape[0]):
        _curvature_plane(x, weights, per_mm2, out, i)


@compiled
def _curvature_plane(x: Volume, weights: Volume, per_mm2: Volume, out: Volume, i: int) -> None:
    nx, ny, nz = x.shape
    px, py, pz = per_mm2[0], per_mm2[1], per_mm2[2]
    ib = i - 1 if i else nx - 1
    plane, ahead, behind, wx, wx_behind = x[i], x[i + 1 if i + 1 < nx else 0], x[ib], weights[0, i], weights[0, ib]
    for j in range(ny):
        ja, jb = (j + 1 if j + 1 < ny else 0), (j - 1 if j else ny - 1)
        here, above, below, wz = plane[j], plane[ja], plane[jb], weights[2, i, j]
        wy, wy_below = weights[1, i, j], weights[1, i, jb]
        for m in range(nz):
            ma, mb = (m + 1 if m + 1 < nz else 0), (m - 1 if m else nz - 1)
            value = here[m]
            out[i, j, m] = (
                px * (wx[j, m] * (value - ahead[j, m]) + wx_behind[j, m] * (value - behind[j, m]))
                + py * (wy[m] * (value - above[m]) + wy_below[m] * (value - below[m]))
                + pz * (wz[m] * (value - here[ma]) + wz[mb] * (value - here[mb]))
            )
