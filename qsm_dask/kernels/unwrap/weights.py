"""How far two neighbouring voxels may be trusted to differ by less than half a turn of phase.

The weights of ROMEO (doi:10.1002/mrm.28563): each is a coherence in 0 to 1, and an edge
weighs the product of `0.1 + 0.9 coherence` over those in use, quantised to 1..255.

A voxel has a record of four bytes: the weights of its edges to the next voxel along x, y and z,
and its state.
"""

import numpy as np
from numpy.typing import NDArray

from qsm_dask.kernels.jit import compiled
from qsm_dask.kernels.series import Mask, Real, Times

WEIGHTS = {
    "phase_coherence": 1,  # small step of phase
    "phase_gradient": 2,  # the step grows with echo time
    "phase_linearity": 4,  # small second difference on either side
    "magnitude_coherence": 8,  # like magnitudes
    "magnitude_low": 16,  # neither is dark
    "magnitude_high": 32,  # neither is very bright (flow)
}
DEFAULT = ("phase_coherence", "phase_gradient", "phase_linearity", "magnitude_coherence")

PENDING, DONE, OUTSIDE = 0, 1, 2
STATE = 3

_PI = np.float32(np.pi)
_TURN = np.float32(2 * np.pi)
_PER_TURN = np.float32(1 / (2 * np.pi))
_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_FLOOR, _SLOPE = np.float32(0.1), np.float32(0.9)

Records = NDArray[np.uint8]
Indices = NDArray[np.signedinteger]

EVERY_VOXEL: Indices = np.empty(0, np.int32)
"""Where a list of voxels is asked for."""


def chosen(names: tuple[str, ...]) -> int:
    """The weights in use as bits.

    Raises
    ------
    ValueError : none is named, or one is unknown.
    """
    unknown = [name for name in names if name not in WEIGHTS]
    if unknown or not names:
        raise ValueError(f"weights is {list(names)}: name one or more of {', '.join(WEIGHTS)}")
    return sum({WEIGHTS[name] for name in names})


def records(mask: Mask) -> Records:
    """Records (x, y, z, 4) without weights, to do inside the mask and outside elsewhere."""
    found = np.zeros((*mask.shape, 4), dtype=np.uint8)
    np.copyto(found[..., STATE], OUTSIDE, where=~mask)
    return found


def weigh_edges(
    found: Records,
    phase: Real,
    te: Times,
    magnitude: Real | None,
    echo: int,
    use: int,
    owners: Indices = EVERY_VOXEL,
) -> None:
    """Write into the records the weights of the edges that touch a voxel to do and none outside.

    Parameters
    ----------
    found : see `records`; other edges get the weight 0.
    phase : (echo, x, y, z) wrapped phase [rad].
    te : (echo,) echo times [s].
    magnitude : (echo, x, y, z) or None, when the weights that need it are left out.
    echo : the echo, counted from 0; its gradients are compared with those of the next (of the
        one before, if it is the last; the weight is left out, if it is the only one).
    use : bits of `WEIGHTS`.
    owners : the voxels whose records are written, all of them by default.
    """
    other = echo + 1 if echo + 1 < te.size else echo - 1
    if other < 0:
        use &= ~WEIGHTS["phase_gradient"]
        other = echo
    half_bright = 0.0
    if magnitude is None:
        use &= ~(WEIGHTS["magnitude_coherence"] | WEIGHTS["magnitude_low"] | WEIGHTS["magnitude_high"])
    elif use & (WEIGHTS["magnitude_low"] | WEIGHTS["magnitude_high"]):
        half_bright = 0.5 * float(np.percentile(magnitude[echo][found[..., STATE] != OUTSIDE], 95))
    strength = phase[echo] if magnitude is None else magnitude[echo]
    ratio = np.float32(te[echo] / te[other])
    _fill(phase[echo], phase[other], strength, ratio, np.float32(half_bright), use, found, owners)


def voxel_quality(phase: Real, te: Times, magnitude: Real | None, mask: Mask, names: tuple[str, ...] = DEFAULT) -> Real:
    """Mean weight of a voxel's six edges in the first echo, 0 to 1: how reliable its phase is.

    An edge that leaves the mask counts as 0, so that thin layers rate low; one that leaves the
    image does not count at all. Zero outside the mask.
    """
    found = records(mask)
    weigh_edges(found, phase, te, magnitude, 0, chosen(names))
    quality = np.zeros(mask.shape, dtype=np.float32)
    _mean_of_edges(found, quality)
    return quality


