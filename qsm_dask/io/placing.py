"""Bringing label images and probabilities of other grids onto the grid of a scan, with one interpolation.

Without a transform their headers say where they lie, which holds for images of one session in the scanner's own
coordinates. Whatever looks like another space is refused: a label map in the wrong place looks like any other.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qsm_dask.errors import InputError
from qsm_dask.io.grid import Grid, same_grid, voxel_size
from qsm_dask.io.names import Name, parse
from qsm_dask.io.transforms import Transform
from qsm_dask.kernels.resample import carry_labels, sample

_OF_THE_SCANNER = frozenset(
    (
        *("t1w", "t2w", "t2starw", "t2star", "megre", "swi", "flair", "pdw", "unit1", "inplanet2", "anat"),
        *("orig", "fsnative", "native", "subject", "individual", "scanner", "scan"),
    )
)
"""Labels of `space-` that leave an image where the scanner saw it, on whatever grid."""

_SLAB_VOXELS = 2**20
_LEAST_INSIDE, _FEW_INSIDE = 0.01, 0.5
_LEAST_ON_SIGNAL, _FEW_ON_SIGNAL = 0.5, 0.9
_BRIGHT, _SIGNAL = 98.0, 0.1
"""Signal is more than this share of a percentile of the magnitude that lies inside every head."""


_WRONG_TRANSFORM = "does the transform lead the other way, or between other images?"
_WRONG_PLACE = (
    "by their headers they lie in different places: if they were not made in one session, give the transform between "
    "them with --transform"
)


@dataclass(frozen=True, eq=False)
class Placement:
    """How an image is read at the voxels of a scan.

    Attributes
    ----------
    scan, image : their grids.
    transform : from the scan's positions to the image's; None where both are the scanner's.
    around : (point, axis) [mm] from a position in the image to the points of a scan's voxel that are averaged: no
        further apart than the image's voxels.
    """

    scan: Grid
    image: Grid
    transform: Transform | None
    around: NDArray[np.float64]

    def labels(self, values: NDArray[np.int32]) -> NDArray[np.int32]:
        """The label that fills most of each voxel of the scan."""
        found = np.empty(self.scan.shape, dtype=np.int32)
        for planes, positions in self._slabs():
            found[planes] = carry_labels(values, self.image.affine, positions, self.around)
        return found

    def values(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The mean over each voxel of the scan, linear between the image's voxels."""
        found = np.zeros(self.scan.shape, dtype=np.float32)
        for planes, positions in self._slabs():
            for step in self.around:
                shifted = positions + step.astype(np.float32).reshape(3, 1, 1, 1)
                found[planes] += sample(values, self.image.affine, shifted)
        found /= np.float32(len(self.around))
        return found

    def _slabs(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Positions in the image of the voxels of some planes of the scan after the other."""
        nx, ny, nz = self.scan.shape
        thick = max(1, _SLAB_VOXELS // (ny * nz))
        for start in range(0, nx, thick):
            planes = slice(start, min(start + thick, nx))
            yield planes, _positions(self.scan, planes, self.transform)


def _positions(scan: Grid, planes: slice, transform: Transform | None) -> NDArray[np.float32]:
    index = np.ix_(np.arange(planes.start, planes.stop), *(np.arange(n) for n in scan.shape[1:]))
    points = np.stack(
        [scan.affine[axis, 3] + sum(scan.affine[axis, other] * index[other] for other in range(3)) for axis in range(3)]
    )
    return np.ascontiguousarray(points if transform is None else transform(points), dtype=np.float32)


def place(scan: Grid, image: Grid, transform: Transform | None) -> Placement | None:
    """How to bring an image onto a scan; None where it shares the scan's grid already.

    Raises
    ------
    InputError : there is no transform and the image, or the scan, does not tell where it lay in the scanner.
    """
    if transform is None:
        difference = same_grid(scan, image)
        if difference is None:
            return None
        _check_space(scan, image, difference)
    centre = np.array([(n - 1) / 2 for n in scan.shape])
    corner = scan.affine[:3, :3] @ centre + scan.affine[:3, 3]
    ends = np.stack([corner + 0.5 * sign * step for step in np.eye(3) for sign in (1, -1)], axis=1).reshape(3, -1, 1, 1)
    moved = (ends if transform is None else transform(ends)).reshape(3, 3, 2)
    linear = moved[..., 0] - moved[..., 1]  # change of the position in the image [mm per mm of the scan]
    return Placement(scan, image, transform, _points(scan, image) @ linear.T)


def _points(scan: Grid, image: Grid) -> NDArray[np.float64]:
    """Points of a voxel of the scan [mm from its centre], no further apart than the image's smallest voxels."""
    finest = float(voxel_size(image.affine, image.label).min())
    counts = [max(1, math.ceil(size / finest - 0.01)) for size in voxel_size(scan.affine, scan.label)]
    steps = [(np.arange(count) + 0.5) / count - 0.5 for count in counts]
    found = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3)
    return np.asarray(found @ scan.affine[:3, :3].T)


