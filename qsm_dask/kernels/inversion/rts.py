"""Rapid two-step dipole inversion."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsm_dask.kernels import fourier
from qsm_dask.kernels.doors import check_positive
from qsm_dask.kernels.fourier import Floats, Spectrum, Volume
from qsm_dask.kernels.inversion import door
from qsm_dask.kernels.inversion.admm import Schedule, Symbols, gradient_rms, minimise
from qsm_dask.kernels.inversion.extension import KnownField
from qsm_dask.kernels.jit import compiled, prange, spread
from qsm_dask.kernels.solved import Solved

_LARGEST = np.float32(2.0 / 3.0)
"""Largest magnitude of the dipole kernel, along B0."""

_BINS = 4096
"""Of the histogram over the kernel's magnitude that stands for the spectrum in the Krylov step."""


def rts(
    local_field: NDArray[np.float32],
    mask: NDArray[np.bool_],
    voxel_size: ArrayLike,
    b0_dir: ArrayLike,
    /,
    *,
    threshold: float = 0.12,
    lsmr_iterations: int = 12,
    rho: float = 0.1,
    extensions: int = 2,
    tolerance: float = 1e-2,
    max_iterations: int = 20,
) -> tuple[Volume, Solved]:
    """Susceptibility by rapid two-step inversion: k-space where it is well conditioned, total variation elsewhere.

    First a few iterations of LSMR find the coefficients where the dipole kernel exceeds the
    threshold; as the kernel is diagonal in k-space this takes no transform. Then ADMM finds the map of least total
    variation [ppm/mm] that has exactly these coefficients (the penalty mu of Kames 2018 taken to its limit),
    two transforms an iteration. Outside the mask the field of the sources found so
    far stands for what was not measured (see `extension`).

    Parameters
    ----------
    local_field, mask, voxel_size, b0_dir : field [ppm], where it is known, spacing [mm], direction; see `door.linear`.
    threshold : magnitude of the kernel above which k-space is well conditioned. With the 0.15 of Kames 2018 the error
        of four heads at an SNR of 100 is 2 to 3 % higher (NRMSE), with V-SHARP's field of three about as much lower.
    lsmr_iterations : of the first step. By the twelfth the coefficients just above the threshold have
        converged; stopped at the eighth, iron is 7 % too low.
    rho : first penalty of the splitting, times the root mean square of the gradient of the first step's map: relative,
        so that chi scales with the field. It is raised fivefold whenever the splitting stalls. Values
        from 0.05 to 0.2 give the same error; on a head in ppm and mm they are about the 10 of Kames 2018.
    extensions : how often the field outside the mask is put to that of the sources found so far; three transforms
        each. More than two fit a perfect local field better, and one with leftover background worse.
    tolerance : relative change of chi at which it has converged; 0.01 as Kames 2018.
    max_iterations : most iterations done; 20 as Kames 2018, twice what heads take.

    Returns
    -------
    chi : (x, y, z) [ppm], zero outside the mask; its mean is arbitrary.
    Solved : iterations, relative change and whether it converged.

    Raises
    ------
    ValueError : inputs do not fit one another or are not finite inside the mask.

    References
    ----------
    Kames 2018, doi:10.1016/j.neuroimage.2017.11.018; Fong and Saunders 2011, doi:10.1137/10079687X
    """
    grid, field = door.linear(local_field, mask, voxel_size, b0_dir)
    check_positive(
        threshold=threshold,
        lsmr_iterations=lsmr_iterations,
        rho=rho,
        tolerance=tolerance,
        max_iterations=max_iterations,
    )
    if threshold >= 1 / 3:
        raise ValueError(f"threshold is {threshold}: from 1/3 upwards too little of k-space is well conditioned")

    def prepare(spectrum: Spectrum) -> None:
        power = np.zeros(_BINS)
        _histogram(spectrum, grid.dipole, grid.shape[2] % 2 == 0, power)
        _keep_conditioned(spectrum, grid.dipole, _lsmr(power, lsmr_iterations), np.float32(threshold))

    def update(spectrum: Spectrum, symbols: Symbols, _rho: float) -> None:
        _update(spectrum, data.spectrum, grid.dipole, *symbols, np.float32(threshold))

    data = KnownField(field, grid, prepare)
    first = rho / (gradient_rms(data.spectrum, grid.shape, grid.size) or 1.0)
    schedule = Schedule(1.0, first, True, extensions, tolerance, max_iterations)
    chi, solved = minimise(fourier.inverse(data.spectrum.copy(), grid.shape), data, update, grid.size, schedule)
    return grid.crop(chi), solved


