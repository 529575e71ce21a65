"""Referencing: susceptibility is known up to a constant, so it is stated relative to a region's mean."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from qsm_dask.kernels.doors import Mask, check_mask, check_positive, check_volume, check_voxel_size
from qsm_dask.kernels.fluid import ventricles
from qsm_dask.kernels.fourier import smallest_box
from qsm_dask.kernels.mixture import gaussian_among_uniform

_FEWEST = 50
"""Voxels that tell the susceptibility of fluid to a seventh of their own spread."""


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


def csf(
    chi: NDArray[np.float32],
    mask: NDArray[np.bool_],
    voxel_size: ArrayLike,
    r2star: NDArray[np.float32] | None = None,
    dseg: NDArray[np.int32] | None = None,
    /,
    *,
    labels: tuple[int, ...] = (),
    r2star_below: float = 5.0,
) -> NDArray[np.float64]:
    """The susceptibility of the fluid in the ventricles, to refer to later; the map stays as it is.

    The voxels are those of the labels given, or else those of little R2* within 30 mm of the middle of the brain, the
    largest three pieces of them; where at least 50 have only such neighbours, these alone, for the others are filled by
    tissue in part. Choroid plexus, vessels and calcifications are among them: the fluid is the Gaussian of a mixture
    of a Gaussian and a uniform rest. Ventricles of fewer than 50 voxels are taken for unknown.

    Parameters
    ----------
    chi : (x, y, z) [ppm].
    mask : voxels where chi is known.
    voxel_size : spacing [mm].
    r2star : effective transverse relaxation rate (x, y, z) [1/s]; without it labels are needed.
    dseg : label image (x, y, z).
    labels : numbers of the ventricles in the label image; 4 and 43 in FreeSurfer's.
    r2star_below : largest R2* of fluid [1/s], where there are no labels; 5 as the authors of MEDI+0 (Liu 2018). From 4
        to 10 the reference of three head phantoms changes by less than 2 ppb.

    Returns
    -------
    csf_reference : the mean of the Gaussian [ppm], its standard deviation [ppm] and the expected number of its voxels;
        NaN, NaN and 0 where there is no fluid to be found.

    Raises
    ------
    ValueError : shapes differ, the mask is empty, or an image is not finite inside it.

    References
    ----------
    Liu 2018, doi:10.1002/mrm.26946; Dimov 2022, doi:10.1111/jon.12923
    """
    inside = check_mask(mask)
    values = check_volume("chi", chi, inside)
    rate = None if r2star is None else check_volume("r2star", r2star, inside)
    size = check_voxel_size(voxel_size)
    check_positive(r2star_below=r2star_below)
    if labels and dseg is not None:
        places = np.isin(check_volume("dseg", dseg, inside), labels) & inside
    elif rate is not None:
        places = ventricles(rate, inside, size, r2star_below)
    else:
        places = np.zeros_like(inside)
    if places.any():
        box = smallest_box(places)
        places, values = places[box], values[box]
    deep = ndimage.binary_erosion(places)
    chosen = deep if np.count_nonzero(deep) >= _FEWEST else places
    found = values[chosen].astype(np.float64)
    if found.size < _FEWEST:
        return np.array([np.nan, np.nan, 0.0])
    return np.array(gaussian_among_uniform(found))


def _relative(chi: NDArray[Any], reference: Mask, mask: Mask) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    # Plane by plane: a float64 copy of the whole volume would be the peak of the memory.
    count = int(np.count_nonzero(reference))
    planes = list(zip(chi, reference, strict=True))
    offset = sum(float(plane[chosen].sum(dtype=np.float64)) for plane, chosen in planes) / count
    square = sum(float(np.square(plane[chosen] - np.float64(offset)).sum()) for plane, chosen in planes)
    result = np.zeros(chi.shape, np.float32)
    np.subtract(chi, np.float32(offset), out=result, where=mask, casting="same_kind")
    return result, np.array([offset, np.sqrt(square / count), count], np.float64)
