"""Checks at the door of a kernel: what it cannot compute with is refused before it computes.

Values outside the mask are never read, so NaN there is no fault.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Mask = NDArray[np.bool_]
Vector = tuple[float, float, float]


def check_mask(mask: NDArray[Any]) -> Mask:
    """The mask as booleans, without a copy where it is boolean already.

    Raises
    ------
    ValueError : the mask is not three-dimensional or has no voxel.
    """
    if np.ndim(mask) != 3:
        raise ValueError(f"mask has {np.ndim(mask)} dimensions, not (x, y, z)")
    mask = np.asarray(mask)
    chosen = mask if mask.dtype == np.bool_ else mask != 0
    if not chosen.any():
        raise ValueError("mask is empty: no voxel is left to work on; loosen the masking step")
    return chosen


def check_volume(name: str, volume: NDArray[Any], mask: Mask) -> NDArray[Any]:
    """The volume, once it has the mask's shape and is finite inside it.

    Raises
    ------
    ValueError : shapes differ, the values are complex, or one inside the mask is NaN or infinite.
    """
    volume = np.asarray(volume)
    if volume.shape != mask.shape:
        raise ValueError(f"{name} has shape {volume.shape} and mask {mask.shape}: resample one to the other's grid")
    if np.iscomplexobj(volume):
        raise ValueError(f"{name} is complex: hand over real values")
    # Plane by plane: a temporary of the whole volume would count in the peak memory.
    planes = ((np.isfinite(plane), inside) for plane, inside in zip(volume, mask, strict=True))
    bad = sum(int(np.count_nonzero(~finite & inside)) for finite, inside in planes if not finite.all())
    if bad:
        raise ValueError(f"{name} is NaN or infinite in {bad} voxels of the mask: take them out of the mask")
    return volume


def check_voxel_size(voxel_size: ArrayLike) -> Vector:
    """The voxel size [mm] as three floats.

    Raises
    ------
    ValueError : it is not three positive, finite numbers.
    """
    size = np.asarray(voxel_size, dtype=np.float64)
    if size.shape != (3,) or not np.isfinite(size).all() or (size <= 0).any():
        raise ValueError(f"voxel_size is {size.tolist()}: it must be three positive lengths in mm")
    return float(size[0]), float(size[1]), float(size[2])


def check_direction(b0_dir: ArrayLike) -> Vector:
    """The direction of B0 as three floats of unit norm.

    Raises
    ------
    ValueError : it is not three finite numbers, or its norm is not 1 within 1 %.
    """
    direction = np.asarray(b0_dir, dtype=np.float64)
    norm = float(np.linalg.norm(direction)) if direction.shape == (3,) else np.nan
    if not abs(norm - 1.0) < 0.01:
        raise ValueError(f"b0_dir is {direction.tolist()}: it must be a unit vector in array axes")
    x, y, z = direction / norm
    return float(x), float(y), float(z)


def check_extensions(extensions: int) -> None:
    """Refuse a negative number of extensions of the field.

    Raises
    ------
    ValueError : it is negative.
    """
    if extensions < 0:
        raise ValueError(f"extensions is {extensions}: it must not be negative")


def check_positive(**parameters: float) -> None:
    """Refuse parameters that are not positive, finite numbers.

    Raises
    ------
    ValueError : the message names the first of them.
    """
    for name, value in parameters.items():
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value}: it must be a positive number")
