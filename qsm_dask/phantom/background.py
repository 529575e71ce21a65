"""The field of distant sources: convolution with the dipole kernel sampled in image space."""

import numpy as np
from numpy.typing import NDArray

from qsm_dask.kernels import fourier
from qsm_dask.kernels.jit import compiled
from qsm_dask.phantom.shapes import Volume


@compiled
def _dipole(kernel: Volume, voxel_size: NDArray[np.float64], b: NDArray[np.float64]) -> None:
    nx, ny, nz = kernel.shape
    weight = voxel_size[0] * voxel_size[1] * voxel_size[2] / (4.0 * np.pi)
    for i in range(nx):
        x = (i if 2 * i < nx else i - nx) * voxel_size[0]
        for j in range(ny):
            y = (j if 2 * j < ny else j - ny) * voxel_size[1]
            for m in range(nz):
                z = (m if 2 * m < nz else m - nz) * voxel_size[2]
                square = x * x + y * y + z * z
                along = x * b[0] + y * b[1] + z * b[2]
                if square > 0.0:
                    kernel[i, j, m] = weight * (3.0 * along * along - square) / (square * square * np.sqrt(square))
                else:
                    kernel[i, j, m] = 0.0


def background_field(chi: Volume, voxel_size: tuple[float, float, float], b0_dir: NDArray[np.float64]) -> Volume:
    """The relative field of a susceptibility distribution where it has no sources itself.

    Every voxel is a dipole at its centre. The kernel sampled in k-space, as an inversion uses it, rings at the
    finest waves of the grid when B0 is oblique: 9 ppm at a sinus then make several ppb of field deep in the brain
    that no background removal can take for harmonic. This one is harmonic everywhere between the sources.

    Parameters
    ----------
    chi : susceptibility (x, y, z), zero beyond the array [ppm].
    voxel_size : spacing [mm].
    b0_dir : unit vector of B0 in array axes.

    Returns
    -------
    field of chi's shape [ppm].

    References
    ----------
    Marques and Bowtell 2005, doi:10.1002/cmr.b.20034
    """
    x, y, z = (fourier.fast_length(2 * n - 1) for n in chi.shape)
    shape = (x, y, z)

    def spectrum() -> NDArray[np.float32]:
        kernel = np.empty(shape, np.float32)
        _dipole(kernel, np.asarray(voxel_size), np.asarray(b0_dir, dtype=np.float64))
        return np.ascontiguousarray(fourier.forward(kernel).real)

    everywhere = np.broadcast_to(np.True_, chi.shape)
    product = fourier.forward(fourier.pad(chi, everywhere, shape))
    product *= fourier.spectra.get(("dipole in image space", shape, voxel_size, tuple(b0_dir)), spectrum)
    return fourier.crop(fourier.inverse(product, shape), everywhere)
