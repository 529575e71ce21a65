"""Total variation with a nonlinear data term."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsm_dask.kernels import fourier, series
from qsm_dask.kernels.dipole import dipole_spectrum
from qsm_dask.kernels.doors import check_direction, check_positive, check_voxel_size
from qsm_dask.kernels.fourier import Spectrum, Volume
from qsm_dask.kernels.inversion.admm import Schedule, Symbols, minimise
from qsm_dask.kernels.inversion.wrapped import wrapped_field
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
    weight_ppm_mm: float = 1e-4,
    rho: float = 100.0,
    field_rho: float = 1.0,
    tolerance: float = 1e-2,
    max_iterations: int = 150,
) -> tuple[Volume, Solved]:
    """Susceptibility as the map of least total variation that explains the wrapped field.

    Minimises  sum W^2 [1 - cos(D chi - phase)] + weight * sum |grad chi|  by ADMM, with the field as a phase (see
    `wrapped`) and two splittings, of grad chi and of D chi. The second is solved voxel by voxel with Newton steps,
    so that the data are weighted and known inside the mask alone. Four transforms an iteration.

    Parameters
    ----------
    local_field : relative field of the sources inside the mask (x, y, z) [ppm].
    mask : voxels where it is known.
    voxel_size : spacing [mm].
    b0_dir : unit vector of B0 in array axes.
    b0 : field strength [T].
    te : echo times [s].
    magnitude : of each echo, for the weights W; without it and without noise all voxels count the same.
    field_noise : standard deviation of the field [ppm], for the weights in place of the magnitude.
    weight_ppm_mm : of the total variation [ppm mm], that of `tv`: about a sixth of the noise of the field [ppm], so
        that 1e-4 is for 3 T at an SNR of 100.
    rho : penalty of the gradient's splitting as a multiple of the weight, for differences between neighbouring voxels;
        100 as Milovic 2018. It changes the speed, not the map.
    field_rho : penalty of the field's splitting, the mean of W^2 being about 1; 1 as Milovic 2018.
    tolerance : relative change of chi at which it has converged. The region outside the mask, where no data are, goes
        on to move slowly: on a head, five times as many iterations change the error by less than 0.5 % (NRMSE).
    max_iterations : most iterations done; 150 as Milovic 2018.

    Returns
    -------
    chi : (x, y, z) [ppm], zero outside the mask; its mean is arbitrary.
    Solved : iterations, relative change and whether it converged.

    Raises
    ------
    ValueError : inputs do not fit one another or are not finite inside the mask.

    References
    ----------
    Milovic 2018, doi:10.1002/mrm.27073
    """
    inside, size, direction = series.inside(mask), check_voxel_size(voxel_size), check_direction(b0_dir)
    check_positive(
        weight_ppm_mm=weight_ppm_mm, rho=rho, field_rho=field_rho, tolerance=tolerance, max_iterations=max_iterations
    )
    data = wrapped_field(local_field, inside, b0, te, magnitude, field_noise)
    shape = fourier.padded_shape(inside.shape, size, fourier.MARGIN_MM)
    dipole = dipole_spectrum(shape, size, direction)
    penalty = np.float32(field_rho)
    dual = np.zeros(inside.shape, np.float32)
    field = np.zeros(shape, np.float32)
    _fit(field, dual, data.phase, data.weight, penalty)
    split = [fourier.forward(field)]
    del field

    def update(spectrum: Spectrum, symbols: Symbols, rho: float) -> None:
        _update(spectrum, split[0], dipole, *symbols, np.float32(rho), penalty)
        split.clear()
        field = fourier.inverse(spectrum * dipole, shape)
        _fit(field, dual, data.phase, data.weight, penalty)
        split.append(fourier.forward(field))

    weight = weight_ppm_mm * data.scale
    edge_mm = float(np.prod(size)) ** (1 / 3)
    schedule = Schedule(weight, rho * weight_ppm_mm * edge_mm, False, 0, tolerance, max_iterations)
    chi, solved = minimise(np.zeros(shape, np.float32), None, update, size, schedule)
    chi /= np.float32(data.scale)
    return fourier.crop(chi, inside), solved


@compiled
def _update(
    spectrum: Spectrum,
    split: Spectrum,
    dipole: Volume,
    lx: Volume,
    ly: Volume,
    lz: Volume,
    rho: np.float32,
    penalty: np.float32,
) -> None:
    nx, ny, nz = spectrum.shape
    one = np.float32(1.0)
    for i in range(nx):
        for j in range(ny):
            lxy = lx[i] + ly[j]
            for m in range(nz):
                d = dipole[i, j, m]
                spectrum[i, j, m] = (split[i, j, m] * (d * penalty) + spectrum[i, j, m] * rho) * (
                    one / (penalty * d * d + rho * (lxy + lz[m]))
                )
    spectrum[0, 0, 0] = 0


@compiled
def _fit(field: Volume, dual: Volume, phase: Volume, weight: Volume, penalty: np.float32) -> None:
    """One step of the field's splitting: from D chi and the dual to the new dual, and to what D chi shall be.

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
