"""The field of susceptibility: the dipole kernel in k-space and the forward model."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsm_dask.kernels import fourier
from qsm_dask.kernels.doors import Vector, check_direction, check_volume, check_voxel_size
from qsm_dask.kernels.fourier import Floats
from qsm_dask.kernels.jit import compiled


def dipole_spectrum(shape: fourier.Shape, voxel_size: ArrayLike, b0_dir: ArrayLike) -> NDArray[np.float32]:
    """The dipole kernel on the half spectrum of a grid, read-only.

    D(k) = 1/3 - (k.b)^2 / k^2, with k in 1/mm and D(0) = 0: the field inside a sphere of
    Lorentz is left out, and the mean field is not determined. On the Nyquist planes of
    even axes, where +k and -k are one sample, D is the mean over both signs, without which the
    kernel of an oblique B0 is not the spectrum of a real function.

    Parameters
    ----------
    shape : full (even or odd) grid.
    voxel_size : spacing [mm].
    b0_dir : unit vector of B0 in array axes.

    Returns
    -------
    float32 array of shape (shape[0], shape[1], shape[2] // 2 + 1).

    Raises
    ------
    ValueError : voxel_size or b0_dir is unusable.

    References
    ----------
    Salomir 2003, doi:10.1002/cmr.b.10083; Marques and Bowtell 2005, doi:10.1002/cmr.b.20034
    """
    size, direction = check_voxel_size(voxel_size), check_direction(b0_dir)
    key = ("dipole", shape, size, direction)
    return fourier.spectra.get(key, lambda: _compute(shape, size, direction))


def _compute(shape: fourier.Shape, voxel_size: Vector, b0_dir: Vector) -> NDArray[np.float32]:
    kx, ky, kz = fourier.frequencies(shape, voxel_size)
    nyquist = np.array([n // 2 if n % 2 == 0 else -1 for n in shape])
    spectrum = np.empty(fourier.half_shape(shape), np.float32)
    _fill(spectrum, kx, ky, kz, np.array(b0_dir), nyquist)
    return spectrum


@compiled
def _fill(
    spectrum: NDArray[np.float32],
    kx: Floats,
    ky: Floats,
    kz: Floats,
    b: Floats,
    nyquist: NDArray[np.int64],
) -> None:
    for i in range(spectrum.shape[0]):
        x = kx[i] * b[0]
        for j in range(spectrum.shape[1]):
            y = ky[j] * b[1]
            kxy = kx[i] * kx[i] + ky[j] * ky[j]
            # The mean over both signs of a Nyquist frequency drops its mixed products.
            mixed, square = 0.0, 0.0
            if i == nyquist[0]:
                square += x * x
            else:
                mixed += x
            if j == nyquist[1]:
                square += y * y
            else:
                mixed += y
            for m in range(spectrum.shape[2]):
                z = kz[m] * b[2]
                single = mixed * mixed + square + z * z
                along = single if m == nyquist[2] else single + 2 * mixed * z
                spectrum[i, j, m] = 1.0 / 3.0 - along / (kxy + kz[m] * kz[m])
    spectrum[0, 0, 0] = 0.0


def sampled_dipole_spectrum(shape: fourier.Shape, voxel_size: ArrayLike, b0_dir: ArrayLike) -> NDArray[np.float32]:
    """The spectrum of the dipole field sampled in image space, on the half spectrum of a grid, read-only.

    Each voxel is a dipole at its centre: volume (3 cos^2 - 1) / (4 pi r^3) at the distance r of the nearest
    periodic image, zero at r = 0. Unlike `dipole_spectrum` it makes fields that are harmonic
    between the voxels of their sources. Where both signs of a distance are one sample, half an
    even axis away, it is the mean over both.

    Parameters
    ----------
    shape : full (even or odd) grid.
    voxel_size : spacing [mm].
    b0_dir : unit vector of B0 in array axes.

    Returns
    -------
    float32 array of shape (shape[0], shape[1], shape[2] // 2 + 1).

    Raises
    ------
    ValueError : voxel_size or b0_dir is unusable.

    References
    ----------
    Liu 2011, doi:10.1002/nbm.1670
    """
    size, direction = check_voxel_size(voxel_size), check_direction(b0_dir)
    key = ("sampled dipole", shape, size, direction)
    return fourier.spectra.get(key, lambda: _sampled(shape, size, direction))


def _sampled(shape: fourier.Shape, voxel_size: Vector, b0_dir: Vector) -> NDArray[np.float32]:
    kernel = np.empty(shape, np.float32)
    _sample(kernel, np.array(voxel_size), np.array(b0_dir))
    return np.ascontiguousarray(fourier.forward(kernel).real)


@compiled
def _sample(kernel: NDArray[np.float32], size: Floats, b: Floats) -> None:
    nx, ny, nz = kernel.shape
    scale = size[0] * size[1] * size[2] / (4 * np.pi)
    for i in range(nx):
        x = (i if 2 * i <= nx else i - nx) * size[0]
        for j in range(ny):
            y = (j if 2 * j <= ny else j - ny) * size[1]
            # The mean over both signs of a distance drops its mixed products.
            mixed, square = 0.0, 0.0
            if 2 * i == nx:
                square += (x * b[0]) ** 2
            else:
                mixed += x * b[0]
            if 2 * j == ny:
                square += (y * b[1]) ** 2
            else:
                mixed += y * b[1]
            for m in range(nz):
                z = (m if 2 * m <= nz else m - nz) * size[2]
                along = mixed * mixed + square + (z * b[2]) ** 2
                if 2 * m != nz:
                    along += 2 * mixed * z * b[2]
                r2 = x * x + y * y + z * z
                kernel[i, j, m] = scale * (3 * along - r2) / (r2 * r2 * np.sqrt(r2))
    kernel[0, 0, 0] = 0.0


def forward_field(
    chi: NDArray[np.float32], voxel_size: ArrayLike, b0_dir: ArrayLike, /, *, padding: float = 1.0
) -> NDArray[np.float32]:
    """The relative field of a susceptibility distribution, by convolution with the dipole kernel.

    Parameters
    ----------
    chi : susceptibility (x, y, z) [ppm], zero beyond the array.
    voxel_size : spacing [mm].
    b0_dir : unit vector of B0 in array axes.
    padding : zeros behind each axis, as a fraction of its length. The images of the periodic grid
        weaken with the cube of their distance; at the default of 1 they are two lengths away.

    Returns
    -------
    field [ppm] of chi's shape; zero on average over the padded grid.

    Raises
    ------
    ValueError : chi is not a finite real volume, or the geometry is unusable.

    References
    ----------
    Marques and Bowtell 2005, doi:10.1002/cmr.b.20034
    """
    size, direction = check_voxel_size(voxel_size), check_direction(b0_dir)
    if np.ndim(chi) != 3 or 0 in np.shape(chi):
        raise ValueError(f"chi has shape {np.shape(chi)}, not (x, y, z)")
    everywhere = np.broadcast_to(np.True_, np.shape(chi))
    source = check_volume("chi", chi, everywhere)
    x, y, z = (n + round(padding * n) for n in source.shape)
    shape = fourier.padded_shape((x, y, z), size, 0.0)
    spectrum = fourier.forward(fourier.pad(source, everywhere, shape))
    spectrum *= dipole_spectrum(shape, size, direction)
    return fourier.crop(fourier.inverse(spectrum, shape), everywhere)
