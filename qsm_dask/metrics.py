"""How well a map agrees with the truth: the measures of the reconstruction challenges, as pure functions.

Maps are (x, y, z) in any unit but for `xsim`, whose constants are for ppm. Only voxels of `mask` count, and what lies
outside it never enters: `prepared` sets it to zero in both maps, so that filters and windows that reach over its
surface find the same there.
"""

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

XSIM_WINDOW = 5
XSIM_C1, XSIM_C2 = 0.01**2, 0.001**2
HFEN_SIGMA = 1.5
_HFEN_REACH = 5.0
_STREAK_GAP, _STREAK_SHELL = 3, 4


def prepared(values: NDArray[Any], mask: Mask, kept: Mask | None = None) -> Floats:
    """A map minus its mean over the voxels it kept, and zero elsewhere: a lost voxel counts as zero.

    Susceptibility and fields are known up to a constant. The mean goes before lost voxels are filled, so that they
    get what is known of them, the mean, whatever the constant.

    Parameters
    ----------
    values : (x, y, z); read inside `mask` and `kept` only.
    mask : voxels that count.
    kept : voxels that the method gave a value; all if not given.

    Returns
    -------
    float64 (x, y, z), zero outside.

    Raises
    ------
    ValueError : no voxel of the mask was kept, or a value there is NaN or infinite.
    """
    inside = mask if kept is None else mask & kept
    chosen = np.asarray(values)[inside].astype(np.float64)
    if chosen.size == 0:
        raise ValueError("no voxel of the mask was kept: there is nothing to compare")
    if not np.isfinite(chosen).all():
        raise ValueError("a map to compare is NaN or infinite inside the mask")
    result = np.zeros(mask.shape)
    result[inside] = chosen - chosen.mean()
    return result


def nrmse(found: NDArray[Any], truth: NDArray[Any], mask: Mask) -> float:
    """Norm of the error over the norm of the truth [%]."""
    return 100.0 * _norm((found - truth)[mask]) / _norm(truth[mask])


def detrended_nrmse(found: NDArray[Any], truth: NDArray[Any], mask: Mask) -> float:
    """`nrmse` after the best line of `found` over `truth` was divided out: scale and offset do not count [%].

    References
    ----------
    QSM Challenge 2.0, doi:10.1002/mrm.28754
    """
    known, values = truth[mask].astype(np.float64), found[mask].astype(np.float64)
    slope, offset = _line(known, values)
    if slope == 0.0:
        return 100.0
    return 100.0 * _norm((values - offset) / slope - known) / _norm(known)


def correlation(found: NDArray[Any], truth: NDArray[Any], mask: Mask) -> float:
    """Pearson's coefficient; 0 where a map is constant."""
    one, other = (part[mask] - part[mask].mean(dtype=np.float64) for part in (found, truth))
    size = _norm(one) * _norm(other)
    return float(one @ other) / size if size else 0.0


def xsim(found: NDArray[Any], truth: NDArray[Any], mask: Mask) -> float:
    """Structural similarity with the constants that were chosen for susceptibility in ppm; 1 is best.

    Means, variances and covariance are those of cubes of 5 voxels, all voxels alike; L = 1 ppm, K1 = 0.01,
    K2 = 0.001. The mean of the index over the mask is returned. (Milovic weighs the window by a Gaussian; the uniform
    cube is that of QSM-CI, whose scores are public.)

    Parameters
    ----------
    found, truth : [ppm].
    mask : voxels over which the index is averaged.

    References
    ----------
    Milovic 2025, doi:10.1002/mrm.30271
    """
    box = box_around(mask, XSIM_WINDOW // 2)
    one, other = found[box].astype(np.float64), truth[box].astype(np.float64)
    present = _window_mean(np.ones_like(one))

    def mean(values: Floats) -> Floats:
        averaged: Floats = _window_mean(values) / present  # beyond the array's faces there is nothing
        return averaged

    mean_one, mean_other = mean(one), mean(other)
    variance = mean(one * one) - mean_one**2 + mean(other * other) - mean_other**2
    covariance = mean(one * other) - mean_one * mean_other
    index = (2.0 * mean_one * mean_other + XSIM_C1) * (2.0 * covariance + XSIM_C2)
    index /= (mean_one**2 + mean_other**2 + XSIM_C1) * (variance + XSIM_C2)
    return float(index[mask[box]].mean())


def hfen(found: NDArray[Any], truth: NDArray[Any], mask: Mask) -> float:
    """High-frequency error norm: `nrmse` after a Laplacian of Gaussian of 1.5 voxels [%].

    References
    ----------
    QSM Challenge 2016, doi:10.1002/mrm.26830
    """
    one, other = (
        ndimage.gaussian_laplace(values.astype(np.float64), HFEN_SIGMA, truncate=_HFEN_REACH)
        for values in (found, truth)
    )
    return nrmse(one, other, mask)


def linearity(found: NDArray[Any], truth: NDArray[Any], labels: NDArray[Any], regions: Collection[int]) -> float:
    """Slope of the best line of the means of `found` over the means of `truth` in regions; 1 is best.

    Regions without a voxel are left out; with fewer than two it is NaN.
    """
    chosen = [labels == region for region in regions]
    pairs = [(found[part].mean(dtype=np.float64), truth[part].mean(dtype=np.float64)) for part in chosen if part.any()]
    if len(pairs) < 2:
        return float("nan")
    means = np.array(pairs)
    return _line(means[:, 1], means[:, 0])[0]


def streak(found: NDArray[Any], truth: NDArray[Any], source: Mask, mask: Mask) -> float:
    """What a strong source casts around it, relative to the source; 0 is best.

    In a shell of 4 voxels that begins 3 voxels from the source's bounding box: standard deviation of what the best
    line of `found` over `truth` leaves, over the mean of `found` in the source. NaN without a source.

    References
    ----------
    QSM Challenge 2.0, doi:10.1002/mrm.28754
    """
    if not source.any():
        return float("nan")
    shell = np.zeros(mask.shape, dtype=bool)
    shell[box_around(source, _STREAK_GAP + _STREAK_SHELL)] = True
    shell[box_around(source, _STREAK_GAP)] = False
    shell &= mask
    known, values = truth[shell].astype(np.float64), found[shell].astype(np.float64)
    slope, offset = _line(known, values)
    strength = abs(float(found[source].mean(dtype=np.float64)))
    return float((values - slope * known - offset).std()) / strength if strength else float("nan")


def _norm(values: NDArray[Any]) -> float:
    return float(np.linalg.norm(values.astype(np.float64)))


def _line(x: Floats, y: Floats) -> tuple[float, float]:
    """Slope and offset of the least-squares line of y over x; slope 0 where x is constant."""
    away = x - x.mean()
    square = float(away @ away)
    slope = float(away @ y) / square if square else 0.0
    return slope, float(y.mean() - slope * x.mean())


def _window_mean(values: Floats) -> Floats:
    averaged: Floats = ndimage.uniform_filter(values, XSIM_WINDOW, mode="constant")
    return averaged


def box_around(mask: Mask, margin: int) -> tuple[slice, ...]:
    """The slices of the box that just holds the mask, `margin` voxels wider as far as the array goes."""
    (box,) = ndimage.find_objects(mask.astype(np.int8))
    return tuple(slice(max(part.start - margin, 0), part.stop + margin) for part in box)
