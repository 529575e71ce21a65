"""Masks of the voxels to trust: from brightness, and from the reliability of phase."""

import math
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsm_dask.kernels import series
from qsm_dask.kernels.components import components
from qsm_dask.kernels.doors import Vector, check_positive, check_voxel_size
from qsm_dask.kernels.jit import compiled
from qsm_dask.kernels.morphology import dilated, eroded
from qsm_dask.kernels.series import Mask, Real
from qsm_dask.kernels.smoothing import gaussian
from qsm_dask.kernels.unwrap.weights import voxel_quality

_BINS = 256
_BRIGHT_SHARE = 0.5
_SPECK_MM = 1.2


def magnitude(
    magnitude: NDArray[Any],
    voxel_size: ArrayLike,
    /,
    *,
    percentile: float | None = None,
    opening_mm: float = 16.0,
    closing_mm: float = 3.0,
    erosion_mm: float = 0.0,
) -> Mask:
    """Find the brain, roughly, as the largest bright object: no brain extraction, but no skull.

    The echoes' root mean square is cut at Otsu's threshold, after the brightest voxels (fat,
    inflow) are levelled. What only narrow bridges hold to the largest object, such as scalp, eyes
    and muscles, is cut off by an opening; sulci and vessels are closed and holes filled.

    An image without air has no dark class: the threshold never exceeds half the mean of the
    bright one, so that a field of view filled by tissue is kept whole.

    Of two objects apart only the larger is kept. Muscle that broadly touches the head may stay:
    follow with `mask.phase_quality`, or hand over a mask from a brain extraction tool.

    Parameters
    ----------
    magnitude : (echo, x, y, z), of any scale.
    voxel_size : spacing [mm].
    percentile : cut at this percentile of all voxels of the image instead of Otsu's threshold, where that goes wrong:
        70 for a head that fills three tenths of its field of view.
    opening_mm : bridges up to twice this wide are cut [mm]; 0 cuts none, and less than a voxel
        does nothing. The brain is thicker than 32 mm wherever it hangs together; orbits, neck and
        the muscles of the skull base are not.
    closing_mm : gaps up to twice this wide are closed [mm]: about the width of a sulcus. Any from 2 to 6 mm keeps all
        but 0.1 % of the brain of three head phantoms, and what it adds beside it differs by 0.5 % of the brain.
    erosion_mm : depth taken off at the end [mm]; faces of the image are not eroded. None by default, as `mask.erode`
        does it once the mask is final.

    Returns
    -------
    bool (x, y, z).

    Raises
    ------
    ValueError : magnitude is not (echo, x, y, z), is NaN, infinite, or nowhere positive, a
        length is negative, the percentile is none, or the erosion leaves nothing.

    References
    ----------
    N. Otsu, IEEE Trans. Syst. Man Cybern. 1979, doi:10.1109/TSMC.1979.4310076
    """
    size = check_voxel_size(voxel_size)
    _refuse_negative(opening_mm=opening_mm, closing_mm=closing_mm, erosion_mm=erosion_mm)
    if percentile is not None and not 0 < percentile < 100:
        raise ValueError(f"percentile is {percentile}: it must lie between 0 and 100")
    echoes = series.echoes("magnitude", magnitude, None, None)
    bright = _bright(echoes, percentile)
    found = _largest(_opened(bright, size, opening_mm, closing_mm) if opening_mm else bright)
    if found is None:
        raise ValueError("magnitude has no voxel above its threshold: is it an image of magnitudes?")
    if closing_mm:
        found = eroded(dilated(found, size, closing_mm), size, closing_mm)
    found = _filled(found)
    if erosion_mm:
        found = eroded(found, size, erosion_mm)
        if not found.any():
            raise ValueError(f"erosion_mm is {erosion_mm}: eroded so deep, the mask is empty")
    return found


def phase_quality(
    phase: NDArray[Any],
    mask: NDArray[Any],
    te: ArrayLike,
    magnitude: NDArray[Any] | None = None,
    /,
    *,
    threshold: float = 0.5,
) -> tuple[Mask, Real]:
    """Narrow a mask to where phase is reliable, by the ROMEO weights of a voxel's six edges.

    Kept is the largest object of voxels above the threshold, with the holes inside it that the
    mask had not. Edges that leave the mask count as zero, so that thin layers (scalp, marrow)
    go, and islands with them.

    Parameters
    ----------
    phase : (echo, x, y, z) wrapped phase [rad].
    mask : (x, y, z) voxels to choose from.
    te : (echo,) echo times [s].
    magnitude : (echo, x, y, z) or None: its coherence is left out, and qualities are higher.
    threshold : quality from which a voxel is kept, 0 to 1. The default errs towards keeping brain: on three head
        phantoms at SNR 40 and 100 it keeps 99.8 % of it and leaves a halo of 4 % of its volume; 0.6 keeps 99.3 to
        99.7 % and leaves 2 %, 0.7 keeps 97 to 98 % and leaves less than 0.5 %.

    Returns
    -------
    mask : bool (x, y, z), a part of the mask given.
    phase_quality : float32 (x, y, z), 0 to 1, zero outside the mask given.

    Raises
    ------
    ValueError : shapes or echo counts disagree, the mask is empty, values inside it are NaN or
        infinite, the magnitude is zero throughout it, the threshold is not between 0 and 1, or no voxel reaches it.

    References
    ----------
    B. Dymerska et al., Magn. Reson. Med. 2021, doi:10.1002/mrm.28563
    """
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold is {threshold}: a quality lies between 0 and 1")
    inside = series.inside(mask)
    times = series.echo_times(te)
    wrapped = series.echoes("phase", phase, times, inside)
    strength = series.brightness(magnitude, times, inside)
    quality = voxel_quality(wrapped, times, strength, inside)
    kept = _largest(quality > threshold)
    if kept is None:
        raise ValueError(f"no voxel's phase quality exceeds {threshold} (the best is {quality.max():.2f}): lower it")
    return _filled(kept) & inside, quality


