"""The subject's T1-weighted image beside the gradient echoes: how the one lies to the other."""

import numpy as np
from numpy.typing import NDArray

from qsm_dask.anatomy import greedy
from qsm_dask.anatomy.channels import Channel
from qsm_dask.anatomy.grids import blocks, centre, coarser, positions
from qsm_dask.atlas import Image
from qsm_dask.kernels.doors import check_mask, check_volume
from qsm_dask.kernels.resample import block_mean, sample
from qsm_dask.kernels.series import root_mean_square
from qsm_dask.told import Told

Real = NDArray[np.float32]
Mask = NDArray[np.bool_]

_LEAST_COVERED = 0.5
_BINS = 32


def align_t1w(
    magnitude: Real,
    mask: Mask,
    affine: NDArray[np.float64],
    t1w: Real,
    t1w_affine: NDArray[np.float64],
    /,
    *,
    resolution_mm: float = 2.0,
    iterations: tuple[int, ...] = (60, 40, 20),
) -> tuple[NDArray[np.float64], Told]:
    """Lay the subject's T1-weighted image on a scan by a rigid map, as a head moves between two acquisitions.

    Both come from one scanner, whose positions the search starts from. Normalised mutual information is compared, as
    the two contrasts have no common scale, and in places opposite signs.

    Parameters
    ----------
    magnitude : (echo, x, y, z); the root mean square over echoes is compared.
    mask : (x, y, z) the brain, in which the images are compared.
    affine : (4, 4) voxel index to scanner position of the scan [mm].
    t1w : (x, y, z) on its own grid, with skull and scalp or without.
    t1w_affine : (4, 4) voxel index to scanner position of the T1-weighted image [mm].
    resolution_mm : images with smaller voxels are compared in blocks of whole voxels up to this size [mm], as when the
        scan is registered; six numbers need no finer ones, and a toy head of 4 mm was laid within a third of a voxel.
    iterations : most steps per level, the coarsest first; each level halves the voxels. The search ends before where
        nothing is gained: the defaults found a turn of 4 degrees with a shift of 5 mm.

    Returns
    -------
    t1w_from_scan : float64 (4, 4), scanner position of the scan to that of the T1-weighted image [mm]; NaN, and a
        warning, where less than half of the brain lies in it: the magnitude is registered in its place then.
    Told : normalised mutual information (1: none, 2: each tells the other), how far the brain's centre moved [mm], by
        how much it turned [degrees], and the share of the brain that the T1-weighted image covers.

    Raises
    ------
    ValueError : the mask is empty, a value is NaN, a level has no iterations, or greedy is not installed.

    References
    ----------
    Studholme 1999, doi:10.1016/S0031-3203(98)00091-0
    """
    inside = check_mask(mask)
    for number, echo in enumerate(magnitude, start=1):
        check_volume(f"magnitude of echo {number}", echo, inside)
    if not np.isfinite(t1w).all():
        raise ValueError("t1w is NaN or infinite in places: mend the image, or leave it out")
    if not iterations or min(iterations) < 1:
        raise ValueError(f"iterations are {iterations}: each level needs one or more")
    own = np.asarray(affine, dtype=np.float64)
    step = blocks(own, resolution_mm)
    grid = coarser(own, step)
    compared = Image(block_mean(inside, step) > 0.5, grid)
    if not compared.values.any():
        raise ValueError("mask holds no block of voxels: lower resolution_mm")
    fixed = Image(block_mean(root_mean_square(magnitude), step), grid)
    moving = _coarse(t1w, t1w_affine, resolution_mm)
    share = _covered(moving, np.eye(4), compared)  # before greedy, which crashes where images lie apart
    if share < _LEAST_COVERED:
        return _elsewhere(share)
    found = greedy.align(Channel(fixed, moving, 1.0), compared, iterations=iterations)
    share = _covered(moving, found, compared)
    if share < _LEAST_COVERED:
        return _elsewhere(share)
    seen = _brought(moving.values, moving.affine, found, compared)
    return found, _quality(found, compared, fixed.values[compared.values], seen[compared.values], share)


def _covered(moving: Image, t1w_from_scan: NDArray[np.float64], compared: Image) -> float:
    """The share of the brain that lies in the T1-weighted image."""
    covered = _brought(np.ones_like(moving.values), moving.affine, t1w_from_scan, compared)[compared.values]
    return float((covered > 0.5).mean())


def _elsewhere(share: float) -> tuple[NDArray[np.float64], Told]:
    warning = f"only {100 * share:.0f} % of the brain lies in the T1w, left aside: is it of another session or region?"
    return np.full((4, 4), np.nan), Told({"covered": share}, warnings=(warning,))


def brought(
    t1w: Real,
    t1w_affine: NDArray[np.float64],
    t1w_from_scan: NDArray[np.float64],
    compared: Image,
    resolution_mm: float,
) -> Real:
    """The T1-weighted image on the grid on which a scan is compared, in no finer blocks than that."""
    coarse = _coarse(t1w, t1w_affine, resolution_mm)
    return _brought(coarse.values, coarse.affine, t1w_from_scan, compared)


def _coarse(t1w: Real, t1w_affine: NDArray[np.float64], resolution_mm: float) -> Image:
    own = np.asarray(t1w_affine, dtype=np.float64)
    step = blocks(own, resolution_mm)
    return Image(block_mean(t1w, step), coarser(own, step))


def _brought(values: Real, affine: NDArray[np.float64], t1w_from_scan: NDArray[np.float64], compared: Image) -> Real:
    return sample(values, affine, positions(compared.values.shape, t1w_from_scan @ compared.affine))


def _quality(found: NDArray[np.float64], compared: Image, one: Real, other: Real, share: float) -> Told:
    middle = np.append(centre(compared), 1.0)
    turned = np.clip((np.trace(found[:3, :3]) - 1.0) / 2.0, -1.0, 1.0)
    figures = {
        "mutual_information": _mutual_information(one, other),
        "shift_mm": float(np.linalg.norm((found @ middle - middle)[:3])),
        "turn_degrees": float(np.rad2deg(np.arccos(turned))),
        "covered": share,
    }
    return Told(figures)


def _mutual_information(one: Real, other: Real) -> float:
    """Normalised mutual information of two contrasts, from 1 to 2."""
    x, y = (np.clip(values, *np.percentile(values, (0.5, 99.5))) for values in (one, other))
    joint, _, _ = np.histogram2d(x, y, bins=_BINS)
    joint /= joint.sum()
    entropies = [-float(np.sum(p[p > 0] * np.log(p[p > 0]))) for p in (joint.sum(1), joint.sum(0), joint)]
    return (entropies[0] + entropies[1]) / entropies[2] if entropies[2] > 0.0 else 1.0
