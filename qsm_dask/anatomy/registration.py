"""Where each voxel of a scan lies in the space of a template."""

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qsm_dask.anatomy import ants, greedy
from qsm_dask.anatomy.channels import Channel
from qsm_dask.anatomy.grids import blocks, centre, coarser, moved
from qsm_dask.anatomy.structural import brought
from qsm_dask.atlas import Atlas, Image
from qsm_dask.kernels.doors import check_mask, check_volume
from qsm_dask.kernels.resample import block_mean, jacobian, refined, sample
from qsm_dask.kernels.series import root_mean_square
from qsm_dask.told import Told

Real = NDArray[np.float32]
Mask = NDArray[np.bool_]

_CHI_RANGE = (-0.1, 0.2)
"""[ppm] What tissue spans: veins and calcifications, which differ between people, must not outweigh nuclei."""

_MOVING = MappingProxyType({"T1w": ("T1w",), "magnitude": ("magnitude", "T1w"), "chi": ("chi",)})
"""What of a template a contrast of the scan is compared with, the best first; anatomy comes before susceptibility."""

_METHODS = MappingProxyType({"greedy": greedy.register, "ants": ants.register})

_STEP_MM = 1.0 / 64.0
"""Positions are rounded to it: far below a voxel, and the store packs them into a third."""


def register(
    magnitude: Real,
    mask: Mask,
    affine: NDArray[np.float64],
    chi: Real | None = None,
    t1w: Real | None = None,
    t1w_affine: NDArray[np.float64] | None = None,
    t1w_from_scan: NDArray[np.float64] | None = None,
    /,
    *,
    template: Atlas,
    method: Literal["greedy", "ants"] = "greedy",
    resolution_mm: float = 2.0,
    chi_weight: float = 1.0,
    affine_iterations: tuple[int, ...] = (40, 20, 0),
    iterations: tuple[int, ...] = (60, 30, 10),
    smoothing_voxels: tuple[float, float] = (2.0, 1.0),
) -> tuple[Real, Told]:
    """Register a scan to a template by its anatomy and its susceptibility: an affine map, then a deformation.

    Anatomy is the subject's own T1-weighted image where both have one, else the magnitude. T1-like contrast misses
    nuclei that iron makes bright in susceptibility, so both count where the template has both. Each is compared by
    cross-correlation in small windows, which does not ask for equal grey values. Susceptibility is clipped to -0.1 to
    0.2 ppm. All is compared on the scan's grid, to which the T1-weighted image is brought by the rigid map of
    `anatomy.align_t1w`: what is returned leads from scan to template at once, and the same, byte by byte, on every run.

    Parameters
    ----------
    magnitude : (echo, x, y, z); the root mean square over echoes is compared.
    mask : (x, y, z) voxels that are compared, the brain.
    affine : (4, 4) voxel index to scanner position [mm], whose orientation the registration starts from; the
        centres of the two brains are laid on one another.
    chi : (x, y, z) susceptibility [ppm]; without it, or without one in the template, the magnitude counts alone.
    t1w : T1-weighted image of the subject, on its own grid.
    t1w_affine : (4, 4) voxel index to scanner position [mm] of it.
    t1w_from_scan : (4, 4) scanner position of the scan to that of the T1-weighted image [mm]; where it is NaN, that
        image is left aside.
    template : folder of images as BIDS and TemplateFlow name them: a `T2starw` or `T1w`, a `desc-brain_mask`, and a
        `Chimap` if there is one.
    method : the program that optimises: greedy, or ANTs, which descends by smaller steps and wants several times as
        many, of the affine map above all: (500, 200, 50).
    resolution_mm : scans with smaller voxels are compared in blocks of whole voxels up to this size [mm].
        Deformations are smooth; finer ones take much longer and hardly move a label.
    chi_weight : of susceptibility beside the magnitude, whose weight is 1. Twice as much gains nothing: on two
        simulated heads the mean overlap (Dice) of small nuclei is 0.91 and 0.92 at 1, 0.90 and 0.92 at 2.
    affine_iterations : most steps of the affine map per level, the coarsest first; each level halves the voxels.
    iterations : steps of the deformation per level; 60, 40 and 40 take twice as long for the same mean overlap of small
        nuclei within 0.03.
    smoothing_voxels : standard deviations of the Gaussians that smooth each step, and the whole deformation [voxel].
        Above greedy's own 1.7 and 0.7: with 1.5 and 0.5 the least overlap of a large nucleus falls from 0.91 and 0.89
        to 0.84 and 0.83.

    Returns
    -------
    template_position : float32 (axis, x, y, z) position in the template's space [mm] of each voxel of the scan.
    Told : correlation of each contrast in the mask, range of the Jacobian (volume in the template over volume in the
        scan) in the mask and the share of it that folds.

    Raises
    ------
    ValueError : the template lacks an image, the mask is empty, a value inside it is NaN, or greedy is not installed.

    References
    ----------
    Avants 2008, doi:10.1016/j.media.2007.06.004, whose deformation greedy optimises from one side
    """
    inside = check_mask(mask)
    for number, echo in enumerate(magnitude, start=1):
        check_volume(f"magnitude of echo {number}", echo, inside)
    if chi is not None:
        check_volume("chi", chi, inside)
    step = blocks(np.asarray(affine, dtype=np.float64), resolution_mm)
    share = block_mean(inside, step)
    grid = coarser(affine, step)
    compared = Image(share > 0.5, grid)
    if not compared.values.any():
        raise ValueError("mask holds no block of voxels: lower resolution_mm")
    contrasts = {"chi": Image(_stripped(np.clip(chi, *_CHI_RANGE), inside, step), grid)} if chi is not None else {}
    laid = "T1w" in template.contrasts and t1w_from_scan is not None and np.isfinite(t1w_from_scan).all()
    if t1w is not None and t1w_affine is not None and t1w_from_scan is not None and laid:
        seen = brought(t1w, t1w_affine, t1w_from_scan, compared, resolution_mm)
        contrasts["T1w"] = Image(np.where(compared.values, seen, np.float32(0.0)), grid)
    else:
        contrasts["magnitude"] = Image(_stripped(root_mean_square(magnitude), inside, step), grid)
    channels = {
        name: Channel(contrasts[name], moving, chi_weight if name == "chi" else 1.0)
        for name, moving in _moving(template, contrasts).items()
    }
    shift = centre(_brain(template)) - centre(compared)
    coarse = _METHODS[method](
        [one._replace(fixed=moved(one.fixed, shift)) for one in channels.values()],
        moved(compared, shift),
        affine_iterations=affine_iterations,
        iterations=iterations,
        smoothing_voxels=smoothing_voxels,
    )
    told = _quality(coarse, compared, channels)
    x, y, z = inside.shape
    positions = refined(coarse, step, (x, y, z))
    positions /= np.float32(_STEP_MM)
    np.rint(positions, out=positions)
    positions *= np.float32(_STEP_MM)
    return positions, told