def _lsmr(power: Floats, iterations: int) -> Volume:
    """The factors D p(D^2) that LSMR applies to the field after some iterations, by bins of |D|.

    From zero, LSMR minimises |D (f - D x)| over the Krylov space of D^2 and D f. As D is diagonal,
    that space holds the polynomials p of D^2 times D f, and the minimum is a least-squares
    problem in the coefficients of p under the histogram of |f|^2 over |D|: no vectors are iterated.
    """
    magnitude = (np.arange(power.size) + 0.5) / power.size
    square = magnitude**2
    basis = np.polynomial.chebyshev.chebvander(2 * square - 1, iterations - 1)
    weight = np.sqrt(power) * magnitude
    coefficients = np.linalg.lstsq(basis * (weight * square)[:, None], weight, rcond=None)[0]
    factors: Volume = (basis @ coefficients * magnitude / _LARGEST).astype(np.float32)
    return factors


@compiled
def _histogram(data: Spectrum, dipole: Volume, even: bool, power: Floats) -> None:
    """Sum |data|^2 over the full spectrum into bins of |D| from 0 to its largest value."""
    nx, ny, nz = data.shape
    scale = np.float32(power.size) / _LARGEST
    last = power.size - 1
    for i in range(nx):
        for j in range(ny):
            for m in range(nz):
                value = data[i, j, m]
                square = np.float64(value.real) * value.real + np.float64(value.imag) * value.imag
                single = m == 0 or (even and m == nz - 1)
                power[min(int(abs(dipole[i, j, m]) * scale), last)] += square if single else 2 * square


@compiled
def _keep_conditioned(data: Spectrum, dipole: Volume, factors: Volume, threshold: np.float32) -> None:
    """Apply the factors, interpolated between bins, where |D| exceeds the threshold; zero elsewhere."""
    nx, ny, nz = data.shape
    scale = np.float32(factors.size) / _LARGEST
    for i in range(nx):
        for j in range(ny):
            for m in range(nz):
                d = dipole[i, j, m]
                place = max(abs(d) * scale - np.float32(0.5), np.float32(0.0))
                low = min(int(place), factors.size - 2)
                factor = factors[low] + (factors[low + 1] - factors[low]) * (place - np.float32(low))
                data[i, j, m] *= np.copysign(factor, d) if abs(d) > threshold else np.float32(0.0)


@spread
def _update(
    spectrum: Spectrum, data: Spectrum, dipole: Volume, lx: Volume, ly: Volume, lz: Volume, threshold: np.float32
) -> None:
    """The known coefficients where the kernel exceeds the threshold; elsewhere the map whose gradient is z - u."""
    for i in prange(spectrum.shape[0]):
        _update_plane(spectrum, data, dipole, lx, ly, lz, threshold, i)
    spectrum[0, 0, 0] = 0


@compiled
def _update_plane(
    spectrum: Spectrum,
    data: Spectrum,
    dipole: Volume,
    lx: Volume,
    ly: Volume,
    lz: Volume,
    threshold: np.float32,
    i: int,
) -> None:
    _, ny, nz = spectrum.shape
    one = np.float32(1.0)
    for j in range(ny):
        lxy = lx[i] + ly[j]
        for m in range(nz):
            known = abs(dipole[i, j, m]) > threshold
            spectrum[i, j, m] = data[i, j, m] if known else spectrum[i, j, m] * (one / (lxy + lz[m]))
