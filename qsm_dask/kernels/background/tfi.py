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
from qsm_dask.kernels.inversion.admm import symbols
from qsm_dask.kernels.series import echoes
from qsm_dask.kernels.slopes import Edges, curvature, find_edges, per_mm2, reweigh
from qsm_dask.kernels.solved import Solved

_FIT_TOLERANCE, _FIELD_TOLERANCE = 1e-2, 1e-4
"""Of boundary values: in the fit, whose own tolerance this is, and of the field that is returned."""

_RIDGE = 1e-5
"""Weight of the sources' norm where their slopes have one: settles what neither field nor slopes tell."""

_FLAT = 1e-6
"""Added to the squared slopes [ppm^2/mm^2] under the root, so that the absolute value can be differentiated."""

_FLOOR, _STEEP = 1e-2, 0.3
"""Of the preconditioner: least value, above what the cone of the kernel has, and share of the slopes' mean weight,
as most of that mean stems from the few places that are nearly flat."""


def tfi(
    total_field: NDArray[np.float32],
    mask: NDArray[np.bool_],
    voxel_size: ArrayLike,
    b0_dir: ArrayLike,
    magnitude: NDArray[np.float32] | None = None,
    /,
    *,
    weight: float = 1e-3,
    edge_weight: float = 1e-4,
    edge_fraction: float = 0.3,
    edge_steps: int = 2,
    tolerance: float = 0.1,
    max_iterations: int = 40,
    detrend: bool = True,
) -> tuple[Volume, Mask, Solved]:
    """Local field by total field inversion: sources in the mask and a harmonic background explain the field together.

    Minimises |B (f - d * x)|^2 + edge_weight |M grad x|_1 over sources x inside the mask, where B takes away the
    harmonic function that equals its argument on the surface; the background is what it takes from f - d * x. M leaves
    out the surface of the mask and the strongest edges of the magnitude, as MEDI does. Boundary value methods (LBV) put
    B f in place of the local field, and so take the field of inner sources on the surface for background; here only
    what sources inside cannot explain counts as such. Liu 2017 fits outer sources instead of a harmonic function.
    The start has a small norm, weight |x|^2, in place of slopes; each step weighs squared slopes by those before it.

    Inner sources that make a harmonic field inside the mask, such as a susceptibility that grows with the square of
    the radius, cannot be told from background without further knowledge. `trends` takes such a trend off by what tissue
    is like. On seven head phantoms of 2 mm and SNR 100 the error is 11 to 15 % of the local field, of PDF 21 to 27 %;
    without a magnitude it is 2 points more. At SNR 40 it is 23 %. On cylinders of the package qsm-forward it is 6 to
    7 %. Phantoms share every edge of the magnitude with susceptibility, tissue does not: expect less of a gain.

    Takes six transforms and two multigrid solutions an iteration, of which there are some 40.

    Parameters
    ----------
    total_field : relative field (x, y, z) [ppm].
    mask : voxels where it is known.
    voxel_size : spacing [mm].
    b0_dir : unit vector of B0 in array axes.
    magnitude : of each echo (echo, x, y, z), in whose edges susceptibility may change; without it only the mask's
        surface is one.
    weight : of the sources' norm at the start: the square of the field's noise over the susceptibility's spread. It
        settles the start alone: a third and three times of it change the error by less than 0.1 points.
    edge_weight : of the slopes away from edges [ppm mm]. On two head phantoms a third of it gives up to 0.4 points more
        of error, three times of it 0.6.
    edge_fraction : share of the slopes inside the mask that count as edges; 0.3 as MEDI. On the same heads, whose edges
        all are susceptibility's, the error is a point higher at 0.2 and 0.6 to 0.8 points lower at 0.4.
    edge_steps : how often slopes are weighed anew; 0 leaves the start. A third step changes the error on head phantoms
        by less than 0.2 points.
    tolerance : error of each step's equations, in their energy norm and relative to that at its start, at which it has
        converged; with 0.2 half the iterations do, for 0.5 to 1 point more of error.
    max_iterations : most iterations of each step; heads take 40 to 45 in all three.
    detrend : whether the trend of the sources that their field cannot show is taken off (see above). It presumes
        tissues with contrast between them; of sources that vary smoothly it takes what is theirs.

    Returns
    -------
    local_field : (x, y, z) [ppm], zero outside the mask.
    mask : where it is known, the voxels whose neighbours along faces and edges are in the given mask.
    Solved : iterations of all steps, residual of the last, whether each converged.

    Raises
    ------
    ValueError : inputs do not fit one another, are not finite inside the mask, or the mask is too thin.

    References
    ----------
    Liu 2017, doi:10.1002/mrm.26331; Zhou 2014, doi:10.1002/nbm.3064
    """
    inside, size, direction = check_mask(mask), check_voxel_size(voxel_size), check_direction(b0_dir)
    field = check_volume("total_field", total_field, inside)
    check_positive(weight=weight, edge_weight=edge_weight, tolerance=tolerance, max_iterations=max_iterations)
    if not (0 <= edge_fraction < 1 and edge_steps >= 0):
        raise ValueError(
            f"edge_fraction is {edge_fraction} and edge_steps {edge_steps}: from 0 to below 1, none below 0"
        )
    kept = enclosed(inside)
    if not kept.any():
        raise ValueError("no voxel of the mask lies below its surface: it is too thin")
    box = fourier.smallest_box(inside)
    known, within, below = (np.pad(part[box], 1) for part in (np.where(inside, field, 0), inside, kept))
    known = known.astype(np.float32)
    fit = SourceFit(within, below, size, direction)
    image = None
    if magnitude is not None:
        image = np.linalg.norm(echoes("magnitude", magnitude, None, inside)[(slice(None), *box)], axis=0)
        image = np.pad(image, 1)
    slopes = Slopes(find_edges(image, within, within.shape, size, edge_fraction), within, size, edge_weight)
    del image
    sources, solved = _fitted(fit, known, slopes, weight, edge_steps, tolerance, max_iterations)
    del slopes
    if detrend:
        sources = without_trend(sources, within, size, direction)
    local = fit.field(sources)
    del sources
    known -= local
    np.multiply(local, below, out=local)
    local += fit.boundary.remove(known, tolerance=_FIELD_TOLERANCE)[0]
    return fourier.uncrop(local[1:-1, 1:-1, 1:-1], box, inside.shape), kept, solved


