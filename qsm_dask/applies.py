"""Why a method cannot run on a scan, told from the scan's geometry before any voxel is read."""

from qsm_dask.kernels.relaxometry import equispaced
from qsm_dask.scan import Geometry


def three_dimensions(geometry: Geometry) -> str | None:
    """The reason a method that needs several slices is left out, or None."""
    if min(geometry.shape) < 4:
        return f"needs at least 4 voxels along each axis, the scan has {'x'.join(map(str, geometry.shape))}"
    return None


def two_echoes(geometry: Geometry) -> str | None:
    """The reason a method that needs two or more echoes is left out, or None."""
    if geometry.echoes < 2:
        return f"needs at least 2 echoes, the scan has {geometry.echoes}"
    return None


def three_echoes(geometry: Geometry) -> str | None:
    """The reason a method that needs three or more echoes is left out, or None."""
    if geometry.echoes < 3:
        return f"needs at least 3 echoes, the scan has {geometry.echoes}"
    return None


def three_equispaced_echoes(geometry: Geometry) -> str | None:
    """The reason a method that needs three or more equally spaced echoes is left out, or None."""
    if geometry.echoes < 3:
        return f"needs at least 3 equally spaced echoes, the scan has {geometry.echoes}"
    if not equispaced(geometry.te):
        times = ", ".join(f"{1000 * time:g}" for time in geometry.te)
        return f"needs equally spaced echoes, the scan has {times} ms"
    return None
