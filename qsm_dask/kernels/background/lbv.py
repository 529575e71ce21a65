"""Background removal by a boundary value problem: without sources inside, the surface determines the field."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from qsm_dask.kernels import conjugate
from qsm_dask.kernels.background.slow import remove_slow
from qsm_dask.kernels.doors import Mask, Vector, check_mask, check_positive, check_volume, check_voxel_size
from qsm_dask.kernels.fourier import Volume
from qsm_dask.kernels.multigrid import Poisson
from qsm_dask.kernels.solved import Solved

_LIMIT = 3.0 * 1.4826
"""Of the local field at the second layer, in medians of its absolute values: three standard deviations."""


def lbv(
    total_field: NDArray[np.float32],
    mask: NDArray[np.bool_],
    voxel_size: ArrayLike,
    /,
    *,
    peel: int = 0,
    refine: bool = True,
    tolerance: float = 1e-4,
    max_iterations: int = 100,
) -> tuple[Volume, Mask, Solved]:
    """Local field by LBV: the background is harmonic inside the mask and equals the field on its surface.

    What is left, the local field, has the Laplacian of the field and is zero on the surface. It is solved for
    itself, so that the tolerance is relative to it and not to a background twenty times as strong, by
    conjugate gradients with a multigrid cycle as preconditioner: six to nine of them do, whatever the matrix. There is
    no Fourier transform and nothing is padded.

    The field of sources next to the surface is taken for background there, and what it leaves inside is wrong
    by its harmonic continuation: on three calcified head phantoms of 2 mm 43 to 50 % of the local field, of which
    solving the equation on voxels makes 0.5 %, noise 8 %, and harmonic polynomials of the second degree
    most: the cortex is a shell, whose inner field goes with the square of the cosine between its normal and B0.
    `refine` does two things about it. First the background is given, at the second layer, the mean of two readings:
    what the surface says there and the field itself. It is harmonic below that layer, and noise and the fields
    of single sources count half. At the second layer itself the local field is half of what it was. Where the two
    differ by more than three standard deviations a source is near, and more than that does not count. Then harmonic
    polynomials of the second degree are fitted to what is left below that layer and taken away everywhere, as SEPIA
    offers after any removal. The fit is of least logarithms of deviations, which strong sources deep inside hardly
    move. It leaves 16 to 18 % (polynomials alone 18 to 21 %). In cylinders of the package
    qsm-forward it leaves 11 and 15 %, where the polynomials alone leave 10 and 14 %.

    What then remains is the harmonic part of the local field itself. Nothing that knows only that the background is
    harmonic can tell it apart: least squares over all harmonic functions leaves 20 to 23 % on the same heads. `tfi`
    knows of dipoles and does better there, at a greater cost.

    Parameters
    ----------
    total_field : relative field (x, y, z) [ppm].
    mask : voxels where it is known.
    voxel_size : spacing [mm].
    peel : layers of voxels taken off the mask before its surface is read; for masks whose rim lies partly outside.
        None keeps 88 % of a head at 2 mm, one 84 to 85 %.
    refine : whether two layers are averaged, and harmonic polynomials of the second degree fitted to what is left and
        removed, in each component with at least 1000 voxels below them. Without it the method is that of Zhou 2014.
    tolerance : relative energy norm of the residual at which it has converged; a
        hundred times tighter changes the error on head phantoms by less than 0.1 %.
    max_iterations : most iterations done, several times what heads take: up to 16 for both solutions together.

    Returns
    -------
    local_field : (x, y, z) [ppm], zero outside the mask.
    mask : where it is known: the given mask without `peel` layers and the surface itself, one more; without
        a peel the surface has also the voxels with a neighbour along an edge outside the mask.
    Solved : how the iteration ended; with `refine` the sum of two, and the larger residual.

    Raises
    ------
    ValueError : inputs do not fit one another, are not finite inside the mask, or the mask is too thin.

    References
    ----------
    Zhou 2014, doi:10.1002/nbm.3064; SEPIA's removal of residual fields, https://sepia-documentation.readthedocs.io
    """
    inside, size = check_mask(mask), check_voxel_size(voxel_size)
    field = check_volume("total_field", total_field, inside)
    check_positive(tolerance=tolerance, max_iterations=max_iterations)
    if peel < 0:
        raise ValueError(f"peel is {peel}: it counts voxels, from 0")
    # Each unknown needs its neighbours along faces and edges. Two layers along faces hold them, so
    # that the first peel costs less than a layer.
    unknown = enclosed(inside) & ndimage.binary_erosion(inside, iterations=peel + 1)
    if not unknown.any():
        raise ValueError(f"no voxel of the mask lies below its surface after a peel of {peel}: it is too thin")
    box = ndimage.find_objects(unknown.astype(np.int8))[0]
    box = tuple(slice(int(s.start) - 1, int(s.stop) + 1) for s in box)
    boundary = BoundaryValues(inside[box], unknown[box], size)
    known = np.zeros(unknown[box].shape, np.float32)
    np.copyto(known, field[box], where=inside[box], casting="unsafe")
    solution, solved = boundary.remove(known, tolerance=tolerance, max_iterations=max_iterations)
    del boundary, known
    if refine:
        below = unknown[box] & ndimage.binary_erosion(inside[box], iterations=peel + 2)
        if below.any():
            solved = _average_layers(solution, unknown[box], below, size, solved, tolerance, max_iterations)
        remove_slow(solution, unknown[box], size, read=below, logarithmic=True)
    local = np.zeros(inside.shape, np.float32)
    local[box] = solution
    return local, unknown, solved


def _average_layers(
    local: Volume, kept: Mask, below: Mask, size: Vector, first: Solved, tolerance: float, max_iterations: int
) -> Solved:
    """Move a local field, in place, to the background that has the mean values of two layers at the second one.

    At the second layer the background from the first is one reading and the field another; they differ by
    the local field found there. Half of it is background then, and its continuation below. What is out of the
    ordinary counts as much as the limit only: there a source is near, whose field it is.
    """
    layer = kept & ~below
    half = _half(local, kept, layer)
    del layer
    local -= half
    rest, second = BoundaryValues(kept, below, size).remove(half, tolerance=tolerance, max_iterations=max_iterations)
    local += rest
    return Solved(
        first.iterations + second.iterations,
        max(first.residual, second.residual),
        first.converged and second.converged,
    )


def _half(local: Volume, kept: Mask, layer: Mask) -> Volume:
    """Half of a local field at a layer, within the limit of each component for itself; zero elsewhere."""
    labels, count = ndimage.label(kept, ndimage.generate_binary_structure(3, 2))
    mine, values = labels[layer], local[layer]
    del labels
    medians = ndimage.median(np.abs(values), mine, np.arange(count + 1))
    limit = (_LIMIT * medians).astype(np.float32)[mine]
    half = np.zeros_like(local)
    half[layer] = np.clip(values, -limit, limit) / np.float32(2.0)
    return half


def enclosed(mask: Mask) -> Mask:
    """The voxels of a mask whose neighbours along faces and edges are in it too."""
    return ndimage.binary_erosion(mask, ndimage.generate_binary_structure(3, 2))


class BoundaryValues:
    """What is left of a field without the harmonic function that equals it on the surface of a mask."""

    def __init__(self, mask: Mask, unknown: Mask, voxel_size: Vector) -> None:
        """Prepare the solver.

        Parameters
        ----------
        mask : voxels where fields are known.
        unknown : those whose neighbours along faces and edges are in the mask; none lies on a face of the array.
        voxel_size : spacing [mm].
        """
        self._mask = mask
        self._poisson = Poisson(np.ascontiguousarray(unknown), voxel_size)

    def remove(self, field: Volume, *, tolerance: float, max_iterations: int = 100) -> tuple[Volume, Solved]:
        """Take its harmonic part from a field that is zero outside the mask; the result is zero but at the unknowns."""
        return self._solve(self._poisson.apply(field).copy(), tolerance, max_iterations)

    def transpose(self, field: Volume, *, tolerance: float, max_iterations: int = 100) -> Volume:
        """The transpose of `remove`, for fields that are zero but at the unknowns, which it overwrites."""
        sources, _ = self._solve(field, tolerance, max_iterations)
        return self._poisson.laplacian(sources, self._mask)

    def _solve(self, right: Volume, tolerance: float, max_iterations: int) -> tuple[Volume, Solved]:
        return conjugate.solve(
            self._poisson.apply,
            right,
            tolerance=tolerance,
            iterations=max_iterations,
            precondition=self._poisson.precondition,
        )
