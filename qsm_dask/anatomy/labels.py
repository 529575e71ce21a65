"""Regions of an atlas, carried to a scan."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from qsm_dask.atlas import Atlas, Image
from qsm_dask.kernels.carrying import carry_regions
from qsm_dask.kernels.doors import check_mask
from qsm_dask.kernels.resample import sample
from qsm_dask.regions import split_side
from qsm_dask.told import Told

Real = NDArray[np.float32]
Labels = NDArray[np.int32]
Mask = NDArray[np.bool_]


def labels(
    template_position: Real,
    affine: NDArray[np.float64],
    mask: Mask | None = None,
    /,
    *,
    atlas: Atlas,
    threshold: float = 0.5,
) -> tuple[Labels, Told]:
    """Carry the regions of an atlas to a scan, with one interpolation.

    A label image is read by linear interpolation of the share of each label, and so that every region keeps the volume
    that the registration gives it (see `kernels.carrying`); of probabilities, the most probable region is taken where
    it reaches the threshold.

    Parameters
    ----------
    template_position : (axis, x, y, z) position in the atlas's space of each voxel [mm].
    affine : (4, 4) of the scan.
    mask : (x, y, z) voxels trusted downstream: how much of each region it holds is told; regions are not cut.
    atlas : folder of a `dseg` or `probseg` with its `dseg.tsv`, as BIDS and TemplateFlow name them.
    threshold : least probability of a voxel's region. At half a region keeps its volume.

    Returns
    -------
    dseg : int32 (x, y, z), 0 outside all regions.
    Told : names; least and median share of a region inside the mask, least and most of its volume over that
        in the atlas, the most that left and right differ (difference over mean), regions without a voxel.

    Raises
    ------
    ValueError : the atlas has no regions, the mask is empty, the threshold is not above 0 and at most 1, or a position
        is NaN or infinite.
    """
    inside = _checked(template_position, mask, threshold)
    if atlas.labels is not None:
        found = carry_regions(atlas.labels.values, atlas.labels.affine, template_position)
    elif atlas.probabilities is not None:
        volumes = (sample(one, atlas.probabilities.affine, template_position) for one in atlas.probabilities.values)
        found = _most_probable(atlas, volumes, template_position.shape[1:], threshold)
    else:
        raise ValueError("the atlas has neither a dseg nor a probseg: there are no regions to carry")
    return found, _told(found, Image(found, np.asarray(affine)).voxel_mm3, inside, atlas)


def probabilities(
    template_position: Real,
    affine: NDArray[np.float64],
    mask: Mask | None = None,
    /,
    *,
    atlas: Atlas,
    threshold: float = 0.5,
) -> tuple[Labels, Real, NDArray[np.int64], Told]:
    """Carry the regions of a probabilistic atlas to a scan, with their probabilities and one interpolation.

    With them, values of regions are weighted by how certainly a voxel belongs to each.

    Parameters
    ----------
    template_position : (axis, x, y, z) position in the atlas's space of each voxel [mm].
    affine : (4, 4) of the scan.
    mask : (x, y, z) voxels trusted downstream: how much of each region it holds is told; regions are not cut.
    atlas : folder of a `probseg` with its table or `LabelMap`, as BIDS and TemplateFlow name them.
    threshold : least probability of a voxel's region in the label image. At half a region keeps its volume.

    Returns
    -------
    dseg : int32 (x, y, z), the most probable region where it reaches the threshold, 0 outside all regions.
    probseg : float32 (label, x, y, z), linear between the atlas's voxels.
    probseg_labels : int64 (label,).
    Told : as `labels`.

    Raises
    ------
    ValueError : the atlas has no probabilities, the mask is empty, the threshold is not above 0 and at most 1, or a
        position is NaN or infinite.
    """
    inside = _checked(template_position, mask, threshold)
    if atlas.probabilities is None:
        raise ValueError("the atlas has no probseg: carry its labels by anatomy.labels")
    given = atlas.probabilities
    carried = np.empty((len(given.values), *template_position.shape[1:]), dtype=np.float32)
    for volume, probability in zip(carried, given.values, strict=True):
        volume[:] = sample(probability, given.affine, template_position)
    found = _most_probable(atlas, carried, template_position.shape[1:], threshold)
    told = _told(found, Image(found, np.asarray(affine)).voxel_mm3, inside, atlas)
    return found, carried, np.array(list(atlas.names), dtype=np.int64), told


def _checked(positions: Real, mask: Mask | None, threshold: float) -> Mask | None:
    if not 0.0 < threshold <= 1.0:
        raise ValueError(f"threshold is {threshold}: a probability above 0 and at most 1 is wanted")
    if not np.isfinite(positions).all():
        raise ValueError("template_position is NaN or infinite in places: run the registration again")
    return None if mask is None else check_mask(mask)


def _most_probable(atlas: Atlas, volumes: Iterable[Real], shape: tuple[int, ...], threshold: float) -> Labels:
    best = np.full(shape, np.float32(threshold))
    found = np.zeros(shape, dtype=np.int32)
    for label, here in zip(atlas.names, volumes, strict=True):
        more = (here > best) | ((here == best) & (found == 0) & (here > 0.0))
        found[more] = label
        best[more] = here[more]
    return found


def _told(found: Labels, voxel_mm3: float, mask: Mask | None, atlas: Atlas) -> Told:
    present = np.array(sorted(atlas.names))
    volumes = _counts(found, present) * voxel_mm3
    figures = {"regions": float(present.size), "regions_empty": float((volumes == 0).sum())}
    warnings = []
    if (volumes == 0).any():
        named = ", ".join(atlas.names[int(label)] for label in present[volumes == 0])
        warnings.append(f"regions of the atlas without a voxel in this scan: {named}")
    original = _original_volumes(atlas, present)
    usable = (original > 0) & (volumes > 0)
    if usable.any():
        ratio = volumes[usable] / original[usable]
        figures |= {"volume_ratio_min": float(ratio.min()), "volume_ratio_max": float(ratio.max())}
    pairs = _pairs(atlas, dict(zip(present.tolist(), volumes.tolist(), strict=True)))
    if pairs:
        figures["asymmetry_max"] = max(2 * abs(left - right) / (left + right) for left, right in pairs)
    if mask is not None and (volumes > 0).any():
        inside = _counts(np.where(mask, found, 0), present)[volumes > 0] * voxel_mm3 / volumes[volumes > 0]
        figures |= {"coverage_min": float(inside.min()), "coverage_median": float(np.median(inside))}
    return Told(figures, dict(atlas.names), tuple(warnings))


def _counts(image: Labels, present: NDArray[np.int_]) -> NDArray[np.int_]:
    labels, counts = np.unique(image, return_counts=True)
    known = dict(zip(labels.tolist(), counts.tolist(), strict=True))
    return np.array([known.get(int(label), 0) for label in present], dtype=np.int_)


def _original_volumes(atlas: Atlas, present: NDArray[np.int_]) -> NDArray[np.float64]:
    if atlas.labels is not None:
        return np.asarray(_counts(atlas.labels.values, present) * atlas.labels.voxel_mm3, dtype=np.float64)
    if atlas.probabilities is None:
        return np.zeros(present.size)
    sums = dict(zip(atlas.names, atlas.probabilities.values.sum(axis=(1, 2, 3), dtype=np.float64), strict=True))
    found = np.array([sums[int(label)] for label in present], dtype=np.float64)
    return np.asarray(found * atlas.probabilities.voxel_mm3, dtype=np.float64)


def _pairs(atlas: Atlas, volumes: dict[int, float]) -> list[tuple[float, float]]:
    """Volumes of the left and the right of every structure that has both."""
    sides: dict[str, dict[str, float]] = {}
    for label, name in atlas.names.items():
        structure, side = split_side(name)
        if side:
            sides.setdefault(structure, {})[side] = volumes[label]
    return [
        (both["left"], both["right"]) for both in sides.values() if len(both) == 2 and both["left"] + both["right"] > 0
    ]