def field_quality(
    mask: NDArray[Any],
    field_noise: NDArray[np.float32],
    phase_residual: NDArray[np.float32] | None = None,
    /,
    *,
    noise_ratio: float = 3.0,
    residual_rad: float = 0.5,
) -> Mask:
    """Narrow a mask to where the field, once it is known, turned out reliable; holes stay holes.

    Strong sources dephase the signal around them, so that the noise of the field rises there, and where the phase of
    the echoes is no line the field means little. Their voxels are taken out, as the first of two passes wants (see
    `inversion.two_pass`); islands go with them.

    Parameters
    ----------
    mask : (x, y, z) voxels to choose from.
    field_noise : standard deviation of the total field [ppm].
    phase_residual : misfit of the phase [rad], or None: only the noise decides.
    noise_ratio : voxels noisier than this many times the median of the mask go. Iron-rich nuclei stay below 1.7 at
        3 T and echo times up to 28 ms.
    residual_rad : voxels whose phase misses the fit by more go [rad]; half a radian is far above noise in tissue.

    Returns
    -------
    bool (x, y, z), a part of the mask given.

    Raises
    ------
    ValueError : shapes disagree, the mask is empty, values inside it are NaN or infinite, a limit is not positive,
        or no voxel is left.

    References
    ----------
    A. W. Stewart et al., Magn. Reson. Med. 2022, doi:10.1002/mrm.29048
    """
    inside = series.inside(mask)
    check_positive(noise_ratio=noise_ratio, residual_rad=residual_rad)
    noise = series.volume("field_noise", field_noise, inside)
    good = inside & (noise <= np.float32(noise_ratio * float(np.median(noise[inside]))))
    if phase_residual is not None:
        good &= series.volume("phase_residual", phase_residual, inside) <= np.float32(residual_rad)
    kept = _largest(good)
    if kept is None:
        raise ValueError(f"no voxel is left by noise_ratio {noise_ratio} and residual_rad {residual_rad}: raise them")
    return kept


_RULES = MappingProxyType({"and": np.logical_and, "or": np.logical_or, "minus": np.greater})


def combine(mask: NDArray[Any], mask_other: NDArray[Any], /, *, rule: Literal["and", "or", "minus"] = "and") -> Mask:
    """Combine two masks, voxel by voxel.

    The other mask is one that a step before wrote under that name (`writes: {mask: mask_other}`), or another branch
    that is read as it (`reads: {mask_other: mask_bet}`).

    Parameters
    ----------
    mask : (x, y, z).
    mask_other : (x, y, z).
    rule : `and` keeps what both hold, `or` what either holds, `minus` what the first holds and the other does not.

    Returns
    -------
    bool (x, y, z).

    Raises
    ------
    ValueError : a mask is empty, their shapes differ, or nothing is left.
    """
    one, other = series.inside(mask), series.inside(mask_other)
    if one.shape != other.shape:
        raise ValueError(f"mask has shape {one.shape} and mask_other {other.shape}: resample one to the other's grid")
    combined: Mask = _RULES[rule](one, other)
    if not combined.any():
        raise ValueError(f"mask {rule} mask_other leaves no voxel: look at both")
    return combined


def erode(mask: NDArray[Any], voxel_size: ArrayLike, /, *, depth_mm: float = 2.0) -> Mask:
    """Take the outermost layer off a mask, where the background field is hardest to remove.

    At the surface only the smallest spheres fit into the mask, and partial volume of what lies
    outside is largest. On head phantoms 2 mm taken off before V-SHARP lower the error of its
    local field inside what remains by half.

    Parameters
    ----------
    mask : (x, y, z).
    voxel_size : spacing [mm].
    depth_mm : depth [mm]; less than a voxel does nothing. Faces of the image are not eroded.

    Returns
    -------
    bool (x, y, z), the voxels farther than `depth_mm` from every voxel outside.

    Raises
    ------
    ValueError : the mask is empty or the erosion empties it, or the depth is negative.
    """
    inside, size = series.inside(mask), check_voxel_size(voxel_size)
    _refuse_negative(depth_mm=depth_mm)
    left = eroded(inside, size, depth_mm)
    if not left.any():
        raise ValueError(f"depth_mm is {depth_mm}: eroded so deep, the mask is empty")
    return left


