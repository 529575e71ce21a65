"""Dipole inversion by one division in k-space."""

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsm_dask.kernels import fourier
from qsm_dask.kernels.doors import check_extensions, check_positive
from qsm_dask.kernels.fourier import Floats, Spectrum, Volume
from qsm_dask.kernels.inversion import door
from qsm_dask.kernels.inversion.admm import symbols
from qsm_dask.kernels.inversion.extension import KnownField
from qsm_dask.kernels.jit import compiled, prange, spread

Regulariser = Literal["identity", "gradient", "laplacian"]

Division = Callable[[Spectrum, door.Grid], float]
"""Divides a half spectrum by the dipole kernel in place; returns the centre of the point spread function."""


def tkd(
    local_field: NDArray[np.float32],
    mask: NDArray[np.bool_],
    voxel_size: ArrayLike,
    b0_dir: ArrayLike,
    /,
    *,
    threshold: float = 0.1,
    extensions: int = 1,
) -> Volume:
    """Susceptibility by thresholded k-space division, its underestimation corrected.

    Divides the field by the dipole kernel, and by the threshold with the kernel's sign where the kernel
    is below it. What that takes from the centre of the point spread function, its value at the source,
    is given back by one factor. Two transforms, and three to extend the field.

    Parameters
    ----------
    local_field, mask, voxel_size, b0_dir : field [ppm], where it is known, spacing [mm], direction; see `door.linear`.
    threshold : smallest magnitude of the kernel that is divided by; below 1/3. The low end of the 0.1 to 0.2 that
        Shmueli 2009 recommends as a balance of noise and streaks against blur: at an SNR of 100 the error of four heads
        is 1 to 2 % (NRMSE) lower than at 0.15.
    extensions : how often the field outside the mask is put to that of the sources found so far (see `extension`), at
        three more transforms. Once takes 3 to 5 % off the error (NRMSE), twice no more; none is the method as
        published.

    Returns
    -------
    chi : (x, y, z) [ppm], zero outside the mask; its mean is arbitrary.

    Raises
    ------
    ValueError : inputs do not fit one another or are not finite inside the mask.

    References
    ----------
    Shmueli 2009, doi:10.1002/mrm.22135; Schweser 2013, doi:10.1002/mrm.24405
    """
    _check_threshold(threshold)

    def division(spectrum: Spectrum, grid: door.Grid) -> float:
        return divide(spectrum, grid.dipole, np.float32(threshold), grid.shape[2] % 2 == 0)

    return _invert(*door.linear(local_field, mask, voxel_size, b0_dir), extensions, division)


def tsvd(
    local_field: NDArray[np.float32],
    mask: NDArray[np.bool_],
    voxel_size: ArrayLike,
    b0_dir: ArrayLike,
    /,
    *,
    threshold: float = 0.06,
    extensions: int = 1,
) -> Volume:
    """Susceptibility by truncated k-space division, its underestimation corrected.

    Divides the field by the dipole kernel and leaves out the coefficients where the kernel is below the threshold: the
    kernel is diagonal in k-space, so this is its truncated singular value decomposition. Less noise than `tkd` at the
    same threshold, more streaks. The share of k-space that is left out is given back by one factor: on head phantoms
    deep grey matter comes out a twentieth too high, farther off than by `tkd`. Two transforms, and three to extend the
    field.

    Parameters
    ----------
    local_field, mask, voxel_size, b0_dir : field [ppm], where it is known, spacing [mm], direction; see `door.linear`.
    threshold : smallest magnitude of the kernel that is divided by; below 1/3. The low end of the values in use for
        `tkd`, as what is below is lost and not only damped: on one head at SNR 100 the error grows from 36 to 46 %
        between 0.05 and 0.1 (NRMSE).
    extensions : how often the field outside the mask is put to that of the sources found so far (see `extension`), at
        three more transforms. Once takes 2 % off the error (NRMSE); none is the method as published.

    Returns
    -------
    chi : (x, y, z) [ppm], zero outside the mask; its mean is arbitrary.

    Raises
    ------
    ValueError : inputs do not fit one another or are not finite inside the mask.

    References
    ----------
    Wharton 2010, doi:10.1002/mrm.22334; Schweser 2013, doi:10.1002/mrm.24405
    """
    _check_threshold(threshold)

    def division(spectrum: Spectrum, grid: door.Grid) -> float:
        return _truncate(spectrum, grid.dipole, np.float32(threshold), grid.shape[2] % 2 == 0)

    return _invert(*door.linear(local_field, mask, voxel_size, b0_dir), extensions, division)


