"""Background removal by the spherical mean value property, solved for the local field instead of deconvolved."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsm_dask.kernels import conjugate, fourier
from qsm_dask.kernels.background.smv import largest_fitting, octant, weigh
from qsm_dask.kernels.doors import Mask, Vector, check_mask, check_positive, check_volume, check_voxel_size
from qsm_dask.kernels.fourier import Shape, Volume
from qsm_dask.kernels.jit import compiled, prange, spread
from qsm_dask.kernels.solved import Solved


def resharp(
    total_field: NDArray[np.float32],
    mask: NDArray[np.bool_],
    voxel_size: ArrayLike,
    /,
    *,
    radius_mm: float = 6.0,
    weight: float = 1e-4,
    tolerance: float = 3e-3,
    max_iterations: int = 300,
) -> tuple[Volume, Mask, Solved]:
    """Local field by RESHARP: the smallest field that has the total field's deviation from its spherical means.

    Minimises |H (x - f)|^2 + weight |x|^2 by conjugate gradients, where H subtracts the mean over a
    sphere and keeps the voxels at which the sphere fits into the mask. Every such x is the transpose of H at a y of
    these voxels, so that y is solved for in place of x: two transforms an iteration in place of four, and of no
    more than the smallest box that holds the mask.

    Parameters
    ----------
    total_field : relative field (x, y, z) [ppm].
    mask : voxels where it is known.
    voxel_size : spacing [mm].
    radius_mm : of the sphere [mm], as much as the mask loses. On three head phantoms the error is 23 % at 4 mm, 21 at 5
        and 6 and 26 at 8.
    weight : of the field's own norm; a large one suppresses the slow parts of the local field. Values from 1e-4 to
        1e-3 are in use: on seven head phantoms the error is 24 to 25 % at the first.
    tolerance : residual relative to the deviation from spherical means at which it has converged. The field is
        then within about 1 % of the solution, after some 90 iterations; a third of it changes the error by 0.1 points.
    max_iterations : most iterations done, three times what heads take at 6 mm and twice at 4 mm.

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
    multipliers, solved = conjugate.solve(
        lambda volume: means.normal(volume, np.float32(weight)),
        means.right(field),
        tolerance=tolerance,
        iterations=max_iterations,
    )
    return *means.result(means.subtract(multipliers)), solved


def ismv(
    total_field: NDArray[np.float32],
    mask: NDArray[np.bool_],
    voxel_size: ArrayLike,
    /,
    *,
    radius_mm: float = 6.0,
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
    radius_mm : of the sphere [mm], as much as the mask loses. What lies less deep counts as background, the field of
        sources next to the surface too: over seven head phantoms the error is 32 % at 5 mm, as Wen 2014 has, and
        25 % (21 to 28 %) at 6 mm, which keeps 75 % of the mask in place of 80 %.
    tolerance : residual relative to the field minus its spherical mean at which it has converged. A tenth of it changes
        the error on head phantoms by 0.1 points, ten times as much by one to two, for the better.
    max_iterations : most iterations done, five times what heads take.

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
    local, solved = conjugate.solve(
        lambda volume: means.restrict(means.subtract(volume)),
        means.right(field),
        tolerance=tolerance,
        iterations=max_iterations,
    )
    return *means.result(local), solved


class Means:
    """Spherical means in the smallest box that holds a mask.

    Neither spheres at kept voxels nor, once more, those at the voxels they hold reach beyond the box to a
    kept voxel's image: it needs no margin.

    Attributes
    ----------
    kept : voxels of the box where the sphere fits into the mask.
    shape : padded grid of the box.
    """

    def __init__(self, mask: Mask, voxel_size: Vector, radius_mm: float) -> None:
        """Find where the sphere fits.

        Raises
        ------
        ValueError : nowhere, or it is smaller than a voxel.
        """
        if radius_mm < max(voxel_size):
            raise ValueError(f"radius_mm is {radius_mm:g}, below a voxel's edge of {max(voxel_size):g} mm")
        self._box, self._whole = fourier.smallest_box(mask), mask.shape
        self._mask = mask[self._box]
        self.kept = largest_fitting(self._mask, voxel_size, [radius_mm])[1]
        self.shape: Shape = fourier.padded_shape(self.kept.shape, voxel_size, 0.0)
        self._once = octant(self.shape, voxel_size, radius_mm)
        self._twice = np.square(self._once)

    def subtract(self, volume: Volume) -> Volume:
        """A padded volume minus its spherical means."""
        spectrum = fourier.forward(volume)
        weigh(spectrum, spectrum, self._once)
        return fourier.inverse(spectrum, self.shape)

    def normal(self, volume: Volume, weight: np.float32) -> Volume:
        """What is zero where the sphere does not fit, twice minus its means and restricted, plus so much of itself."""
        spectrum = fourier.forward(volume)
        weigh(spectrum, spectrum, self._twice)
        image = fourier.inverse(spectrum, self.shape)
        _restrict(image, self.kept, volume, weight)
        return image

    def restrict(self, volume: Volume) -> Volume:
        """The padded volume where the sphere fits, in place; zero elsewhere."""
        _restrict(volume, self.kept, volume, np.float32(0.0))
        return volume

    def right(self, field: NDArray[np.float32]) -> Volume:
        """A field of the whole image minus its spherical means, where the sphere fits."""
        return self.restrict(self.subtract(fourier.pad(field[self._box], self._mask, self.shape)))

    def result(self, local: Volume) -> tuple[Volume, Mask]:
        """A padded local field and the kept voxels, in the whole image."""
        kept = np.zeros(self._whole, np.bool_)
        kept[self._box] = self.kept
        return fourier.uncrop(local, self._box, self._whole, self.kept), kept


@spread
def _restrict(image: Volume, kept: Mask, volume: Volume, weight: np.float32) -> None:
    """The image where a mask in its low corner is, zero elsewhere, plus so much of a volume that is zero elsewhere."""
    for i in prange(image.shape[0]):
        if i < kept.shape[0]:
            _restrict_plane(image[i], kept[i], volume[i], weight)
        else:
            image[i] = np.float32(0.0)


@compiled
def _restrict_plane(image: Volume, kept: Mask, volume: Volume, weight: np.float32) -> None:
    ny, nz = kept.shape
    image[ny:] = np.float32(0.0)
    for j in range(ny):
        for m in range(nz):
            image[j, m] = image[j, m] + weight * volume[j, m] if kept[j, m] else np.float32(0.0)
        image[j, nz:] = np.float32(0.0)


def _checked(
    total_field: NDArray[np.float32], mask: NDArray[np.bool_], voxel_size: ArrayLike
) -> tuple[NDArray[np.float32], Mask, Vector]:
    inside, size = check_mask(mask), check_voxel_size(voxel_size)
    return check_volume("total_field", total_field, inside), inside, size