def _stripped(values: Real, inside: Mask, step: tuple[int, int, int]) -> Real:
    return block_mean(np.where(inside, values, np.float32(0.0)), step)


def _brain(template: Atlas) -> Image:
    if template.mask is not None:
        return template.mask
    if not template.contrasts:
        raise ValueError("the template has no image: give a folder with a T2starw, a T1w or a Chimap")
    first = next(iter(template.contrasts.values()))
    return Image(first.values != 0, first.affine)


def _moving(template: Atlas, contrasts: Collection[str]) -> dict[str, Image]:
    """The template's images by the contrast of the scan that each is compared with, stripped of all but brain."""
    brain = _brain(template)
    chosen = {}
    for name in (name for name in _MOVING if name in contrasts):
        found = next((template.contrasts[one] for one in _MOVING[name] if one in template.contrasts), None)
        if found is None:
            if name == "chi":
                continue
            raise ValueError("the template has neither a T2starw nor a T1w: a scan cannot be registered to it")
        if found.values.shape != brain.values.shape:
            raise ValueError(f"the template's {name} and brain mask have different matrices: they must share one grid")
        values = np.clip(found.values, *_CHI_RANGE) if name == "chi" else found.values
        chosen[name] = Image(np.where(brain.values, values, np.float32(0.0)), found.affine)
    return chosen


def _quality(positions: Real, compared: Image, channels: Mapping[str, Channel]) -> Told:
    figures: dict[str, float] = {}
    chosen = compared.values
    for name, channel in channels.items():
        found = sample(channel.moving.values, channel.moving.affine, positions)[chosen]
        figures[f"{name.lower()}_correlation"] = _correlation(channel.fixed.values[chosen], found)
    volume = jacobian(positions, compared.affine)[chosen]
    low, high = np.percentile(volume, (1.0, 99.0))
    folded = float((volume <= 0.0).mean())
    figures |= {
        "jacobian_p01": float(low),
        "jacobian_median": float(np.median(volume)),
        "jacobian_p99": float(high),
        "jacobian_folded": folded,
    }
    warnings = (f"registration folds in {100 * folded:.2g} % of the brain",) if folded else ()
    return Told(figures, warnings=warnings)


def _correlation(one: NDArray[Any], other: NDArray[Any]) -> float:
    a, b = (part.astype(np.float64) - part.mean(dtype=np.float64) for part in (one, other))
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size else 0.0