def tikhonov(
    local_field: NDArray[np.float32],
    mask: NDArray[np.bool_],
    voxel_size: ArrayLike,
    b0_dir: ArrayLike,
    /,
    *,
    regulariser: Regulariser = "gradient",
    weight: float = 0.01,
    extensions: int = 0,
) -> Volume:
    """Susceptibility as the least-squares map whose size, slope or curvature is penalised.

    Minimises |D chi - field|^2 + weight * |R chi|^2 in closed form, with R the identity, forward differences [1/mm] or
    their Laplacian [1/mm^2] on the periodic padded grid. Two transforms. The map is a smooth one: the penalty takes
    contrast from it where the kernel is small, so that deep grey matter comes out lower
    than by `tkd`.

    Parameters
    ----------
    local_field, mask, voxel_size, b0_dir : field [ppm], where it is known, spacing [mm], direction; see `door.linear`.
    regulariser : `identity`, `gradient` or `laplacian`. The gradient spares the largest structures, where the
        field has no noise, and is the choice of Bilgic 2014.
    weight : of the penalty [1, mm^2 or mm^4]: with 0.01, waves of 2 pi mm are halved where the kernel is 0.1, whatever
        the regulariser. The published values lie between 1e-3 and 0.1.
    extensions : how often the field outside the mask is put to that of the sources found so far (see `extension`), at
        three more transforms. It takes 2 % off the error on most heads and adds 2 % on
        others (NRMSE), where the slope leaves large structures free.

    Returns
    -------
    chi : (x, y, z) [ppm], zero outside the mask; its mean is arbitrary.

    Raises
    ------
    ValueError : inputs do not fit one another or are not finite inside the mask, or the regulariser is unknown.

    References
    ----------
    Bilgic 2014, doi:10.1002/jmri.24365
    """
    check_positive(weight=weight)
    orders = dict(zip(get_args(Regulariser), range(3), strict=True))
    if regulariser not in orders:
        raise ValueError(f"regulariser is {regulariser!r}: it must be one of {', '.join(orders)}")

    def division(spectrum: Spectrum, grid: door.Grid) -> float:
        _regularise(spectrum, grid.dipole, *symbols(grid.shape, grid.size), np.float32(weight), orders[regulariser])
        return 1.0

    return _invert(*door.linear(local_field, mask, voxel_size, b0_dir), extensions, division)


def _check_threshold(threshold: float) -> None:
    if not 0 < threshold < 1 / 3:
        raise ValueError(f"threshold is {threshold}: it must lie between 0 and 1/3")


def _invert(grid: door.Grid, field: NDArray[np.float32], extensions: int, division: Division) -> Volume:
    check_extensions(extensions)
    data = KnownField(field, grid)
    for left in range(extensions, -1, -1):
        centre = division(data.spectrum, grid)
        chi = fourier.inverse(data.spectrum, grid.shape)
        chi /= np.float32(centre)
        if left:
            data.extend(chi)
    return grid.crop(chi)


def divide(spectrum: Spectrum, dipole: Volume, threshold: np.float32, even: bool) -> float:
    """Divide a half spectrum by the thresholded dipole kernel, in place.

    Parameters
    ----------
    spectrum : overwritten.
    dipole : kernel on the same half grid.
    threshold : smallest magnitude that is divided by; where the kernel is zero the result is zero.
    even : whether the last axis of the full grid has an even length.

    Returns
    -------
    The centre of the point spread function: the mean of D times its thresholded inverse over the full spectrum.
    """
    sums = np.empty(spectrum.shape[0])
    _divide(spectrum, dipole, threshold, even, sums)
    x, y, z = spectrum.shape
    centre: float = sums.sum() / (x * y * (2 * z - 1 - even))
    return centre


@spread
def _divide(spectrum: Spectrum, dipole: Volume, threshold: np.float32, even: bool, sums: Floats) -> None:
    for i in prange(spectrum.shape[0]):
        sums[i] = _divide_plane(spectrum[i], dipole[i], threshold, even)


@compiled
def _divide_plane(spectrum: Spectrum, dipole: Volume, threshold: np.float32, even: bool) -> float:
    ny, nz = spectrum.shape
    product = np.empty(nz)
    total = 0.0
    for j in range(ny):
        for m in range(nz):
            d = dipole[j, m]
            inverse = np.float32(0.0) if d == 0 else 1 / np.copysign(max(abs(d), threshold), d)
            spectrum[j, m] *= inverse
            product[m] = d * inverse
        twice = 0.0
        for m in range(1, nz - 1):
            twice += product[m]
        total += 2 * twice + product[0] + (product[nz - 1] if even else 2 * product[nz - 1])
    return total


def _truncate(spectrum: Spectrum, dipole: Volume, threshold: np.float32, even: bool) -> float:
    """Divide where the kernel reaches the threshold, in place; the share of the full spectrum that is kept."""
    kept = np.zeros(spectrum.shape[0])
    _divide_or_drop(spectrum, dipole, threshold, even, kept)
    x, y, z = spectrum.shape
    share: float = kept.sum() / (x * y * (2 * z - 1 - even))
    return share


@compiled
def _divide_or_drop(spectrum: Spectrum, dipole: Volume, threshold: np.float32, even: bool, kept: Floats) -> None:
    nx, ny, nz = spectrum.shape
    for i in range(nx):
        for j in range(ny):
            for m in range(nz):
                d = dipole[i, j, m]
                if abs(d) < threshold:
                    spectrum[i, j, m] = 0
                else:
                    spectrum[i, j, m] *= np.float32(1.0) / d
                    kept[i] += 1.0 if m == 0 or (even and m == nz - 1) else 2.0


@compiled
def _regularise(
    spectrum: Spectrum, dipole: Volume, lx: Volume, ly: Volume, lz: Volume, weight: np.float32, order: int
) -> None:
    nx, ny, nz = spectrum.shape
    for i in range(nx):
        for j in range(ny):
            lxy = lx[i] + ly[j]
            for m in range(nz):
                d, symbol = dipole[i, j, m], lxy + lz[m]
                penalty = weight if order == 0 else (weight * symbol if order == 1 else weight * symbol * symbol)
                spectrum[i, j, m] *= d / (d * d + penalty)
    spectrum[0, 0, 0] = 0
