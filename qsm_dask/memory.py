"""What stages take beside their inputs, as multiples of volumes; a test measures that it holds."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from qsm_dask.kernels.fourier import MARGIN_MM, padded_shape
from qsm_dask.scan import Geometry

FLOAT = 4


def volumes(
    native: float = 0.0, *, padded: float = 0.0, series: float = 0.0, margin_mm: float = MARGIN_MM
) -> Callable[[Geometry, Mapping[str, Any]], int]:
    """The peak of a stage in float32 volumes.

    Parameters
    ----------
    native : volumes of the scan's own matrix.
    padded : volumes of the matrix padded by `margin_mm` to a fast size.
    series : echo series of the scan's own matrix.
    margin_mm : margin [mm] of the padded matrix.
    """

    def peak(geometry: Geometry, parameters: Mapping[str, Any]) -> int:
        del parameters
        grid = math.prod(padded_shape(geometry.shape, geometry.voxel_size, margin_mm))
        return int(FLOAT * (geometry.voxels * (native + series * geometry.echoes) + padded * grid))

    return peak
