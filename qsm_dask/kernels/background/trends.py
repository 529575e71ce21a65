"""Trends of susceptibility across a head that no field inside it shows, taken off by what tissue is like.

A trend t with  laplacian(t) / 3 = (b . grad)^2 t  makes a harmonic field wherever it is smooth: inside the mask the
field cannot tell it from background. Linear trends are such, and five of the six quadratic ones, the growth
with the square of the radius among them. A small norm, or sparse edges, choose among them by the contrast between the
cortex and the middle of the brain, and are wrong. Tissue itself has none: of the steps from one place to the next most
are small, and a trend biases all of them.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from qsm_dask.kernels.doors import Mask, Vector
from qsm_dask.kernels.fourier import Floats, Volume
from qsm_dask.kernels.jit import compiled

_STEP_MM = 4.0
"""Length of the steps that are compared [mm]: longer ones lead to another tissue more often, shorter ones show less of
a trend where the map is smooth."""
_LAYERS = 2
"""Voxels below the surface that are not compared: what is found there is mostly a guess."""
_ROUNDS, _SETTLED = 50, 1e-3
_MAD = 1.4826
_LINEAR, _QUADRATIC = 3, 5


def without_trend(sources: Volume, mask: Mask, voxel_size: Vector, b0_dir: Vector) -> Volume:
    """Sources less the trend of their steps that the field cannot show.

    The trend is the robust mode of steps: it maximises the sum over them of exp(-(step - trend)^2 / (2 s^2)),
    with s their median absolute value as a standard deviation. Steps to another tissue count little.

    Parameters
    ----------
    sources : susceptibility (x, y, z), zero outside the mask [ppm].
    mask : where there are sources.
    voxel_size : spacing [mm].
    b0_dir : unit vector of B0 in array axes.

    Returns
    -------
    sources : without the trend, which has no mean inside the mask.
    """
    inner = ndimage.binary_erosion(mask, iterations=_LAYERS)
    size = np.asarray(voxel_size, np.float64)
    strides = np.maximum(np.rint(_STEP_MM / size), 1).astype(np.int64)
    scale = _spread(sources, inner, strides)
    if not scale > 0.0:
        return sources
    middle = np.array([(n - 1) / 2 for n in mask.shape])
    forms = np.concatenate([np.zeros((_LINEAR, 3, 3)), hidden_forms(b0_dir)])
    found = np.zeros(_LINEAR + _QUADRATIC)
    sums = np.empty((mask.shape[0], found.size, found.size + 1))
    for _ in range(_ROUNDS):
        _normal_equations(sources, inner, strides, size, middle, forms, found, scale, sums)
        equations = sums.sum(axis=0)
        before, found = found, np.linalg.lstsq(equations[:, :-1], equations[:, -1], rcond=None)[0]
        if np.linalg.norm(found - before) <= _SETTLED * np.linalg.norm(found):
            break
    trend = np.zeros_like(sources)
    _evaluate(trend, mask, size, middle, found[:_LINEAR], np.tensordot(found, forms, 1))
    trend -= np.float32(trend[mask].mean(dtype=np.float64)) * mask
    return sources - trend


def hidden_forms(b0_dir: Vector) -> Floats:
    """An orthonormal basis of the quadratic forms (5, 3, 3) whose field is harmonic: trace / 3 = b . Q b."""
    b = np.asarray(b0_dir, np.float64)
    constraint = (np.eye(3) / 3 - np.outer(b, b)).ravel()
    pairs = [(i, j) for i in range(3) for j in range(i, 3)]
    symmetric = np.zeros((len(pairs), 9))
    for row, (i, j) in enumerate(pairs):
        symmetric[row, 3 * i + j] = symmetric[row, 3 * j + i] = 1.0 if i == j else np.sqrt(0.5)
    rest = np.linalg.svd((symmetric @ constraint)[None])[2][1:]
    forms: Floats = (rest @ symmetric).reshape(_QUADRATIC, 3, 3)
    return forms


def _spread(sources: Volume, inner: Mask, strides: NDArray[np.int64]) -> float:
    """The typical step, averaged over the axes: one axis at a time, as steps are as large as the sources."""
    typical = []
    for axis, stride in enumerate(strides):
        ahead, behind = np.moveaxis(sources, axis, 0)[stride:], np.moveaxis(sources, axis, 0)[:-stride]
        both = np.moveaxis(inner, axis, 0)
        both = both[stride:] & both[:-stride]
        if both.any():
            typical.append(_MAD * float(np.median(np.abs(ahead[both] - behind[both]))))
    return float(np.mean(typical)) if typical else 0.0


@compiled
def _normal_equations(
    sources: Volume,
    inner: Mask,
    strides: NDArray[np.int64],
    size: Floats,
    middle: Floats,
    forms: Floats,
    found: Floats,
    scale: float,
    sums: Floats,
) -> None:
    """The weighted normal equations of the trend's steps, their right side in the last column, plane by plane."""
    nx, ny, nz = sources.shape
    terms = found.size
    slope, place = np.empty(terms), np.empty(3)
    for i in range(nx):
        sums[i] = 0.0
        for j in range(ny):
            for m in range(nz):
                if not inner[i, j, m]:
                    continue
                for axis in range(3):
                    a = i + strides[0] if axis == 0 else i
                    b = j + strides[1] if axis == 1 else j
                    c = m + strides[2] if axis == 2 else m
                    if a >= nx or b >= ny or c >= nz or not inner[a, b, c]:
                        continue
                    place[0] = (0.5 * (i + a) - middle[0]) * size[0]
                    place[1] = (0.5 * (j + b) - middle[1]) * size[1]
                    place[2] = (0.5 * (m + c) - middle[2]) * size[2]
                    length = strides[axis] * size[axis]
                    step = np.float64(sources[a, b, c]) - np.float64(sources[i, j, m])
                    left = step
                    for term in range(terms):
                        if term < 3:
                            slope[term] = length if term == axis else 0.0
                        else:
                            row = forms[term, axis]
                            slope[term] = 2 * length * (row[0] * place[0] + row[1] * place[1] + row[2] * place[2])
                        left -= found[term] * slope[term]
                    weight = np.exp(-0.5 * (left / scale) ** 2)
                    for term in range(terms):
                        weighted = weight * slope[term]
                        for other in range(terms):
                            sums[i, term, other] += weighted * slope[other]
                        sums[i, term, terms] += weighted * step


@compiled
def _evaluate(trend: Volume, mask: Mask, size: Floats, middle: Floats, linear: Floats, form: Floats) -> None:
    """The polynomial at the voxels of the mask."""
    nx, ny, nz = trend.shape
    for i in range(nx):
        x = (i - middle[0]) * size[0]
        for j in range(ny):
            y = (j - middle[1]) * size[1]
            flat = linear[0] * x + linear[1] * y + form[0, 0] * x * x + form[1, 1] * y * y + 2 * form[0, 1] * x * y
            tilt = linear[2] + 2 * form[0, 2] * x + 2 * form[1, 2] * y
            for m in range(nz):
                if mask[i, j, m]:
                    z = (m - middle[2]) * size[2]
                    trend[i, j, m] = flat + (tilt + form[2, 2] * z) * z
