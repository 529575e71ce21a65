"""Dipole inversion by one division in k-space."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsm_dask.kernels import fourier
from qsm_dask.kernels.dipole import dipole_spectrum
from qsm_dask.kernels.doors import check_direction, check_mask, check_volume, check_voxel_size
from qsm_dask.kernels.fourier import Floats, Spectrum, Volume
from qsm_dask.kernels.jit import compiled


def tkd(
    local_field: NDArray[np.float32],
    mask: NDArray[np.bool_],
    voxel_size: ArrayLike,
    b0_dir: ArrayLike,
    /,
    *,
    threshold: float = 0.15,
) -> Volume:
    """Susceptibility by thresholded k-space division, its underestimation corrected.

    Divides the field by the dipole kernel, and by the threshold with the kernel's sign where the kernel
    is below it. What that takes from the centre of the point spread function, its value at the source,
    is given back by one factor. Two transforms.

    Parameters
    ----------
    local_field : relative field of the sources inside the mask (x, y, z) [ppm].
    mask : voxels where it is known.
    voxel_size : spacing [mm].
    b0_dir : unit vector of B0 in array axes.
    threshold : smallest magnitude of the kernel that is divided by; below 1/3. Between the 0.1 and 0.2 that Shmueli
        2009 recommends as a balance of noise and streaks against blur.

    Returns
    -------
    chi : (x, y, z) [ppm], zero outside the mask; its mean is arbitrary.

    Raises
    ------
    ValueError : inputs do not fit one another or are not finite inside the mask.

    References
    ----------
    Shmueli 2009, doi:10.1002/mrm.22135; Schweser 2013, doi:10.1002/mrm.24405
    """
    inside, size, direction = check_mask(mask), check_voxel_size(voxel_size), check_direction(b0_dir)
    field = check_volume("local_field", local_field, inside)
    if not 0 < threshold < 1 / 3:
        raise ValueError(f"threshold is {threshold}: it must lie between 0 and 1/3")
    shape = fourier.padded_shape(inside.shape, size, fourier.MARGIN_MM)
    spectrum = fourier.forward(fourier.pad(field, inside, shape))
    centre = divide(spectrum, dipole_spectrum(shape, size, direction), np.float32(threshold), shape[2] % 2 == 0)
    chi = fourier.crop(fourier.inverse(spectrum, shape), inside)
    chi /= np.float32(centre)
    return chi


def divide(spectrum: Spectrum, dipole: Volume, threshold: np.float32, even: bool) -> float:
    """Divide a half spectrum by the thresholded dipole kernel, in place.

    Parameters
    ----------
    spectrum : overwritten.
    dipole : kernel on the same half grid.
    threshold : smallest magnitude that is divided by; where the kernel is zero the result is zero.
    even : whether the last axis of the full grid has an even length.

    Returns
    -------
    The centre of the point spread function: the mean of D times its thresholded inverse over the full spectrum.
    """
    sums = np.empty(spectrum.shape[0])
    _divide(spectrum, dipole, threshold, even, sums)
    x, y, z = spectrum.shape
    centre: float = sums.sum() / (x * y * (2 * z - 1 - even))
    return centre


@compiled
def _divide(spectrum: Spectrum, dipole: Volume, threshold: np.float32, even: bool, sums: Floats) -> None:
    nx, ny, nz = spectrum.shape
    product = np.empty(nz)
    for i in range(nx):
        total = 0.0
        for j in range(ny):
            for m in range(nz):
                d = dipole[i, j, m]
                inverse = np.float32(0.0) if d == 0 else 1 / np.copysign(max(abs(d), threshold), d)
                spectrum[i, j, m] *= inverse
                product[m] = d * inverse
            twice = 0.0
            for m in range(1, nz - 1):
                twice += product[m]
            total += 2 * twice + product[0] + (product[nz - 1] if even else 2 * product[nz - 1])
        sums[i] = total