def _fitted(
    fit: "SourceFit",
    known: Volume,
    slopes: "Slopes",
    weight: float,
    edge_steps: int,
    tolerance: float,
    max_iterations: int,
) -> tuple[Volume, Solved]:
    """Sources of the least norm, then, step by step, of the least slopes, each weighed by what it was before."""
    right = fit.transpose(fit.residue(known))
    sources, solved = conjugate.solve(
        fit.normal(weight),
        right.copy(),
        tolerance=tolerance,
        iterations=max_iterations,
        precondition=fit.preconditioner(0.0),
    )
    done, converged = solved.iterations, solved.converged
    for _ in range(edge_steps):
        steepness = slopes.reweigh(sources)
        normal = fit.normal(_RIDGE, slopes)
        residual = normal(sources)
        np.subtract(right, residual, out=residual)
        change, solved = conjugate.solve(
            normal,
            residual,
            tolerance=tolerance,
            iterations=max_iterations,
            precondition=fit.preconditioner(steepness),
        )
        sources += change
        done, converged = done + solved.iterations, converged and solved.converged
    return sources, Solved(done, solved.residual, converged)


class Slopes:
    """The sum of absolute slopes away from edges, as one of squares weighted by the slopes of a given map."""

    def __init__(self, edges: Edges, mask: Mask, voxel_size: Vector, weight: float) -> None:
        """Take the edges, the mask they are of, the spacing [mm] and the weight of the sum [ppm mm]."""
        self._edges, self._mask, self._weight = edges, mask, np.float32(weight)
        self._per_mm2 = per_mm2(voxel_size)
        self._weights = np.zeros((3, *edges.shape), np.float32)

    def reweigh(self, sources: Volume) -> float:
        """Take the slopes of a map; returns the mean weight of its squared slopes."""
        mean = reweigh(sources, self._edges, self._mask, self._per_mm2, np.float32(_FLAT), self._weights)
        self._weights *= self._weight
        return mean * float(self._weight)

    def curvature(self, sources: Volume) -> Volume:
        """Half the gradient of the sum of squares."""
        result = np.empty_like(sources)
        curvature(sources, self._weights, self._per_mm2, result)
        return result


class SourceFit:
    """Fields of sources inside a mask, what a boundary value method leaves of fields, and their transpose.

    Attributes
    ----------
    boundary : takes the harmonic part away.
    """

    def __init__(self, mask: Mask, kept: Mask, voxel_size: Vector, b0_dir: Vector) -> None:
        """Take the geometry; no voxel of the mask lies on a face of the array."""
        self.boundary = BoundaryValues(mask, kept, voxel_size)
        self._mask, self._size = mask, voxel_size
        self._shape = fourier.padded_shape(mask.shape, voxel_size, fourier.MARGIN_MM)
        self._spectrum = dipole_spectrum(self._shape, voxel_size, b0_dir)

    def field(self, sources: Volume) -> Volume:
        """The field inside the mask of the sources inside it, an operator that is its own transpose."""
        return self._filtered(sources, self._spectrum)

    def normal(self, weight: float, slopes: Slopes | None = None) -> conjugate.Operator:
        """The operator of the normal equations, with weights of the sources' norm and of their slopes."""

        def apply(sources: Volume) -> Volume:
            image = self.transpose(self.residue(self.field(sources)))
            image += np.float32(weight) * sources
            if slopes is not None:
                image += slopes.curvature(sources)
            return image

        return apply

    def preconditioner(self, steepness: float) -> conjugate.Operator:
        """Nearly the inverse of `normal`, as if there were no surface and squared slopes had one weight."""
        lx, ly, lz = symbols(self._shape, self._size)
        inverse = lx[:, None, None] + ly[:, None] + lz
        inverse *= np.float32(_STEEP * steepness)
        inverse += self._spectrum**2
        inverse += np.float32(_FLOOR)
        np.divide(np.float32(1), inverse, out=inverse)
        return lambda volume: self._filtered(volume, inverse)

    def residue(self, field: Volume) -> Volume:
        """What is left of a field without its harmonic part."""
        return self.boundary.remove(field, tolerance=_FIT_TOLERANCE)[0]

    def transpose(self, residue: Volume) -> Volume:
        """Project a residue, which is overwritten, on the sources."""
        return self.field(self.boundary.transpose(residue, tolerance=_FIT_TOLERANCE))

    def _filtered(self, volume: Volume, symbol: Volume) -> Volume:
        spectrum = fourier.forward(fourier.pad(volume, self._mask, self._shape))
        fourier.weigh(spectrum, symbol)
        return fourier.crop(fourier.inverse(spectrum, self._shape), self._mask)
