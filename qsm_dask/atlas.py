"""What an atlas is once it is read: images of a template, and regions drawn in its space."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Image:
    """A volume and where it lies.

    Attributes
    ----------
    values : (x, y, z), or (label, x, y, z).
    affine : (4, 4), voxel index to position [mm], x to the right, y to the front, z up.
    """

    values: NDArray[Any]
    affine: NDArray[np.float64]

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))


@dataclass(frozen=True, eq=False)
class Grid:
    """The voxels of a template, without values.

    Attributes
    ----------
    shape : (x, y, z).
    affine : (4, 4), voxel index to position [mm].
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Atlas:
    """A template, regions in its space, or either's part that was asked for.

    Attributes
    ----------
    space : name of the space, as `MNI152NLin2009cAsym`; empty where the files do not tell.
    contrasts : images of the template: `magnitude`, `T1w`, `chi` [ppm].
    mask : the template's brain (x, y, z) bool.
    labels : label image (x, y, z) int32.
    probabilities : (label, x, y, z) from 0 to 1, in the order of `names`.
    names : of the regions, by label.
    grid : of the template's images.
    """

    space: str = ""
    contrasts: Mapping[str, Image] = field(default_factory=dict)
    mask: Image | None = None
    labels: Image | None = None
    probabilities: Image | None = None
    names: Mapping[int, str] = field(default_factory=dict)
    grid: Grid | None = None


Part = Literal["template", "regions", "grid"]
"""What a step reads of an atlas: the images to register to, the regions, or only which voxels the images have."""


@dataclass(frozen=True)
class Pin:
    """Which part of which atlas a run uses, wherever its files lie.

    Attributes
    ----------
    digest : of the content of its files.
    voxels : of all its images together, for the memory that reading them takes.
    probabilities : how many volumes of probabilities it has.
    """

    digest: str
    voxels: int
    probabilities: int = 0
