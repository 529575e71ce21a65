"""Background removal by a fit of inner sources and background together: both explain the field on the surface."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsm_dask.kernels import conjugate, fourier
from qsm_dask.kernels.background.lbv import BoundaryValues, enclosed
from qsm_dask.kernels.background.trends import without_trend
from qsm_dask.kernels.dipole import dipole_spectrum
from qsm_dask.kernels.doors import (
    Mask,
    Vector,
    check_direction,
    check_mask,
    check_positive,
    check_volume,
    check_voxel_size,
)
from qsm_dask.kernels.fourier import Volume
from qsm_dask.kernels.solved import Solved

_FIT_TOLERANCE, _FIELD_TOLERANCE = 1e-2, 1e-4
"""Of boundary values: in the fit, whose own tolerance this is, and of the field that is returned."""


def tfi(
    total_field: NDArray[np.float32],
    mask: NDArray[np.bool_],
    voxel_size: ArrayLike,
    b0_dir: ArrayLike,
    /,
    *,
    weight: float = 1e-3,
    tolerance: float = 1e-2,
    max_iterations: int = 40,
    detrend: bool = True,
) -> tuple[Volume, Mask, Solved]:
    """Local field by total field inversion: sources in the mask and a harmonic background explain the field together.

    Minimises |B (f - d * x)|^2 + weight |x|^2 over sources x inside the mask, where B takes away the harmonic
    function that equals its argument on the surface; the background is what it takes from f - d * x. Boundary
    value methods (LBV) put B f in place of the local field, and so take the field of inner sources on the surface
    for background; here only what sources inside cannot explain counts as such. Liu 2017 fits
    outer sources instead of a harmonic function, and sparse edges instead of a small norm; on head
    phantoms sparse edges are no better for the local field.

    Inner sources that make a harmonic field inside the mask, such as a susceptibility that grows with the square of
    the radius, cannot be told from background without further knowledge: with a small norm alone they make most of
    the error. `trends` takes such a trend off by what tissue is like. On five head phantoms of 2 mm the error is 14 to
    17 % of the local field, without that step 16 to 19 %, of PDF 21 to 27 %. Where the local field is small on the
    surface, as in cylinders of the package qsm-forward, LBV is the more accurate.

    Takes four transforms and two multigrid solutions an iteration.

    Parameters
    ----------
    total_field : relative field (x, y, z) [ppm].
    mask : voxels where it is known.
    voxel_size : spacing [mm].
    b0_dir : unit vector of B0 in array axes.
    weight : of the sources' norm: the square of the field's noise over the susceptibility's spread. From 1e-4 to
        1e-2 the error on head phantoms varies by less than one point.
    tolerance : residual of the normal equations, relative to their right side, at which it has converged;
        20 to 36 iterations do, and twice as many change the error on head phantoms by 0.1 points.
    max_iterations : most iterations done.
    detrend : whether the trend of the sources that their field cannot show is taken off (see above). It presumes
        tissues with contrast between them; of sources that vary smoothly it takes what is theirs.

    Returns
    -------
    local_field : (x, y, z) [ppm], zero outside the mask.
    mask : where it is known, the voxels whose neighbours along faces and edges are in the given mask.
    Solved : how the iteration ended.

    Raises
    ------
    ValueError : inputs do not fit one another, are not finite inside the mask, or the mask is too thin.

    References
    ----------
    Liu 2017, doi:10.1002/mrm.26331; Zhou 2014, doi:10.1002/nbm.3064
    """
    inside, size, direction = check_mask(mask), check_voxel_size(voxel_size), check_direction(b0_dir)
    field = check_volume("total_field", total_field, inside)
    check_positive(weight=weight, tolerance=tolerance, max_iterations=max_iterations)
    kept = enclosed(inside)
    if not kept.any():
        raise ValueError("no voxel of the mask lies below its surface: it is too thin")
    box = fourier.smallest_box(inside)
    known, within, below = (np.pad(part[box], 1) for part in (np.where(inside, field, 0), inside, kept))
    known = known.astype(np.float32)
    fit = SourceFit(within, below, size, direction)

    def normal(sources: Volume) -> Volume:
        image = fit.transpose(fit.residue(fit.field(sources)))
        image += np.float32(weight) * sources
        return image

    right = fit.transpose(fit.residue(known))
    sources, solved = conjugate.solve(normal, right, tolerance=tolerance, iterations=max_iterations)
    del right
    if detrend:
        sources = without_trend(sources, within, size, direction)
    local = fit.field(sources)
    del sources
    known -= local
    np.multiply(local, below, out=local)
    local += fit.boundary.remove(known, tolerance=_FIELD_TOLERANCE)[0]
    return fourier.uncrop(local[1:-1, 1:-1, 1:-1], box, inside.shape), kept, solved


class SourceFit:
    """Fields of sources inside a mask, what a boundary value method leaves of fields, and their transpose.

    Attributes
    ----------
    boundary : takes the harmonic part away.
    """

    def __init__(self, mask: Mask, kept: Mask, voxel_size: Vector, b0_dir: Vector) -> None:
        """Take the geometry; no voxel of the mask lies on a face of the array."""
        self.boundary = BoundaryValues(mask, kept, voxel_size)
        self._mask = mask
        self._shape = fourier.padded_shape(mask.shape, voxel_size, fourier.MARGIN_MM)
        self._spectrum = dipole_spectrum(self._shape, voxel_size, b0_dir)

    def field(self, sources: Volume) -> Volume:
        """The field inside the mask of the sources inside it, an operator that is its own transpose."""
        spectrum = fourier.forward(fourier.pad(sources, self._mask, self._shape))
        spectrum *= self._spectrum
        return fourier.crop(fourier.inverse(spectrum, self._shape), self._mask)

    def residue(self, field: Volume) -> Volume:
        """What is left of a field without its harmonic part."""
        return self.boundary.remove(field, tolerance=_FIT_TOLERANCE)[0]

    def transpose(self, residue: Volume) -> Volume:
        """Project a residue, which is overwritten, on the sources."""
        return self.field(self.boundary.transpose(residue, tolerance=_FIT_TOLERANCE))
