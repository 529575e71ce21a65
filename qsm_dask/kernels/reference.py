"""Referencing: susceptibility is known up to a constant, so it is stated relative to a region's mean."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsm_dask.kernels.doors import Mask, check_mask, check_volume


def whole_brain(
    chi: NDArray[np.float32], mask: NDArray[np.bool_], /
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Susceptibility relative to its mean over the mask.

    Parameters
    ----------
    chi : (x, y, z) [ppm].
    mask : voxels where it is known.

    Returns
    -------
    chi : (x, y, z) [ppm], zero outside the mask.
    chi_reference : the mean that was subtracted [ppm], the standard deviation over the reference [ppm]
        and its number of voxels.

    Raises
    ------
    ValueError : shapes differ, the mask is empty, or chi is not finite inside it.

    References
    ----------
    QSM Consensus Organization 2024, doi:10.1002/mrm.30006
    """
    inside = check_mask(mask)
    return _relative(check_volume("chi", chi, inside), inside, inside)


def region(
    chi: NDArray[np.float32],
    dseg: NDArray[np.int32],
    mask: NDArray[np.bool_],
    /,
    *,
    labels: tuple[int, ...],
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Susceptibility relative to its mean over labelled regions, such as the ventricles.

    Parameters
    ----------
    chi : (x, y, z) [ppm].
    dseg : label image (x, y, z).
    mask : voxels where chi is known; the reference is the part of the regions inside it.
    labels : numbers of the regions.

    Returns
    -------
    chi : (x, y, z) [ppm], zero outside the mask.
    chi_reference : the mean that was subtracted [ppm], the standard deviation over the reference [ppm]
        and its number of voxels.

    Raises
    ------
    ValueError : shapes differ, chi is not finite inside the mask, or no voxel of the regions lies inside it.

    References
    ----------
    QSM Consensus Organization 2024, doi:10.1002/mrm.30006
    """
    inside = check_mask(mask)
    values = check_volume("chi", chi, inside)
    names = check_volume("dseg", dseg, inside)
    chosen = np.zeros_like(inside)
    for plane, found, there in zip(names, chosen, inside, strict=True):
        found[:] = np.isin(plane, labels) & there
    if not chosen.any():
        raise ValueError(f"labels {tuple(labels)} have no voxel inside the mask: choose regions that dseg holds there")
    return _relative(values, chosen, inside)


def _relative(chi: NDArray[Any], reference: Mask, mask: Mask) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    # Plane by plane: a float64 copy of the whole volume would be the peak of the memory.
    count = int(np.count_nonzero(reference))
    planes = list(zip(chi, reference, strict=True))
    offset = sum(float(plane[chosen].sum(dtype=np.float64)) for plane, chosen in planes) / count
    square = sum(float(np.square(plane[chosen] - np.float64(offset)).sum()) for plane, chosen in planes)
    result = np.zeros(chi.shape, np.float32)
    np.subtract(chi, np.float32(offset), out=result, where=mask, casting="same_kind")
    return result, np.array([offset, np.sqrt(square / count), count], np.float64)
