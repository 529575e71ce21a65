"""Susceptibility in a single step from wrapped phase, by total generalised variation."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from qsm_dask.kernels import series
from qsm_dask.kernels.doors import Mask, check_direction, check_positive, check_voxel_size
from qsm_dask.kernels.fourier import Volume
from qsm_dask.kernels.inversion.primal_dual import Problem, State, change, dipole_stencil, flags_of, iterate, steps
from qsm_dask.kernels.phaselaplacian import phase_laplacian
from qsm_dask.kernels.solved import Solved
from qsm_dask.units import radians_per_ppm

_CUBE = np.ones((3, 3, 3), np.bool_)

_SIZES_PPM = (0.02, 5e-4, 3e-4)
"""Of chi in a brain, of the field it leaves unexplained and of the multiplier of the equation times its unit.

They set the speed alone. Each may be three times larger or smaller before a map takes a fifth more iterations.
"""

_EVERY = 10
"""Iterations from one look at convergence to the next."""


def tgv(
    phase: NDArray[np.float32],
    mask: NDArray[np.bool_],
    te: ArrayLike,
    b0: ArrayLike,
    voxel_size: ArrayLike,
    b0_dir: ArrayLike,
    magnitude: NDArray[np.float32] | None = None,
    /,
    *,
    weight_ppm_mm: float = 1e-4,
    second_weight: float = 3.0,
    tolerance: float = 1e-3,
    max_iterations: int = 800,
) -> tuple[Volume, Mask, Solved]:
    """Susceptibility straight from wrapped phase: no unwrapping, no background removal, no transform.

    Minimises  sum |psi|^2 / 2 + TGV(chi)  where psi is a field whose Laplacian is what that of the phase and the
    dipole operator of chi leave (see `primal_dual`). Sources outside the mask make no Laplacian inside it, so they are
    never seen; wraps make none either (see `phaselaplacian`). TGV penalises the change of slopes as well as slopes, so
    that gentle slopes do not become stairs as in `tv`.

    The equation holds where all 26 neighbours are in the mask, and there chi is returned: one layer of voxels is
    lost, not the three of Langkammer 2015. Phase must be free of offset, or the offset smooth: with several echoes
    let `offset.mcpc3ds` go before.

    Parameters
    ----------
    phase : (echo, x, y, z) wrapped phase [rad].
    mask : (x, y, z) voxels where it is reliable.
    te : (echo,) echo times [s].
    b0 : field strength [T].
    voxel_size : spacing [mm].
    b0_dir : unit vector of B0 in array axes.
    magnitude : (echo, x, y, z), for the weights of the echoes; without it all are equally bright.
    weight_ppm_mm : of the first-order variation [ppm mm], that of `tv`. On a head phantom of 2 mm half of it gives the
        same error, twice as much 0.8 points more.
    second_weight : of the second-order variation, as a multiple of the first's and the voxel edge; 3 as
        Langkammer 2015.
    tolerance : relative change of chi in one iteration at which it has converged. The same head takes 620; with 0.002
        it takes 380 for the same error.
    max_iterations : most iterations done. Broad structures settle last: on matrices twice as fine they need twice
        as many.

    Returns
    -------
    chi : (x, y, z) [ppm], zero outside the returned mask; its mean is arbitrary.
    mask : the voxels with all neighbours in the given mask; voxels at a face of the image have none.
    Solved : iterations, relative change and whether it converged.

    Raises
    ------
    ValueError : inputs do not fit one another, are not finite inside the mask, or the mask is too thin.

    References
    ----------
    Langkammer 2015, doi:10.1016/j.neuroimage.2015.02.041
    """
    inside, size, direction = series.inside(mask), check_voxel_size(voxel_size), check_direction(b0_dir)
    times, strength = series.echo_times(te), series.field_strength(b0)
    check_positive(
        weight_ppm_mm=weight_ppm_mm, second_weight=second_weight, tolerance=tolerance, max_iterations=max_iterations
    )
    known = ndimage.binary_erosion(inside, _CUBE)
    if not known.any():
        raise ValueError("no voxel of the mask has all its neighbours in it: the mask is too thin")
    wrapped = series.echoes("phase", phase, times, inside)
    bright = None if magnitude is None else series.echoes("magnitude", magnitude, times, inside)
    edge_mm = float(np.prod(size)) ** (1 / 3)
    box = ndimage.find_objects(inside.astype(np.int8))[0]
    data = phase_laplacian(wrapped, bright, inside, times, size, points=7)[box]
    data *= known[box] * np.float32(edge_mm**2 / radians_per_ppm(strength, 1.0))
    length = (size[0] / edge_mm, size[1] / edge_mm, size[2] / edge_mm)
    weight = weight_ppm_mm / edge_mm
    problem = Problem(
        np.pad(data, 1),
        flags_of(np.pad(inside[box], 1), np.pad(known[box], 1)),
        dipole_stencil(length, direction),
        1 / np.array(length),
        weight,
        weight * second_weight,
    )
    del data
    chi = np.zeros(inside.shape, np.float32)
    chi[box], solved = _solve(problem, tolerance, max_iterations)
    chi *= known
    return chi, known, solved


def _solve(problem: Problem, tolerance: float, iterations: int) -> tuple[Volume, Solved]:
    """Iterate from zero; chi without its border."""
    state = State.zeros(problem.data.shape)
    step = steps(problem, _SIZES_PPM)
    done, moved = 0, np.inf
    while done < iterations and not moved <= tolerance:
        for _ in range(min(_EVERY, iterations - done)):
            iterate(state, problem, step)
            done += 1
        moved = change(state)
    return state.chi[1:-1, 1:-1, 1:-1], Solved(done, moved, moved <= tolerance)
