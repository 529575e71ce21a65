"""Nonlinear dipole inversion."""

import math
from typing import cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsm_dask.kernels import fourier
from qsm_dask.kernels.doors import Mask, check_positive
from qsm_dask.kernels.fourier import Floats, Volume
from qsm_dask.kernels.inversion import door
from qsm_dask.kernels.inversion.wrapped import mismatch
from qsm_dask.kernels.jit import compiled, prange, spread
from qsm_dask.kernels.solved import Solved


def ndi(
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
    step: float = 2.0,
    damping: float = 1e-5,
    tolerance: float = 1e-3,
    max_iterations: int = 200,
) -> tuple[Volume, Solved]:
    """Susceptibility by gradient descent on the nonlinear misfit, stopped early.

    Descends along  D [W^2 sin(D chi - phase)] + damping * chi  from zero, with the field as a phase (see `wrapped`). No
    prior is used: the stopping regularises. Iterations first find what the kernel passes well, and then noise
    and streaks grow, so that more iterations are not better. What is not found yet is missing: on head phantoms deep
    grey matter comes out a tenth too low, farther off than by `tkd`. Each step is cut to the mask,
    where the sources of a local field are: left free, they gather behind its surface. Four transforms an iteration.

    Parameters
    ----------
    local_field, mask, voxel_size, b0_dir : field [ppm], where it is known, spacing [mm], direction; see `door.linear`.
    b0, te, magnitude, field_noise : what makes it a phase [T, s] and gives the weights W; see `door.wrapped`.
    step : of the descent; 2 as Polak 2020. It is stable below 2.25, as D reaches 2/3 and W^2 at most 2.
    damping : of chi; 1e-5 as Polak 2020, too small to matter but in the cone where the kernel is zero.
    tolerance : relative change of chi at which it stops. After n steps the waves with D^2 > 1 / (step * n) are found:
        0.001 is met near the 130th, with waves above |D| = 0.06, about where division in k-space begins to fail.
    max_iterations : most iterations done; 200 as Polak 2020.

    Returns
    -------
    chi : (x, y, z) [ppm], zero outside the mask; its mean is arbitrary.
    Solved : iterations, relative change and whether it came down to the tolerance.

    Raises
    ------
    ValueError : inputs do not fit one another or are not finite inside the mask.

    References
    ----------
    Polak 2020, doi:10.1002/nbm.4271
    """
    check_positive(step=step, damping=damping, tolerance=tolerance, max_iterations=max_iterations)
    grid, data = door.wrapped(local_field, mask, voxel_size, b0_dir, b0, te, magnitude, field_noise)
    chi = np.zeros(grid.shape, np.float32)
    cost, sums, change, done = np.empty(grid.shape[0]), np.empty((grid.inside.shape[0], 2)), math.inf, 0
    while done < max_iterations and change > tolerance:
        slope = _filtered(chi, grid.dipole)
        mismatch(slope, data.phase, data.weight, np.float32(1.0), cost)
        slope = _filtered(slope, grid.dipole)
        _descend(chi, slope, grid.inside, np.float32(step), np.float32(damping), sums)
        del slope
        moved, norm = np.sqrt(sums.sum(axis=0)).tolist()
        change = moved / norm if norm else 0.0
        done += 1
    return grid.crop(chi, data.scale), Solved(done, change, change <= tolerance)


def _filtered(volume: Volume, dipole: Volume) -> Volume:
    spectrum = fourier.forward(volume)
    fourier.weigh(spectrum, dipole)
    return fourier.inverse(spectrum, cast("fourier.Shape", volume.shape))


@spread
def _descend(chi: Volume, slope: Volume, inside: Mask, step: np.float32, damping: np.float32, sums: Floats) -> None:
    """One step inside the mask, in place; by plane, the sums of |change|^2 and |chi|^2."""
    for i in prange(inside.shape[0]):
        _descend_plane(chi[i], slope[i], inside[i], step, damping, sums[i])


@compiled
def _descend_plane(
    chi: Volume, slope: Volume, inside: Mask, step: np.float32, damping: np.float32, sums: Floats
) -> None:
    ny, nz = inside.shape
    moved, norm = 0.0, 0.0
    for j in range(ny):
        for m in range(nz):
            if inside[j, m]:
                value = chi[j, m]
                change = step * (slope[j, m] + damping * value)
                value -= change
                chi[j, m] = value
                moved += change * change
                norm += value * value
    sums[0], sums[1] = moved, norm
