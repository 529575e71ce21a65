"""The brain as a label image of the subject has it."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsm_dask.kernels.distance import deeper, depth_squared
from qsm_dask.kernels.doors import Mask, check_voxel_size


def segmentation(
    dseg: NDArray[Any], voxel_size: ArrayLike, /, *, leave_out: tuple[int, ...] = (), closing_mm: float = 2.0
) -> Mask:
    """Take the brain from a label image of the whole head: all its labels, with the gaps between them closed.

    For images that label all of the brain (FreeSurfer, SynthSeg, FastSurfer); one that labels nuclei only is no mask.

    Parameters
    ----------
    dseg : (x, y, z) integer labels, 0 outside.
    voxel_size : spacing [mm].
    leave_out : labels that are no brain, such as skull or scalp; none by default, as labels of every tool differ.
    closing_mm : gaps narrower than twice this are closed, sulci among them [mm]. On three head phantoms, whose labels
        fill 92 % of the mask, 2 mm fill 99.3 and 3 mm 99.7 %.

    Returns
    -------
    bool (x, y, z).

    Raises
    ------
    ValueError : no label is left, or the length is negative.
    """
    size = check_voxel_size(voxel_size)
    if not closing_mm >= 0.0:
        raise ValueError(f"closing_mm is {closing_mm}: it must be a length in mm, 0 or more")
    brain = (dseg > 0) & ~np.isin(dseg, np.asarray(leave_out, dtype=np.int64))
    if not brain.any():
        raise ValueError("dseg has no label that is brain: change leave_out, or take another mask")
    if closing_mm == 0.0:
        return np.asarray(brain)
    # What lies beyond an array counts as outside: twice the reach keeps that away from the image.
    margins = [(2 * int(np.ceil(closing_mm / length)) + 1,) * 2 for length in size]
    padded = np.pad(brain, margins)
    grown = ~deeper(depth_squared(~padded, size, closing_mm), closing_mm)
    closed = deeper(depth_squared(grown, size, closing_mm), closing_mm)
    inner = tuple(slice(m, m + n) for (m, _), n in zip(margins, brain.shape, strict=True))
    return np.asarray(closed[inner] | brain)
