"""Total variation with a data term that is absolute first and squared then."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsm_dask.kernels import fourier
from qsm_dask.kernels.doors import check_positive
from qsm_dask.kernels.fourier import Volume
from qsm_dask.kernels.inversion import door
from qsm_dask.kernels.inversion.l1 import check_field_rho, fit_absolute
from qsm_dask.kernels.inversion.split import SplitField, solve
from qsm_dask.kernels.inversion.wrapped import WrappedField
from qsm_dask.kernels.jit import compiled
from qsm_dask.kernels.solved import Solved


def hdqsm(
    local_field: NDArray[np.float32],
    mask: NDArray[np.bool_],
    voxel_size: ArrayLike,
    b0_dir: ArrayLike,
    b0: ArrayLike,
    te: ArrayLike,
    magnitude: NDArray[np.float32] | None = None,
    field_noise: NDArray[np.float32] | None = None,
    /,
    *,
    weight_mm: float = 0.05,
    weight_ppm_mm: float = 6e-5,
    rho: float = 50.0,
    field_rho: float = 20.0,
    first_iterations: int = 150,
    tolerance: float = 1e-2,
    max_iterations: int = 150,
) -> tuple[Volume, Solved]:
    """Susceptibility of least total variation by a data term that first finds the spoilt voxels, then leaves them out.

    The map of `l1` tells where it does not explain the field. Where the misfit exceeds three times its
    typical size, W falls as the misfit grows. Then  sum W^2 (D chi - phase)^2 / 2 + weight * sum |grad chi|  is
    minimised, with the phase unwrapped about the first map's: squares make better use of good voxels than absolute
    values do. It starts from the first map. Four transforms an iteration.

    Parameters
    ----------
    local_field, mask, voxel_size, b0_dir : field [ppm], where it is known, spacing [mm], direction; see `door.linear`.
    b0, te, magnitude, field_noise : what makes it a phase [T, s] and gives the weights W; see `door.wrapped`.
    weight_mm : of the total variation in the first stage [mm], that of `l1`.
    weight_ppm_mm : of the total variation in the second stage [ppm mm]; below that of `fansi`, as the spoilt voxels
        that a larger one would smooth have lost their weight. Half of it changes the error on two head phantoms by less
        than half a point, twice as much by one.
    rho : penalty of the splitting of slopes as a multiple of either weight, that of `l1`. With 25 the error on the same
        heads is 2 points lower, with 100 it is 4 higher.
    field_rho : penalty of the splitting of the field in the first stage, that of `l1` [1/rad]; 1 in the second. With 10
        the error is 2 points lower, with 40 it is 5 higher.
    first_iterations : most of the first stage. It must converge, which takes 40 to 60 on heads: after the 20 of
        Lambert 2022 strong sources are unfinished and count as spoilt, and the map loses two thirds of a calcification.
    tolerance : relative change of chi at which a stage has converged; 0.01 as `l1`. At 0.003 the error is 2 points
        lower, for three times as many iterations.
    max_iterations : most of the second stage, which takes about ten; 150 as `l1`.

    Returns
    -------
    chi : (x, y, z) [ppm], zero outside the mask; its mean is arbitrary.
    Solved : iterations of both stages, the larger relative change and whether both converged.

    Raises
    ------
    ValueError : inputs do not fit one another or are not finite inside the mask.

    References
    ----------
    Lambert 2022, doi:10.1002/mrm.29218
    """
    check_positive(weight_mm=weight_mm, weight_ppm_mm=weight_ppm_mm, rho=rho, field_rho=field_rho)
    check_positive(first_iterations=first_iterations, tolerance=tolerance, max_iterations=max_iterations)
    check_field_rho(field_rho)
    grid, data = door.wrapped(local_field, mask, voxel_size, b0_dir, b0, te, magnitude, field_noise)
    np.sqrt(data.weight, out=data.weight)
    split = SplitField(grid, data, fit_absolute, field_rho)
    chi, first = solve(split, grid, weight_mm, rho * weight_mm * grid.edge_mm, tolerance, first_iterations)
    del split
    _leave_out(chi, grid, data)
    split = SplitField(grid, data, _fit_square, 1.0, chi)
    weight, penalty = weight_ppm_mm * data.scale, rho * weight_ppm_mm * grid.edge_mm
    chi, solved = solve(split, grid, weight, penalty, tolerance, max_iterations, chi)
    converged = first.converged and solved.converged
    both = Solved(first.iterations + solved.iterations, max(first.residual, solved.residual), converged)
    return grid.crop(chi, data.scale), both


def _leave_out(chi: Volume, grid: door.Grid, data: WrappedField) -> None:
    """Square the weights, smaller where the misfit is large; take the phase to the turn that the first stage found."""
    spectrum = fourier.forward(chi)
    spectrum *= grid.dipole
    x, y, z = grid.inside.shape
    misfit = data.phase - fourier.inverse(spectrum, grid.shape)[:x, :y, :z]
    turns = np.rint(misfit / np.float32(2 * np.pi)) * np.float32(2 * np.pi)
    misfit -= turns
    data.phase[...] -= turns
    misfit *= data.weight
    np.abs(misfit, out=misfit)
    # 1.4826 takes the median of absolute values to the standard deviation of normal ones.
    usual = np.float32(3 * 1.4826 * np.median(misfit[grid.inside]))
    if usual > 0:
        data.weight[...] *= np.minimum(np.float32(1.0), usual / np.maximum(misfit, usual))
    np.square(data.weight, out=data.weight)


@compiled
def _fit_square(field: Volume, dual: Volume, phase: Volume, weight: Volume, penalty: np.float32) -> None:
    """One step of the splitting for weight / 2 (y - phase)^2 (a `split.Fit`)."""
    nx, ny, nz = phase.shape
    for i in range(nx):
        for j in range(ny):
            for m in range(nz):
                squared = weight[i, j, m]
                if squared > 0:
                    wanted = field[i, j, m] + dual[i, j, m]
                    value = (squared * phase[i, j, m] + penalty * wanted) / (squared + penalty)
                    dual[i, j, m] = wanted - value
                    field[i, j, m] = value - dual[i, j, m]
