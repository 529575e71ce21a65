"""Susceptibility as the sum of its sources: para- and diamagnetic ones shift the field against one another, but
both make the signal decay faster.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsm_dask.kernels import fourier, series
from qsm_dask.kernels.doors import check_extensions, check_positive
from qsm_dask.kernels.fourier import Spectrum, Volume
from qsm_dask.kernels.inversion import door
from qsm_dask.kernels.inversion.admm import shrink, symbols
from qsm_dask.kernels.inversion.extension import EVERY, KnownField
from qsm_dask.kernels.jit import compiled
from qsm_dask.kernels.solved import Solved

Sources = tuple[Volume, Volume, Solved]
Scan = tuple[NDArray[np.bool_], ArrayLike, ArrayLike, ArrayLike]

_MEASURED_T = 3.0
"""Field strength at which the relaxometric constants were measured [T]."""

_BOUND = np.float32(0.01)
"""Penalty of the splitting that keeps a source from changing its sign, beside a kernel of up to 2/3 squared. It changes
the speed; a hundredfold one also the map, as the data are extended before it has settled."""


@dataclass(frozen=True)
class _Solver:
    """The parameters that both methods share; see `r2prime`."""

    relaxation_weight: float
    weight_ppm_mm: float
    rho: float
    extensions: int
    tolerance: float
    max_iterations: int


def r2prime(
    local_field: NDArray[np.float32],
    r2prime: NDArray[np.float32],
    mask: NDArray[np.bool_],
    voxel_size: ArrayLike,
    b0_dir: ArrayLike,
    b0: ArrayLike,
    /,
    *,
    para_per_s_ppm: float = 137.0,
    dia_per_s_ppm: float = 137.0,
    relaxation_weight: float = 0.01,
    weight_ppm_mm: float = 1e-4,
    rho: float = 100.0,
    extensions: int = 2,
    tolerance: float = 2e-3,
    max_iterations: int = 100,
) -> Sources:
    """Para- and diamagnetic sources from field and R2' (chi-separation).

    With both magnitudes p, d >= 0, the field is that of p - d and R2' = Dp p + Dd d. Minimises, with D the mean of
    Dp and Dd,  |dipole (p - d) - field|^2 / 2 + relaxation_weight |Dp p + Dd d - R2'|^2 / (2 D^2) + weight * (sum
    |grad p| + sum |grad d|)  by ADMM, where Shin 2021 takes the regularisation of MEDI: a two-by-two system at each
    place of k-space, four transforms an iteration. Outside the mask there are no sources, and for the field see
    `inversion.extension`.

    Unlike chi of an inversion, the sources are no values relative to a reference: R2' fixes them. So whatever is wrong
    with R2' (R2 from a train of stimulated echoes, dephasing near air) is wrong with both; where R2' is too high by
    1.37 /s, each is by 5 ppb. Over three head phantoms the slope of deep grey regions against the truth is 0.99 for
    paramagnetic and 0.93 for diamagnetic sources: of the two, the latter is farther from one than that of `tkd`.

    Parameters
    ----------
    local_field : relative field of the sources inside the mask (x, y, z) [ppm].
    r2prime : reversible relaxation rate (x, y, z) [1/s].
    mask : voxels where both are known.
    voxel_size : spacing [mm].
    b0_dir : unit vector of B0 in array axes.
    b0 : field strength [T].
    para_per_s_ppm, dia_per_s_ppm : relaxometric constants Dp and Dd at 3 T [1/(s ppm)]; they are taken to grow with the
        field. 137 for both as Shin 2021 found in iron-rich nuclei, where chi is of one head orientation; 114 where it
        is of many (Kim 2025, Human Brain Mapping 46, e70136).
    relaxation_weight : of R2' beside the field, both in ppm: the inverse ratio of their squared noise. At 3 T
        and an SNR of 100 the field has 0.5 ppb and R2' / D 6 ppb; 0.03 gives the same errors.
    weight_ppm_mm : of the total variation of each source [ppm mm]; see `inversion.tv`. On two head phantoms both
        sources are wrong by 9 to 10 % (NRMSE), by one point less with half of it and by two more with twice of it.
    rho : penalty of the gradient's splitting as a multiple of the weight; 100 as Milovic 2018. From 50 to 200 the
        errors change by 0.1 points.
    extensions : how often the field outside the mask is put to that of the sources found so far; 2 as `inversion.tv`.
        One gives half a point more of error, three 0.3 less.
    tolerance : relative change of the sources at which they have converged; half of it changes the errors by less than
        0.1 points.
    max_iterations : most iterations done, several times the 13 that heads take.

    Returns
    -------
    chi_para : (x, y, z) [ppm], not negative; zero outside the mask.
    chi_dia : (x, y, z) [ppm], not positive; zero outside the mask. Their sum is chi relative to water.
    Solved : iterations, relative change and whether it converged.

    Raises
    ------
    ValueError : inputs do not fit one another or are not finite inside the mask, or a rate is negative there.

    References
    ----------
    Shin 2021, doi:10.1016/j.neuroimage.2021.118371; Milovic 2018, doi:10.1002/mrm.27073
    """
    solver = _Solver(relaxation_weight, weight_ppm_mm, rho, extensions, tolerance, max_iterations)
    scan = (mask, voxel_size, b0_dir, b0)
    return _separate(local_field, "r2prime", r2prime, scan, (para_per_s_ppm, dia_per_s_ppm), solver)


def r2star(
    local_field: NDArray[np.float32],
    r2star: NDArray[np.float32],
    mask: NDArray[np.bool_],
    voxel_size: ArrayLike,
    b0_dir: ArrayLike,
    b0: ArrayLike,
    /,
    *,
    para_per_s_ppm: float = 274.0,
    dia_per_s_ppm: float = 274.0,
    relaxation_weight: float = 0.01,
    weight_ppm_mm: float = 1e-4,
    rho: float = 100.0,
    extensions: int = 2,
    tolerance: float = 2e-3,
    max_iterations: int = 100,
) -> Sources:
    """Para- and diamagnetic sources from gradient echoes alone, all of R2* laid to them.

    As `separation.r2prime`, with R2* = D (p + d), where D is large enough to take in R2, too. That R2 is one
    half of R2* everywhere is the assumption, and *it does not hold*: with R2 of 11 to 19 /s as in the grey and white
    matter of the phantom, both sources come out too strong by 10 ppb or so, by less in iron-rich nuclei: the slope of
    deep grey regions against the truth is 0.87 and 0.94, farther from one than that of `tkd`. Differences between
    persons are better founded than values.

    Parameters
    ----------
    local_field : relative field of the sources inside the mask (x, y, z) [ppm].
    r2star : effective relaxation rate (x, y, z) [1/s].
    mask : voxels where both are known.
    voxel_size : spacing [mm].
    b0_dir : unit vector of B0 in array axes.
    b0 : field strength [T].
    para_per_s_ppm, dia_per_s_ppm : relaxometric constants at 3 T [1/(s ppm)]; they are taken to grow with the field.
        274 for both as Dimov 2022.
    relaxation_weight : of R2* beside the field; see `separation.r2prime`.
    weight_ppm_mm : of the total variation of each source [ppm mm]; see `separation.r2prime`.
    rho, extensions, tolerance, max_iterations : see `separation.r2prime`.

    Returns
    -------
    chi_para : (x, y, z) [ppm], not negative; zero outside the mask.
    chi_dia : (x, y, z) [ppm], not positive; zero outside the mask.
    Solved : iterations, relative change and whether it converged.

    Raises
    ------
    ValueError : inputs do not fit one another or are not finite inside the mask, or a rate is negative there.

    References
    ----------
    Dimov 2022, doi:10.1111/jon.13014; Shin 2021, doi:10.1016/j.neuroimage.2021.118371
    """
    solver = _Solver(relaxation_weight, weight_ppm_mm, rho, extensions, tolerance, max_iterations)
    scan = (mask, voxel_size, b0_dir, b0)
    return _separate(local_field, "r2star", r2star, scan, (para_per_s_ppm, dia_per_s_ppm), solver)


def _separate(
    local_field: NDArray[np.float32],
    name: str,
    rate: NDArray[np.float32],
    scan: Scan,
    constants: tuple[float, float],
    solver: _Solver,
) -> Sources:
    grid, field = door.linear(local_field, *scan[:3])
    inside, strength = grid.inside, series.field_strength(scan[3])
    decay = series.volume(name, rate, inside)
    check_extensions(solver.extensions)
    check_positive(para_per_s_ppm=constants[0], dia_per_s_ppm=constants[1], **vars(solver) | {"extensions": 1})
    if (decay[inside] < 0).any():
        raise ValueError(f"{name} is negative in some voxels of the mask: clip it at zero, as relaxometry.r2prime does")
    mean = sum(constants) / 2
    padded = fourier.pad(decay, inside, grid.shape)
    padded *= np.float32(_MEASURED_T / (strength * mean))
    relaxation = fourier.forward(padded)
    del padded
    share = np.float32(constants[0] / mean), np.float32(constants[1] / mean)
    (para, dia), solved = _minimise(KnownField(field, grid), relaxation, grid, share, solver)
    return fourier.crop(np.maximum(para, 0, out=para), inside), fourier.crop(np.minimum(-dia, 0), inside), solved


def _minimise(
    data: KnownField,
    relaxation: Spectrum,
    grid: door.Grid,
    share: tuple[np.float32, np.float32],
    solver: _Solver,
) -> tuple[list[Volume], Solved]:
    """ADMM that splits both gradients, as `inversion.admm` does, and both sources, to keep their sign."""
    shape, symbol = grid.shape, symbols(grid.shape, grid.size)
    per_mm = (1 / np.array(grid.size)).astype(np.float32)
    rho = np.float32(solver.rho * solver.weight_ppm_mm * grid.edge_mm)
    limit = np.float32(solver.weight_ppm_mm / rho)
    sources, wanted = ([np.zeros(shape, np.float32) for _ in range(2)] for _ in range(2))
    dual, below = np.zeros((2, 3, *shape), np.float32), np.zeros((2, *shape), np.float32)
    sums, done = np.empty((2, shape[0], 3)), 0
    while True:
        for number, source in enumerate(sources):
            shrink(source, wanted[number], dual[number], per_mm, limit, np.float32(1.0), sums[number])
            _keep_sign(source, below[number], wanted[number], _BOUND / rho)
        changed, norm, _ = np.sqrt(sums.sum(axis=(0, 1))).tolist()
        change = changed / norm if norm else 0.0
        converged = bool(done) and change <= solver.tolerance
        if converged or done == solver.max_iterations:
            return sources, Solved(done, change, converged)
        if done and done % EVERY == 0 and done <= EVERY * solver.extensions:
            data.extend(sources[0] - sources[1])
        spectra = []
        for number, source in enumerate(sources):
            spectra.append(fourier.forward(wanted[number]))
            wanted[number] = source  # lets go of one volume before the inverse takes one
        sources.clear()
        weight = np.float32(solver.relaxation_weight)
        _update(spectra[0], spectra[1], data.spectrum, relaxation, grid.dipole, *symbol, *share, weight, rho)
        while spectra:
            sources.append(fourier.inverse(spectra.pop(0), shape))
        done += 1


@compiled
def _keep_sign(source: Volume, below: Volume, wanted: Volume, factor: np.float32) -> None:
    """The dual of source >= 0 in place, and what its splitting asks of the next source added to `wanted`.

    Of the sum of source and dual the positive part is the split source and the rest the new dual, so that their
    difference is its magnitude.
    """
    nx, ny, nz = source.shape
    for i in range(nx):
        for j in range(ny):
            for m in range(nz):
                value = source[i, j, m] + below[i, j, m]
                below[i, j, m] = min(value, np.float32(0.0))
                wanted[i, j, m] += factor * abs(value)


@compiled
def _update(
    para: Spectrum,
    dia: Spectrum,
    field: Spectrum,
    relaxation: Spectrum,
    dipole: Volume,
    lx: Volume,
    ly: Volume,
    lz: Volume,
    of_para: np.float32,
    of_dia: np.float32,
    weight: np.float32,
    rho: np.float32,
) -> None:
    """Solve for both sources at each place of k-space, in place of what the splittings ask of them."""
    nx, ny, nz = para.shape
    for i in range(nx):
        for j in range(ny):
            lxy = lx[i] + ly[j]
            for m in range(nz):
                d = dipole[i, j, m]
                smooth = d * d + rho * (lxy + lz[m]) + _BOUND
                first = smooth + weight * of_para * of_para
                second = smooth + weight * of_dia * of_dia
                mixed = weight * of_para * of_dia - d * d
                decay, shift = weight * relaxation[i, j, m], d * field[i, j, m]
                p = rho * para[i, j, m] + of_para * decay + shift
                q = rho * dia[i, j, m] + of_dia * decay - shift
                scale = np.float32(1.0) / (first * second - mixed * mixed)
                para[i, j, m] = (second * p - mixed * q) * scale
                dia[i, j, m] = (first * q - mixed * p) * scale
