"""What tells of a mask whether it is one of a brain: its volume, its edge, and what it kept of the mask before."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def figures(mask: NDArray[Any], voxel_size: Sequence[float], before: NDArray[Any] | None = None) -> dict[str, float]:
    """Figures of a mask.

    Parameters
    ----------
    mask : bool (x, y, z).
    voxel_size : spacing [mm].
    before : the mask that it replaces, of the same shape; None where it is the first.

    Returns
    -------
    dict : `volume_ml`; `edge_ratio`, the area of its faces over that of a cube of its volume (a ragged or perforated
        mask has more); `dice` with the mask before.
    """
    number = int(np.count_nonzero(mask))
    x, y, z = (float(size) for size in voxel_size)
    volume = number * x * y * z
    area = 0.0
    for axis, face in enumerate((y * z, x * z, x * y)):
        along = np.moveaxis(mask, axis, 0)
        inner = np.count_nonzero(along[1:] != along[:-1])
        area += face * float(inner + np.count_nonzero(along[0]) + np.count_nonzero(along[-1]))
    found = {"volume_ml": volume / 1000.0, "edge_ratio": area / (6.0 * volume ** (2.0 / 3.0)) if number else 0.0}
    if before is not None:
        common = int(np.count_nonzero(mask & before))
        found["dice"] = 2.0 * common / max(number + int(np.count_nonzero(before)), 1)
    return found