def _check_space(scan: Grid, image: Grid, difference: str) -> None:
    remedy = "give the transform between the two with --transform"
    name = _name(image.label)
    space = name.get("space") if name else None
    if space is not None and space.lower() not in _OF_THE_SCANNER:
        raise InputError(
            f"{image.label}: lies in the space {space}, not where the scanner saw the head: {remedy}, or read a "
            "template's regions with --atlas"
        )
    for grid in (image, scan):
        if grid.doubt:
            raise InputError(
                f"{image.label}: {difference}, and the header of {grid.label} does not say where it lay in the scanner "
                f"(no sform, qform or goodRASFlag does): {remedy}, or resample it onto the scan's grid"
            )


def _name(label: str) -> Name | None:
    return parse(re.sub(r"\.mg[hz]$", ".nii", label.rpartition("/")[2]))


def judge(
    label: str,
    placement: Placement,
    volume_mm3: float,
    inside: NDArray[np.bool_],
    carried: float | None,
    magnitude: NDArray[np.float32] | None,
) -> tuple[dict[str, float], list[str]]:
    """How much of an image came to lie inside the scan, and on signal; and what of it asks to be looked at.

    Parameters
    ----------
    label : the name under which messages speak of it.
    placement : how it was brought onto the scan.
    volume_mm3 : of its regions on its own grid.
    inside : (x, y, z) voxels of the scan that are region.
    carried : voxels of the scan that regions fill, where they fill some in part; those `inside` if not given.
    magnitude : (x, y, z) of the scan's first echo, if it is known.

    Raises
    ------
    InputError : none of it lies inside the scan, or most of it where the head is not.
    """
    voxels = float(np.count_nonzero(inside)) if carried is None else carried
    covered = min(1.0, voxels * abs(float(np.linalg.det(placement.scan.affine[:3, :3]))) / max(volume_mm3, 1e-9))
    remedy = _WRONG_TRANSFORM if placement.transform else _WRONG_PLACE
    if covered < _LEAST_INSIDE:
        raise InputError(f"{label}: less than 1 % of its regions lies inside the scan {placement.scan.label}; {remedy}")
    figures, warnings = {"inside": round(covered, 4)}, []
    if covered < _FEW_INSIDE:
        warnings.append(f"{label}: {1 - covered:.0%} of its regions lies outside the scan; {remedy}")
    if magnitude is not None and inside.any():
        level = _SIGNAL * np.percentile(magnitude[::2, ::2, ::2], _BRIGHT)
        bright = float((magnitude[inside] > level).mean())
        figures["on_signal"] = round(bright, 4)
        dark = f"{label}: {1 - bright:.0%} of its regions lies where the scan has no signal; {remedy}"
        if bright < _LEAST_ON_SIGNAL:
            raise InputError(dark)
        if bright < _FEW_ON_SIGNAL:
            warnings.append(dark)
    return figures, warnings