def _refuse_negative(**lengths: float) -> None:
    for name, length in lengths.items():
        if not (math.isfinite(length) and length >= 0):
            raise ValueError(f"{name} is {length}: it must be a length in mm, 0 or more")


def _bright(echoes: Real, percentile: float | None) -> Mask:
    combined = np.zeros(echoes.shape[1:], dtype=np.float32)
    _root_mean_square(echoes, combined)
    typical = _mean_above(combined, _mean_above(combined, 0.0))
    if not typical > 0:
        raise ValueError("magnitude is nowhere positive: there is nothing to mask")
    if percentile is None:
        threshold = min(_otsu(_histogram(combined, typical)) * typical, _BRIGHT_SHARE * typical)
    else:
        threshold = float(np.percentile(combined, percentile))
    bright: Mask = combined > np.float32(threshold)
    return bright


def _otsu(counts: NDArray[np.int64]) -> float:
    """The threshold of greatest variance between two classes, as a fraction of the histogram's range."""
    centres = (np.arange(counts.size) + 0.5) / counts.size
    below, sums = np.cumsum(counts)[:-1].astype(np.float64), np.cumsum(counts * centres)
    above = counts.sum() - below
    apart = np.zeros(below.size)
    both = (below > 0) & (above > 0)
    apart[both] = sums[:-1][both] / below[both] - (sums[-1] - sums[:-1])[both] / above[both]
    return float((np.argmax(below * above * apart**2) + 1) / counts.size)


def _opened(mask: Mask, size: Vector, radius_mm: float, more_mm: float) -> Mask:
    """The mask near the largest object that an erosion leaves; the mask itself, if none is left.

    A sphere so wide is as good on a grid of a sixth of its radius, in a fraction of the time. It
    reaches back a little further than it eroded, for what the grid misses and corners beside fissures.
    """
    steps = [max(1, int(radius_mm / (6 * length))) for length in size]
    coarse = (size[0] * steps[0], size[1] * steps[1], size[2] * steps[2])
    core = _largest(eroded(_majority(mask, size, steps), coarse, radius_mm))
    if core is None:
        return mask
    missed = max(length if step > 1 else 0.0 for length, step in zip(coarse, steps, strict=True))
    near = dilated(core, coarse, radius_mm + max(more_mm, missed))
    for axis, (step, length) in enumerate(zip(steps, mask.shape, strict=True)):
        near = near.repeat(step, axis).take(range(length), axis)
    near &= mask
    return near


def _majority(mask: Mask, size: Vector, steps: Sequence[int]) -> Mask:
    """The mask without dark veins and specks, each of which an erosion would widen; gaps between layers stay.

    Of each axis every so manyth voxel is kept: what is left out need not be smoothed along the next axis.
    """
    share = mask.astype(np.float32)
    for axis, (step, length) in enumerate(zip(steps, size, strict=True)):
        sigma = [0.0, 0.0, 0.0]
        sigma[axis] = _SPECK_MM / length
        line = np.ones([mask.shape[a] if a == axis else 1 for a in range(3)], dtype=np.float32)
        for volume in (share, line):  # what of the Gaussian lies inside the image
            gaussian(volume, (sigma[0], sigma[1], sigma[2]))
        share /= line
        share = np.ascontiguousarray(share[tuple(slice(None, None, step if a == axis else 1) for a in range(3))])
    majority: Mask = share > np.float32(0.5)
    return majority


def _largest(mask: Mask) -> Mask | None:
    """The largest object whose voxels touch by their faces, or None where there is none."""
    return components(mask).largest() if mask.any() else None


def _filled(mask: Mask) -> Mask:
    """The mask with the holes from which no way leads to the faces of the image."""
    outer = components(~mask)
    filled: Mask = mask | outer.mask(~outer.at_faces)
    return filled


@compiled
def _root_mean_square(echoes: Real, combined: Real) -> None:
    number, nx, ny, nz = echoes.shape
    total = np.empty(nz)
    for x in range(nx):
        for y in range(ny):
            total[:] = 0.0
            for echo in range(number):
                row = echoes[echo, x, y]
                for z in range(nz):
                    total[z] += float(row[z]) * float(row[z])
            for z in range(nz):
                combined[x, y, z] = np.sqrt(total[z] / number)


@compiled
def _mean_above(volume: Real, limit: float) -> float:
    nx, ny, nz = volume.shape
    total, count = np.zeros(nz), np.zeros(nz)  # of each column, so that sums do not wait for one another
    for x in range(nx):
        for y in range(ny):
            row = volume[x, y]
            for z in range(nz):
                above = row[z] > limit
                total[z] += float(row[z]) if above else 0.0
                count[z] += 1.0 if above else 0.0
    return float(total.sum() / count.sum()) if count.any() else limit


@compiled
def _histogram(volume: Real, top: float) -> NDArray[np.int64]:
    """Counts in equal bins from 0 to `top`; what is brighter counts in the last."""
    counts = np.zeros(_BINS, dtype=np.int64)
    for value in volume.flat:
        counts[min(_BINS - 1, int(value / top * _BINS))] += 1
    return counts
