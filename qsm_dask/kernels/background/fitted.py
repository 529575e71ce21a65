"""Background removal by the spherical mean value property, solved for the local field instead of deconvolved."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsm_dask.kernels import conjugate, fourier
from qsm_dask.kernels.background.smv import apply_sphere, largest_fitting
from qsm_dask.kernels.doors import Mask, Vector, check_mask, check_positive, check_volume, check_voxel_size
from qsm_dask.kernels.fourier import Shape, Volume
from qsm_dask.kernels.solved import Solved


def resharp(
    total_field: NDArray[np.float32],
    mask: NDArray[np.bool_],
    voxel_size: ArrayLike,
    /,
    *,
    radius_mm: float = 6.0,
    weight: float = 1e-4,
    tolerance: float = 1e-3,
    max_iterations: int = 100,
) -> tuple[Volume, Mask, Solved]:
    """Local field by RESHARP: the smallest field that has the total field's deviation from its spherical means.

    Minimises |H (x - f)|^2 + weight |x|^2 by conjugate gradients, where H subtracts the mean over a
    sphere and keeps the voxels at which the sphere fits into the mask. Takes four transforms an iteration.

    Parameters
    ----------
    total_field : relative field (x, y, z) [ppm].
    mask : voxels where it is known.
    voxel_size : spacing [mm].
    radius_mm : of the sphere [mm], as much as the mask loses.
    weight : of the field's own norm; a large one suppresses the slow parts of the local field. Values from 1e-4 to
        1e-3 are in use: on head phantoms the error is 26 % at the first and 32 % at the second.
    tolerance : residual of the normal equations, relative to their right side, at which it has converged.
    max_iterations : most iterations done.

    Returns
    -------
    local_field : (x, y, z) [ppm], zero outside the mask.
    mask : where it is known, the given mask eroded by the sphere.
    Solved : how the iteration ended.

    Raises
    ------
    ValueError : inputs do not fit one another, are not finite inside the mask, or the mask is
        too thin for the sphere.

    References
    ----------
    Sun and Wilman 2014, doi:10.1002/mrm.24765
    """
    field, inside, size = _checked(total_field, mask, voxel_size)
    check_positive(radius_mm=radius_mm, weight=weight, tolerance=tolerance, max_iterations=max_iterations)
    means = Means(inside, size, radius_mm)

    def normal(volume: Volume) -> Volume:
        image = means.subtract(means.keep(means.subtract(volume)))
        image += np.float32(weight) * volume
        return image

    right = means.subtract(means.keep(means.subtract(fourier.pad(field, inside, means.shape))))
    local, solved = conjugate.solve(normal, right, tolerance=tolerance, iterations=max_iterations)
    return fourier.crop(local, means.kept), means.kept, solved


def ismv(
    total_field: NDArray[np.float32],
    mask: NDArray[np.bool_],
    voxel_size: ArrayLike,
    /,
    *,
    radius_mm: float = 5.0,
    tolerance: float = 1e-3,
    max_iterations: int = 100,
) -> tuple[Volume, Mask, Solved]:
    """Local field by iterative SMV: the background equals its spherical mean wherever the sphere fits.

    Where it does not, the background is the total field. Wen 2014 replaces the field by its spherical mean again and
    again until it changes no more. That fixed point solves a symmetric, positive definite system, which conjugate
    gradients meet in fewer steps, at two transforms each.

    Parameters
    ----------
    total_field : relative field (x, y, z) [ppm].
    mask : voxels where it is known.
    voxel_size : spacing [mm].
    radius_mm : of the sphere [mm], as much as the mask loses; 5 mm is usual.
    tolerance : residual relative to the field minus its spherical mean at which it has converged.
    max_iterations : most iterations done.

    Returns
    -------
    local_field : (x, y, z) [ppm], zero outside the mask.
    mask : where it is known, the given mask eroded by the sphere.
    Solved : how the iteration ended.

    Raises
    ------
    ValueError : inputs do not fit one another, are not finite inside the mask, or the mask is
        too thin for the sphere.

    References
    ----------
    Wen 2014, doi:10.1002/mrm.24998
    """
    field, inside, size = _checked(total_field, mask, voxel_size)
    check_positive(radius_mm=radius_mm, tolerance=tolerance, max_iterations=max_iterations)
    means = Means(inside, size, radius_mm)
    right = means.keep(means.subtract(fourier.pad(field, inside, means.shape)))
    local, solved = conjugate.solve(
        lambda volume: means.keep(means.subtract(volume)), right, tolerance=tolerance, iterations=max_iterations
    )
    return fourier.crop(local, means.kept), means.kept, solved


class Means:
    """Spherical means on the padded grid of a mask.

    Attributes
    ----------
    kept : where the sphere fits into the mask.
    shape : padded grid.
    """

    def __init__(self, mask: Mask, voxel_size: Vector, radius_mm: float) -> None:
        """Find where the sphere fits.

        Raises
        ------
        ValueError : nowhere, or it is smaller than a voxel.
        """
        if radius_mm < max(voxel_size):
            raise ValueError(f"radius_mm is {radius_mm:g}, below a voxel's edge of {max(voxel_size):g} mm")
        self.kept = largest_fitting(mask, voxel_size, [radius_mm])[1]
        self.shape: Shape = fourier.padded_shape(mask.shape, voxel_size, max(fourier.MARGIN_MM, radius_mm))
        self._voxel_size, self._radius_mm = voxel_size, radius_mm

    def subtract(self, volume: Volume) -> Volume:
        """A padded volume minus its spherical means."""
        spectrum = fourier.forward(volume)
        apply_sphere(spectrum, spectrum, self.shape, self._voxel_size, self._radius_mm, 0.0)
        return fourier.inverse(spectrum, self.shape)

    def keep(self, volume: Volume) -> Volume:
        """The padded volume where the sphere fits, zero elsewhere."""
        x, y, z = self.kept.shape
        return fourier.pad(volume[:x, :y, :z], self.kept, self.shape)


def _checked(
    total_field: NDArray[np.float32], mask: NDArray[np.bool_], voxel_size: ArrayLike
) -> tuple[NDArray[np.float32], Mask, Vector]:
    inside, size = check_mask(mask), check_voxel_size(voxel_size)
    return check_volume("total_field", total_field, inside), inside, size