@compiled
def _wrapped(step: np.float32) -> np.float32:
    wrapped: np.float32 = step - _TURN * np.rint(step * _PER_TURN)
    return wrapped


@compiled
def _coherence(deviation: np.float32) -> np.float32:
    return _FLOOR + _SLOPE * max(_ZERO, _ONE - abs(deviation))


@compiled
def _fill(
    phase: Real,
    second: Real,
    magnitude: Real,
    ratio: np.float32,
    half_bright: np.float32,
    use: int,
    found: Records,
    owners: Indices,
) -> None:
    nx, ny, nz, _ = found.shape
    lengths, strides = (nx, ny, nz), (ny * nz, nz, 1)
    first, other, strength, record = phase.ravel(), second.ravel(), magnitude.ravel(), found.reshape(-1, 4)
    for k in range(owners.size or record.shape[0]):
        i = int(owners[k]) if owners.size else k
        state = record[i, STATE]
        record[i, 0] = record[i, 1] = record[i, 2] = 0
        if state == OUTSIDE:
            continue
        at = (i // (ny * nz), i // nz % ny, i % nz)
        for axis in range(3):
            stride = strides[axis]
            j = i + stride
            if at[axis] + 1 >= lengths[axis] or record[j, STATE] == OUTSIDE:
                continue
            if state == DONE and record[j, STATE] == DONE:
                continue
            step = _wrapped(first[j] - first[i])
            weight = _ONE
            if use & 1:
                weight *= _coherence(step / _PI)
            if use & 2:
                weight *= _coherence(step - _wrapped(other[j] - other[i]) * ratio)
            if use & 4:
                before = at[axis] > 0 and record[i - stride, STATE] != OUTSIDE
                after = at[axis] + 2 < lengths[axis] and record[j + stride, STATE] != OUTSIDE
                weight *= _linearity(first, i, j, stride, step, before, after)
            if use & 56:
                weight *= _of_magnitudes(strength[i], strength[j], half_bright, use)
            record[i, axis] = np.uint8(max(_ONE, np.rint(np.float32(255) * weight)))


@compiled
def _linearity(phase: Real, i: int, j: int, stride: int, step: np.float32, before: bool, after: bool) -> np.float32:
    """Where one neighbour is missing, the other side counts twice; without both nothing speaks for the edge."""
    left = abs(_wrapped(step - (phase[i] - phase[i - stride]))) * _HALF if before else _ONE
    right = abs(_wrapped(phase[j + stride] - phase[j] - step)) * _HALF if after else _ONE
    if not before:
        left = right
    if not after:
        right = left
    return _FLOOR + _SLOPE * max(_ZERO, _ONE - left) * max(_ZERO, _ONE - right)


@compiled
def _of_magnitudes(a: np.float32, b: np.float32, half_bright: np.float32, use: int) -> np.float32:
    low, high = min(a, b), max(a, b)
    weight = _ONE
    if use & 8:
        ratio = low / high if high > _ZERO else _ZERO
        weight *= _FLOOR + _SLOPE * max(_ZERO, ratio) ** 2
    if use & 16:
        low_enough = min(_ONE, low / half_bright) if half_bright > _ZERO else _ZERO
        weight *= _FLOOR + _SLOPE * (_HALF + _HALF * low_enough)
    if use & 32:
        dark_enough = min(_ONE, half_bright / high) if high > _ZERO else _ONE
        weight *= _FLOOR + _SLOPE * (_HALF + _HALF * dark_enough)
    return weight


@compiled
def _mean_of_edges(found: Records, quality: Real) -> None:
    nx, ny, nz, _ = found.shape
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                if found[x, y, z, STATE] == OUTSIDE:
                    continue
                total, count = 0, 0
                if x + 1 < nx:
                    total += found[x, y, z, 0]
                    count += 1
                if y + 1 < ny:
                    total += found[x, y, z, 1]
                    count += 1
                if z + 1 < nz:
                    total += found[x, y, z, 2]
                    count += 1
                if x > 0:
                    total += found[x - 1, y, z, 0]
                    count += 1
                if y > 0:
                    total += found[x, y - 1, z, 1]
                    count += 1
                if z > 0:
                    total += found[x, y, z - 1, 2]
                    count += 1
                quality[x, y, z] = total / max(1, 255 * count)
