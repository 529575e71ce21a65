"""Which voxels a picture shows and which way round: pure geometry on arrays.

Pictures are *neurological*: the patient's left is on the left of axial and coronal
slices, as fMRIPrep and nilearn draw them; anterior is up in axial slices and on the
right in sagittal ones, superior is up in the other two. Voxels are not resampled: an
oblique scan is drawn along the array axes nearest to the scanner's, and says so.
"""

from dataclasses import dataclass
from itertools import permutations
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Plane = Literal["axial", "coronal", "sagittal"]

THROUGH: dict[Plane, int] = {"sagittal": 0, "coronal": 1, "axial": 2}
"""The axis (right, anterior, superior) that a plane cuts."""

EDGES: dict[Plane, tuple[str, str]] = {"axial": ("L", "R"), "coronal": ("L", "R"), "sagittal": ("P", "A")}
"""What lies at the left and at the right edge of a picture."""


@dataclass(frozen=True)
class Orientation:
    """How an array lies in the patient.

    Attributes
    ----------
    axes : the array axis that runs nearest to right, to anterior and to superior.
    flips : whether that axis runs the other way.
    spacing : voxel size [mm] along right, anterior and superior.
    tilt : largest angle [degrees] between an array axis and the direction it stands for.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    spacing: tuple[float, float, float]
    tilt: float

    @classmethod
    def of(cls, affine: ArrayLike) -> "Orientation":
        """Read an orientation from an affine.

        Every assignment of array axes to directions is tried, and the one with the
        largest sum of direction cosines wins: no two directions can take one axis.

        Parameters
        ----------
        affine : (4, 4), voxel index to position in mm (right, anterior, superior).

        Raises
        ------
        ValueError : `affine` is not 4 x 4, or a column of it is zero or not finite.
        """
        matrix = np.asarray(affine, dtype=np.float64)
        if matrix.shape != (4, 4):
            raise ValueError(f"an affine is 4 x 4, got {matrix.shape}")
        size = np.linalg.norm(matrix[:3, :3], axis=0)
        if not np.all(np.isfinite(size)) or np.any(size == 0.0):
            raise ValueError(f"the affine gives no voxel size: its columns have the lengths {size.tolist()}")
        cosines = matrix[:3, :3] / size
        best = max(permutations(range(3)), key=lambda p: sum(abs(cosines[w, p[w]]) for w in range(3)))
        along = [float(cosines[w, best[w]]) for w in range(3)]
        right, anterior, superior = best
        return cls(
            axes=(right, anterior, superior),
            flips=(along[0] < 0.0, along[1] < 0.0, along[2] < 0.0),
            spacing=(float(size[right]), float(size[anterior]), float(size[superior])),
            tilt=float(np.degrees(np.arccos(np.clip(min(abs(c) for c in along), 0.0, 1.0)))),
        )

    def apply(self, volume: NDArray[Any]) -> NDArray[Any]:
        """A view of `volume` (x, y, z) whose axes run to right, anterior and superior."""
        turned = volume.transpose(self.axes)
        return turned[tuple(slice(None, None, -1) if flip else slice(None) for flip in self.flips)]


def cut(volume: NDArray[Any], plane: Plane, index: int) -> NDArray[Any]:
    """One slice of a volume that runs to right, anterior and superior.

    Returns
    -------
    picture : (row, column); row 0 is the lowest, column 0 the leftmost.
    """
    picture: NDArray[Any] = np.take(volume, index, axis=THROUGH[plane]).T
    return picture


@dataclass(frozen=True)
class View:
    """One slice of a mosaic: where it is cut and what it spans.

    Attributes
    ----------
    plane, index : the cut, in the turned volume.
    size : width and height [mm].
    """

    plane: Plane
    index: int
    size: tuple[float, float]


@dataclass(frozen=True)
class Framing:
    """The cuts of a mosaic and the box they are cropped to, the same for every map of a scan.

    Attributes
    ----------
    orientation : how the arrays lie.
    box : slices of the turned volume, the crop.
    views : the cuts; their indices count inside the crop.
    """

    orientation: Orientation
    box: tuple[slice, slice, slice]
    views: tuple[View, ...]

    def crop(self, volume: NDArray[Any]) -> NDArray[Any]:
        """A view of `volume` (x, y, z), turned and cropped."""
        return self.orientation.apply(volume)[self.box]


CUTS: tuple[tuple[Plane, float], ...] = (
    ("axial", 0.27),
    ("axial", 0.41),
    ("axial", 0.60),
    ("coronal", 0.55),
    ("sagittal", 0.35),
)
"""Planes, and the share of the mask's voxels that lies below (behind, left of) each.

In a brain these meet the midbrain nuclei, the basal ganglia, the caudate bodies, the
thalami and the left lentiform nucleus. Shares of voxels rather than of the height keep
the choice in the brain when a mask leaks along a vessel or the neck.
"""


def frame(mask: NDArray[np.bool_], affine: ArrayLike, *, margin_mm: float = 6.0) -> Framing:
    """Choose what a mosaic of one scan shows.

    Parameters
    ----------
    mask : (x, y, z); an empty one frames the whole volume.
    affine : (4, 4), voxel index to mm.
    margin_mm : border left around the mask.

    Returns
    -------
    framing : the crop and the cuts of `CUTS`.
    """
    orientation = Orientation.of(affine)
    turned = orientation.apply(mask)
    counts = [turned.sum(axis=tuple(a for a in range(3) if a != axis)) for axis in range(3)]
    if not counts[0].any():
        counts = [np.ones(n, dtype=np.int64) for n in turned.shape]
    box = []
    for count, spacing in zip(counts, orientation.spacing, strict=True):
        inside = np.flatnonzero(count)
        border = round(margin_mm / spacing)
        box.append(slice(max(0, int(inside[0]) - border), min(count.size, int(inside[-1]) + 1 + border)))
    lengths = [(b.stop - b.start) * s for b, s in zip(box, orientation.spacing, strict=True)]
    views = []
    for plane, share in CUTS:
        through = THROUGH[plane]
        below = np.cumsum(counts[through])
        index = int(np.searchsorted(below, share * below[-1])) - box[through].start
        width, height = (length for axis, length in enumerate(lengths) if axis != through)
        views.append(View(plane, index, (width, height)))
    return Framing(orientation, (box[0], box[1], box[2]), tuple(views))
