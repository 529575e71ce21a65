"""Background removal and unwrapping in one: wraps and harmonic fields leave no trace in the Laplacian of phase."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from qsm_dask.kernels import conjugate, series
from qsm_dask.kernels.background.lbv import enclosed
from qsm_dask.kernels.doors import Mask, Vector, check_positive, check_voxel_size
from qsm_dask.kernels.fourier import Volume
from qsm_dask.kernels.multigrid import Poisson
from qsm_dask.kernels.phaselaplacian import phase_laplacian
from qsm_dask.kernels.solved import Solved
from qsm_dask.units import radians_per_ppm


def harperella(
    phase: NDArray[np.float32],
    mask: NDArray[np.bool_],
    te: ArrayLike,
    b0: ArrayLike,
    voxel_size: ArrayLike,
    magnitude: NDArray[np.float32] | None = None,
    /,
    *,
    tolerance: float = 1e-2,
    max_iterations: int = 100,
) -> tuple[Volume, Mask, Solved]:
    """Local field straight from wrapped phase by iHARPERELLA: the smallest field with the Laplacian of the phase.

    The Laplacian comes from wrapped differences of neighbours (see `phaselaplacian`); that of the background is zero in
    the mask. Of all fields with that Laplacian, the one of least squares in the mask is the total field without
    its projection onto harmonic functions. HARPERELLA (Li 2014) finds it by way of the Laplacian outside the mask,
    first as that which has a spherical mean of zero, in its improved form (iHARPERELLA) as that which makes the
    phase inside smallest; here the latter is solved inside the mask alone, to convergence. It takes two multigrid
    cycles an iteration and no Fourier transform. Without radius or threshold there is nothing to tune.

    What it is bad at: the harmonic part of the local field itself is lost, a fifth of it on head phantoms
    (20 to 23 % NRMSE on the mask less 6 mm), and most of it at the rim: on voxels of 2 mm the error is 30 % where the
    mask is kept. Where the first echo differs by more than half a turn between neighbours (next to air, in large
    voxels, at a late first echo) the Laplacian is wrong, and the error spreads; `unwrap.romeo` and
    `background.pdf` have no such limit. Phase must be free of offset, or the offset harmonic: with several echoes let
    `offset.mcpc3ds` go before.

    Parameters
    ----------
    phase : (echo, x, y, z) wrapped phase [rad].
    mask : (x, y, z) voxels where it is reliable.
    te : (echo,) echo times [s].
    b0 : field strength [T].
    voxel_size : spacing [mm].
    magnitude : (echo, x, y, z), for the weights of the echoes; without it all are equally bright.
    tolerance : residual relative to the Laplacian, in the norm of the preconditioner, at which it has converged; 20 to
        30 iterations do. A hundred times tighter changes the error on head phantoms by less than 0.1 points.
    max_iterations : most iterations done, several times what heads take.

    Returns
    -------
    local_field : (x, y, z) [ppm], zero outside the returned mask.
    mask : the voxels whose neighbours along faces and edges are in the given mask; voxels at a face of the image have
        not all of them.
    Solved : how the iteration ended.

    Raises
    ------
    ValueError : inputs do not fit one another, are not finite inside the mask, or the mask is too thin.

    References
    ----------
    Li 2014, doi:10.1002/nbm.3056; iHARPERELLA: Li 2015, Proc. ISMRM 23
    """
    inside, size = series.inside(mask), check_voxel_size(voxel_size)
    times, strength = series.echo_times(te), series.field_strength(b0)
    check_positive(tolerance=tolerance, max_iterations=max_iterations)
    kept = enclosed(inside)
    if not kept.any():
        raise ValueError("no voxel of the mask has all its neighbours in it: the mask is too thin")
    wrapped = series.echoes("phase", phase, times, inside)
    bright = None if magnitude is None else series.echoes("magnitude", magnitude, times, inside)
    box = ndimage.find_objects(inside.astype(np.int8))[0]
    right = phase_laplacian(wrapped, bright, inside, times, size, points=19)[box]
    right *= kept[box] * np.float32(-1 / radians_per_ppm(strength, 1.0))
    right = np.pad(right, 1)
    fields = SmallestField(np.pad(inside[box], 1), np.pad(kept[box], 1), size)
    found, solved = fields.solve(right, tolerance=tolerance, max_iterations=max_iterations)
    local = np.zeros(inside.shape, np.float32)
    local[box] = found[1:-1, 1:-1, 1:-1]
    local *= kept
    return local, kept, solved


class SmallestField:
    """The field with a given Laplacian at some voxels of a mask whose squares over the mask sum to the least.

    Let L take minus the Laplacian of a field on the mask at these voxels. The smallest field with L f = r is
    f = L' y, where L L' y = r. Two solutions of Poisson's equation are nearly the inverse of L L'.
    """

    def __init__(self, mask: Mask, kept: Mask, voxel_size: Vector) -> None:
        """Prepare the solver.

        Parameters
        ----------
        mask : voxels where the field is.
        kept : those whose neighbours along faces and edges are in the mask; none lies on a face of the array.
        voxel_size : spacing [mm].
        """
        self._mask = mask
        self._poisson = Poisson(kept, voxel_size)

    def field(self, multipliers: Volume) -> Volume:
        """L' of what is zero but at the kept voxels: a volume that the next call overwrites."""
        return self._poisson.laplacian(multipliers, self._mask)

    def normal(self, multipliers: Volume) -> Volume:
        """L L' of what is zero but at the kept voxels."""
        return self._poisson.apply(self.field(multipliers).copy()).copy()

    def precondition(self, residual: Volume) -> Volume:
        """About the inverse of `normal`."""
        return self._poisson.precondition(self._poisson.precondition(residual).copy())

    def solve(self, right: Volume, *, tolerance: float, max_iterations: int) -> tuple[Volume, Solved]:
        """The field whose L is `right`, which is overwritten."""
        multipliers, solved = conjugate.solve(
            self.normal, right, tolerance=tolerance, iterations=max_iterations, precondition=self.precondition
        )
        return self.field(multipliers), solved
