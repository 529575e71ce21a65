"""Where the voxels of an image lie: spacing, direction of B0, and whether two images share one grid."""

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsm_dask.errors import InputError

_SHEAR = 1e-3
_GRID_TOLERANCE = 0.01


@dataclass(frozen=True, eq=False)
class Grid:
    """Where the voxels of an image lie.

    Attributes
    ----------
    label : the name under which messages speak of the image.
    shape : matrix (x, y, z).
    affine : voxel index to scanner position [mm].
    doubt : why the affine may not tell how the image lay in the scanner; empty where it does.
    """

    label: str
    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    doubt: str


def voxel_size(affine: ArrayLike, label: str = "affine") -> NDArray[np.float64]:
    """Voxel spacing [mm]: the lengths of the affine's columns.

    Raises
    ------
    InputError : a column has no length, or two are not orthogonal (cosine above 1e-3).
    """
    columns = np.asarray(affine, dtype=np.float64)[:3, :3]
    sizes = np.asarray(np.linalg.norm(columns, axis=0))
    if not np.all(np.isfinite(columns)) or not np.all(sizes > 0):
        raise InputError(f"{label}: the affine has a column without length; the header's orientation is broken")
    cosines = (columns / sizes).T @ (columns / sizes) - np.eye(3)
    if np.abs(cosines).max() > _SHEAR:
        raise InputError(
            f"{label}: the affine is sheared (its axes are not orthogonal, cosine {np.abs(cosines).max():.3g}); "
            "resample the images onto an orthogonal grid first"
        )
    return cast("NDArray[np.float64]", sizes)


def b0_direction(affine: ArrayLike, label: str = "affine") -> NDArray[np.float64]:
    """Unit vector of B0 in array axes, B0 being along the scanner's z.

    It is the third row of the rotation, that is of `A[:3, :3] / voxel_size`.

    Raises
    ------
    InputError : see `voxel_size`.
    """
    columns = np.asarray(affine, dtype=np.float64)[:3, :3]
    row = (columns / voxel_size(affine, label))[2]
    return cast("NDArray[np.float64]", row / np.linalg.norm(row) + 0.0)


def same_grid(one: Grid, other: Grid, tolerance: float = _GRID_TOLERANCE) -> str | None:
    """Why two images do not share one grid, or None if they do.

    Matrices must be equal and no corner may be off by more than the tolerance, a hundredth of a voxel.
    """
    if one.shape != other.shape:
        return f"its matrix is {other.shape}, that of {one.label} is {one.shape}"
    corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)], dtype=np.float64)
    corners[:, :3] *= np.array(one.shape) - 1
    shift = np.linalg.norm(corners @ (one.affine - other.affine).T, axis=1).max()
    if shift > tolerance * np.linalg.norm(one.affine[:3, :3], axis=0).min():
        return f"its position or orientation (affine) differs from {one.label} by up to {shift:.3g} mm"
    return None
