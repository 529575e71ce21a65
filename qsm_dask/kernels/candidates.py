"""Calcification and microbleed candidates: compact strong sources outside veins."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from qsm_dask.kernels import series
from qsm_dask.kernels.doors import Mask, Vector, check_positive, check_voxel_size
from qsm_dask.kernels.jit import compiled
from qsm_dask.kernels.series import Real

Floats = NDArray[np.float64]

PROPERTIES = 11
_TOUCHING = ndimage.generate_binary_structure(3, 3)


def candidates(
    chi: NDArray[np.float32],
    mask: NDArray[np.bool_],
    voxel_size: ArrayLike,
    affine: ArrayLike,
    dseg: NDArray[np.int32] | None = None,
    /,
    *,
    above_ppm: float = 0.20,
    below_ppm: float = -0.10,
    rim_mm: float = 4.0,
    least_voxels: int = 5,
    least_mm3: float = 4.0,
    most_mm3: float = 2000.0,
    most_elongation: float = 3.0,
    vein_labels: tuple[int, ...] = (),
) -> Floats:
    """List connected strong sources: paramagnetic (blood, iron) and diamagnetic (calcium) ones apart.

    Every voxel beyond a threshold that touches another, at a corner even, belongs to the same candidate. Veins are left
    out by their labels where there are any, and by their form: what is longer than wide. Sources at the rim of the mask
    are left out, for veins of the surface and errors of the background field lie there. What remains are candidates for
    a reader's eye, not findings; in iron-rich nuclei raise the threshold or leave out what lies in them.

    Parameters
    ----------
    chi : (x, y, z) [ppm]. Its zero matters: thresholds are meant for whole-brain or fluid reference.
    mask : voxels where it is known.
    voxel_size : spacing [mm].
    affine : (4, 4) voxel index to scanner position [mm].
    dseg : label image (x, y, z); the nearest region is told.
    above_ppm : least susceptibility of paramagnetic candidates [ppm], above what iron reaches in most nuclei: with 0.1
        three head phantoms without a bleed have three or four each, from 0.15 none.
    below_ppm : greatest susceptibility of diamagnetic candidates [ppm]; -0.1 as choroid plexus of 60 HU. From -0.05 to
        -0.2 the same heads have their calcification and nothing else.
    rim_mm : no candidate whose middle lies closer to the edge of the mask [mm]: about the depth of cortex and the
        veins on it.
    least_voxels : of a candidate; fewer do not tell a ball from a piece of a vein.
    least_mm3 : volume of a candidate [mm3]; 4 is a ball of 2 mm, the least that usually counts as a microbleed.
    most_mm3 : volume of a candidate [mm3]; 2000 is a ball of 16 mm. Microbleeds end at 10 mm or less (500 mm3);
        calcified choroid plexus does not.
    most_elongation : greatest ratio of a candidate's length to its width, as a piece of a vein is long. From 2 to 10 no
        vein of the same heads is among them.
    vein_labels : numbers of veins in the label image, which belong to no candidate; most label images have none.

    Returns
    -------
    candidates : float64 (candidate, property), the strongest mass first: sign, n, volume_mm3, mass (integral of chi
        over the candidate, which unlike the volume does not depend on echo time or threshold much) [ppm mm3], peak
        [ppm], x_mm, y_mm, z_mm (of the centre of mass, scanner), elongation, nearest_label (0 without one) and
        distance_mm to it (NaN without one).

    Raises
    ------
    ValueError : shapes differ, the mask is empty, chi is not finite inside it, or a parameter is out of range.

    References
    ----------
    Thresholds of calcified choroid plexus, doi:10.64898/2026.05.26.26354154; that the integral of a microbleed does
    not depend on echo time, PMC4297605
    """
    inside = series.inside(mask)
    values = series.volume("chi", chi, inside)
    size = check_voxel_size(voxel_size)
    check_positive(
        above_ppm=above_ppm,
        least_voxels=least_voxels,
        least_mm3=least_mm3,
        most_mm3=most_mm3,
        most_elongation=most_elongation,
    )
    if not below_ppm < 0 or not rim_mm >= 0:
        raise ValueError(f"below_ppm is {below_ppm} and rim_mm {rim_mm}: the one is negative, the other is not")
    position = np.asarray(affine, np.float64)
    if position.shape != (4, 4) or not np.isfinite(position).all():
        raise ValueError(f"affine is {position.tolist()}: it must be 4 x 4 numbers")
    labels = None if dseg is None else _labels(dseg, inside)
    allowed = inside if labels is None or not vein_labels else inside & ~np.isin(labels, vein_labels)
    voxel_mm3 = float(np.prod(size))
    rows = []
    for sign in (1.0, -1.0):
        strong = (values >= above_ppm if sign > 0 else values <= below_ppm) & allowed
        numbered, number = ndimage.label(strong, _TOUCHING)
        counts = np.zeros(number + 1, np.int64)
        _count(numbered, counts)
        volumes = counts * voxel_mm3
        fitting = (counts >= least_voxels) & (volumes >= least_mm3) & (volumes <= most_mm3)
        boxes = ndimage.find_objects(numbered)
        for chosen in np.flatnonzero(fitting[1:]) + 1:
            found = _describe(values, numbered, int(chosen), boxes[chosen - 1], size)
            if found[8] > most_elongation:
                continue
            if rim_mm and _depth(inside, found[5:8].copy(), np.array(size), rim_mm) < rim_mm:
                continue
            found[0] = sign
            if labels is not None:
                found[9:11] = _nearest(labels, found[5:8].copy(), size, vein_labels)
            found[5:8] = position[:3, :3] @ found[5:8] + position[:3, 3]
            rows.append(found)
    rows.sort(key=lambda row: (-abs(row[3]), *row[5:8]))
    return np.array(rows, np.float64).reshape(len(rows), PROPERTIES)


def _labels(dseg: NDArray[Any], inside: Mask) -> NDArray[np.int32]:
    labels = np.asarray(dseg)
    if labels.shape != inside.shape or labels.dtype.kind not in "iub":
        raise ValueError(f"dseg is {labels.dtype} {labels.shape}: it must hold whole numbers on the mask's grid")
    return series.read_only(np.ascontiguousarray(labels, np.int32))


def _describe(values: Real, numbered: NDArray[Any], number: int, box: tuple[slice, ...], size: Vector) -> Floats:
    """Properties of one component, with its centre as a voxel index."""
    places = np.argwhere(numbered[box] == number) + [part.start for part in box]
    chi = values[tuple(places.T)].astype(np.float64)
    voxel_mm3 = float(np.prod(size))
    mass = float(chi.sum()) * voxel_mm3
    centre = chi @ places / chi.sum()
    away = (places - places.mean(axis=0)) * size
    # A voxel is a box, not a point: its own extent keeps a single one round.
    spread = away.T @ away / len(places) + np.diag(np.square(size)) / 12
    axes = np.sqrt(np.linalg.eigvalsh(spread))
    peak = float(chi[np.abs(chi).argmax()])
    elongation = float(axes[2] / np.sqrt(axes[0] * axes[1]))
    return np.array([0, len(places), len(places) * voxel_mm3, mass, peak, *centre, elongation, 0, np.nan])


def _nearest(labels: NDArray[np.int32], centre: Floats, size: Vector, veins: tuple[int, ...]) -> tuple[float, float]:
    """The label nearest to a place, veins apart, and its distance [mm]; 0 and NaN where there is none."""
    skip = series.read_only(np.array([0, *veins], np.int32))
    steps, reach_mm = np.array(size), 4.0 * max(size)
    farthest = float(np.linalg.norm(np.array(labels.shape) * size))
    while True:
        label, distance = _search(labels, centre, steps, skip, reach_mm)
        if label:
            return float(label), distance
        if reach_mm > farthest:
            return 0.0, np.nan
        reach_mm *= 2


@compiled
def _count(numbered: NDArray[Any], counts: NDArray[np.int64]) -> None:
    for number in numbered.flat:
        counts[number] += 1


@compiled
def _search(
    labels: NDArray[np.int32], centre: Floats, size: Floats, skip: NDArray[np.int32], reach_mm: float
) -> tuple[int, float]:
    """The nearest label within a reach, and its distance; 0 if there is none."""
    best, least = 0, reach_mm
    low, high = _box(centre, size, reach_mm)
    for i in range(max(low[0], 0), min(high[0] + 1, labels.shape[0])):
        for j in range(max(low[1], 0), min(high[1] + 1, labels.shape[1])):
            for m in range(max(low[2], 0), min(high[2] + 1, labels.shape[2])):
                label = labels[i, j, m]
                if not np.any(skip == label):
                    distance = _distance(centre, size, i, j, m)
                    if distance < least:
                        best, least = label, distance
    return best, least


@compiled
def _depth(inside: Mask, centre: Floats, size: Floats, reach_mm: float) -> float:
    """Distance [mm] of a place from the nearest voxel outside the mask or the image, no more than a reach."""
    least = reach_mm
    low, high = _box(centre, size, reach_mm)
    for i in range(low[0], high[0] + 1):
        for j in range(low[1], high[1] + 1):
            for m in range(low[2], high[2] + 1):
                there = 0 <= i < inside.shape[0] and 0 <= j < inside.shape[1] and 0 <= m < inside.shape[2]
                if not there or not inside[i, j, m]:
                    least = min(least, _distance(centre, size, i, j, m))
    return least


@compiled
def _box(centre: Floats, size: Floats, reach_mm: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    reach = reach_mm / size
    return np.floor(centre - reach).astype(np.int64), np.ceil(centre + reach).astype(np.int64)


@compiled
def _distance(centre: Floats, size: Floats, i: int, j: int, m: int) -> float:
    x, y, z = (i - centre[0]) * size[0], (j - centre[1]) * size[1], (m - centre[2]) * size[2]
    return float(np.sqrt(x * x + y * y + z * z))
