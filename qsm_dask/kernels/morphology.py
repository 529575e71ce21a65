"""Erosion and dilation of masks by spheres, sixty-four voxels at a time.

A line of voxels along the last axis is a few words of bits. A sphere is a set of lines, each of which reaches so far to
either side; so the lines of a mask, widened by each reach that occurs, are joined over the sphere's disc.
"""

import numpy as np
from numpy.typing import NDArray

from qsm_dask.kernels.distance import reach
from qsm_dask.kernels.doors import Mask, Vector
from qsm_dask.kernels.jit import compiled

Words = NDArray[np.uint64]
Integers = NDArray[np.int64]

_BITS = 64


def eroded(mask: Mask, voxel_size: Vector, depth_mm: float) -> Mask:
    """The voxels deeper than a length, as if the image went on beyond its faces.

    Parameters
    ----------
    mask : bool (x, y, z).
    voxel_size : spacing [mm].
    depth_mm : distance [mm] from its centre to that of the nearest voxel outside, which a voxel must exceed to stay.
    """
    return ~dilated(~mask, voxel_size, depth_mm)


def dilated(mask: Mask, voxel_size: Vector, reach_mm: float) -> Mask:
    """The voxels within a length of the mask, between centres [mm]; see `eroded`.

    Whatever lies beyond a face is a copy of the face, and so never nearer than the face itself.
    """
    nz = mask.shape[2]
    bits = _packed(mask)
    disc = _disc(voxel_size, reach_mm)
    result = np.zeros_like(bits)
    widened, width = bits.copy(), 0
    for x, y, half in disc[np.argsort(disc[:, 2], kind="stable")]:
        while width < half:
            _widen(widened)
            width += 1
        _join(widened, result, x, y)
    return np.unpackbits(result.view(np.uint8), axis=2, count=nz, bitorder="little").view(np.bool_)


def _packed(mask: Mask) -> Words:
    nx, ny, nz = mask.shape
    few = np.packbits(mask, axis=2, bitorder="little")
    octets = np.zeros((nx, ny, 8 * -(-nz // _BITS)), np.uint8)
    octets[:, :, : few.shape[2]] = few
    return octets.view("<u8")


def _disc(size: Vector, radius_mm: float) -> Integers:
    """The lines of a sphere: steps along the first two axes, and how far it reaches along the last."""
    square = reach(radius_mm)
    x, y = (np.arange(-n, n + 1) for n in (int(square**0.5 / length) for length in size[:2]))
    left = square - (x[:, None] * size[0]) ** 2 - (y[None, :] * size[1]) ** 2
    i, j = np.nonzero(left >= 0)
    half = np.floor(np.sqrt(left[i, j]) / size[2])
    return np.column_stack([x[i], y[j], half]).astype(np.int64)


@compiled
def _widen(bits: Words) -> None:
    """Let every line reach one voxel further to both sides, in place."""
    nx, ny, words = bits.shape
    one, top = np.uint64(1), np.uint64(_BITS - 1)
    for i in range(nx):
        for j in range(ny):
            before = np.uint64(0)
            for w in range(words):
                here = bits[i, j, w]
                after = bits[i, j, w + 1] if w + 1 < words else np.uint64(0)
                bits[i, j, w] = here | (here << one) | (here >> one) | (before >> top) | (after << top)
                before = here


@compiled
def _join(bits: Words, result: Words, x: int, y: int) -> None:
    """Add to each line the one so many steps away, where there is one."""
    nx, ny, words = bits.shape
    for i in range(max(0, -x), min(nx, nx - x)):
        for j in range(max(0, -y), min(ny, ny - y)):
            for w in range(words):
                result[i, j, w] |= bits[i + x, j + y, w]
