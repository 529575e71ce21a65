"""Total variation, or total generalised variation, with a nonlinear data term."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsm_dask.kernels.doors import check_positive
from qsm_dask.kernels.fourier import Volume
from qsm_dask.kernels.inversion import door, second_order
from qsm_dask.kernels.inversion.split import SplitField, solve
from qsm_dask.kernels.jit import compiled
from qsm_dask.kernels.solved import Solved

_NEWTON = 10
_SETTLED = np.float32(1e-5)


def fansi(
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
    regularisation: Literal["tv", "tgv"] = "tv",
    weight_ppm_mm: float = 1e-4,
    second_weight: float = 3.0,
    rho: float = 100.0,
    field_rho: float = 1.0,
    tolerance: float = 1e-2,
    max_iterations: int = 150,
) -> tuple[Volume, Solved]:
    """Susceptibility as the map of least total (generalised) variation that explains the wrapped field.

    Minimises  sum W^2 [1 - cos(D chi - phase)] + weight * sum |grad chi|  by ADMM, with the field as a phase (see
    `wrapped`) and two splittings, of grad chi and of D chi. The second is solved voxel by voxel with Newton steps,
    so that the data are weighted and known inside the mask alone. Four transforms an iteration.

    With total generalised variation (TGV) the last term is the least of  weight * sum |grad chi - w| + second weight *
    sum |sym grad w|  over slopes w, so that gentle slopes do not become stairs (see `second_order`). Ten transforms
    an iteration, and about twice as many iterations. On head phantoms, which have no slopes inside tissues, it is
    hardly more accurate than total variation.

    Parameters
    ----------
    local_field, mask, voxel_size, b0_dir : field [ppm], where it is known, spacing [mm], direction; see `door.linear`.
    b0, te, magnitude, field_noise : what makes it a phase [T, s] and gives the weights W; see `door.wrapped`.
    regularisation : `tv`, total variation, or `tgv`, total generalised variation, whose error on two head phantoms is
        0.6 and 1 points lower, and which is three to six times as slow.
    weight_ppm_mm : of the total variation [ppm mm], that of `tv`: about a sixth of the noise of the field [ppm], so
        that 1e-4 is for 3 T at an SNR of 100.
    second_weight : of the second-order variation, as a multiple of the first's and the voxel edge; read by `tgv` alone.
        3 as Langkammer 2015; from 2 to 3 the error on head phantoms is the same within 0.2 points.
    rho : penalty of the gradient's splitting as a multiple of the weight, for differences between neighbouring voxels;
        100 as Milovic 2018. It changes the speed, not the map.
    field_rho : penalty of the field's splitting, the mean of W^2 being about 1; 1 as Milovic 2018.
    tolerance : relative change of chi at which it has converged. The region outside the mask, where no data are, goes
        on to move slowly: on a head, five times as many iterations change the error by less than 0.5 % (NRMSE).
    max_iterations : most iterations done; 150 as Milovic 2018; heads take some 25.

    Returns
    -------
    chi : (x, y, z) [ppm], zero outside the mask; its mean is arbitrary.
    Solved : iterations, relative change and whether it converged.

    Raises
    ------
    ValueError : inputs do not fit one another or are not finite inside the mask.

    References
    ----------
    Milovic 2018, doi:10.1002/mrm.27073; Bredies 2010, doi:10.1137/090769521;
    Langkammer 2015, doi:10.1016/j.neuroimage.2015.02.041
    """
    check_positive(
        weight_ppm_mm=weight_ppm_mm, rho=rho, field_rho=field_rho, tolerance=tolerance, max_iterations=max_iterations
    )
    check_positive(second_weight=second_weight)
    if regularisation not in {"tv", "tgv"}:
        raise ValueError(f"regularisation is {regularisation!r}: it must be 'tv' or 'tgv'")
    grid, data = door.wrapped(local_field, mask, voxel_size, b0_dir, b0, te, magnitude, field_noise)
    split = SplitField(grid, data, fit_cosine, field_rho)
    weight, penalty = weight_ppm_mm * data.scale, rho * weight_ppm_mm * grid.edge_mm
    if regularisation == "tv":
        chi, solved = solve(split, grid, weight, penalty, tolerance, max_iterations)
    else:
        longer = second_weight * grid.edge_mm
        variation = second_order.Variation(weight, weight * longer, penalty, penalty * longer * grid.edge_mm)
        chi, solved = second_order.solve(split, grid, variation, tolerance, max_iterations)
    return grid.crop(chi, data.scale), solved


@compiled
def fit_cosine(field: Volume, dual: Volume, phase: Volume, weight: Volume, penalty: np.float32) -> None:
    """One step of the splitting for weight * [1 - cos(y - phase)] (a `split.Fit`).

    Outside the mask the split field is D chi itself and its dual is zero. Where the misfit is concave its curvature
    is left out, which keeps a Newton step from going uphill.
    """
    nx, ny, nz = phase.shape
    for i in range(nx):
        for j in range(ny):
            for m in range(nz):
                squared = weight[i, j, m]
                if squared > 0:
                    wanted = field[i, j, m] + dual[i, j, m]
                    value = wanted
                    for _ in range(_NEWTON):
                        turn = value - phase[i, j, m]
                        slope = squared * np.sin(turn) + penalty * (value - wanted)
                        step = slope / (squared * max(np.cos(turn), np.float32(0.0)) + penalty)
                        value -= step
                        if abs(step) < _SETTLED:
                            break
                    dual[i, j, m] = wanted - value
                    field[i, j, m] = value - dual[i, j, m]
