"""Grids, real transforms and the cache of spectra: every size and every plan is chosen here.

Volumes are float32 and spectra complex64 on the half grid of `scipy.fft.rfftn`. A volume
sits in the low corner of its padded grid; as the grid is periodic, the margin behind it
separates it from its own images on both sides.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from qsm_dask.kernels import series
from qsm_dask.kernels.doors import Mask, Vector
from qsm_dask.kernels.jit import compiled, prange, spread

Shape = tuple[int, int, int]
Box = tuple[slice, slice, slice]
Volume = NDArray[np.float32]
Floats = NDArray[np.float64]
Spectrum = NDArray[np.complex64]

MARGIN_MM = 20.0
"""Zeros behind each axis [mm] that kernels ask for.

A mask that fills its array then stands this far from its images; TKD on a head cropped to its mask
loses 1.5 % (NRMSE) without a margin, 0.2 % with this one, and as little with any larger.
"""

SOURCES_MARGIN_MM = 60.0
"""Room that `background.pdf` leaves for sources beyond the smallest box of the mask [mm]: skull, sinuses, neck.

With 40 mm the error on head phantoms is up to three points higher; with 67 to 100 mm it is the same within 0.3.
"""

CACHE_BYTES = 64 * 2**20
"""Bytes of spectra that a process keeps between calls: three dipole kernels of a head at 1 mm.

Workers are sized with them. They save little: a dipole kernel costs 0.05 to 0.1 `rfftn` of its
grid, 2 % of TKD and less than 1 % of RTS; the sampled kernel of PDF costs 2 `rfftn`, 1 % of PDF.
"""


def padded_shape(shape: Shape, voxel_size: Vector, margin_mm: float) -> Shape:
    """The grid with at least `margin_mm` [mm] behind every axis whose transform is fast.

    Lengths are products of 2, 3 and 5, for which real and complex transforms are fast.
    """
    x, y, z = (fast_length(n + math.ceil(margin_mm / size)) for n, size in zip(shape, voxel_size, strict=True))
    return x, y, z


def fast_length(length: int) -> int:
    """The least length from this one on whose real transforms, cosine transforms among them, are fast."""
    return int(scipy.fft.next_fast_len(length, real=True))


def smallest_box(mask: Mask) -> Box:
    """The smallest box of the array that holds a mask: what lies outside it need not be transformed."""
    planes, rows, columns = (np.zeros(length, np.bool_) for length in mask.shape)
    _shadows(series.inside(mask), planes, rows, columns)
    x, y, z = (slice(int(a.argmax()), int(a.size - a[::-1].argmax())) for a in (planes, rows, columns))
    return x, y, z


@compiled
def _shadows(mask: Mask, planes: Mask, rows: Mask, columns: Mask) -> None:
    """What the mask has along each axis; without branches in a row, so that it runs at the speed of memory."""
    nx, ny, nz = mask.shape
    for i in range(nx):
        for j in range(ny):
            row = mask[i, j]
            found = False
            for m in range(nz):
                found |= row[m]
                columns[m] |= row[m]
            planes[i] |= found
            rows[j] |= found


def uncrop(part: Volume, box: Box, shape: tuple[int, ...], mask: Mask | None = None) -> Volume:
    """A volume of the given shape with a part in its box, zero elsewhere.

    Parameters
    ----------
    part : of the box; with a mask also a grid whose low corner the box is.
    box : where it belongs.
    shape : of the whole.
    mask : of the box's shape: only what lies inside it is taken.
    """
    volume = np.zeros(shape, np.float32)
    x, y, z = volume[box].shape
    np.copyto(volume[box], part[:x, :y, :z], where=True if mask is None else mask)
    return volume


def half_shape(shape: Shape) -> Shape:
    """The shape of the half spectrum of a real volume."""
    return shape[0], shape[1], shape[2] // 2 + 1


def pad(volume: NDArray[Any], mask: Mask, shape: Shape) -> Volume:
    """The volume inside its mask, zero elsewhere, in the low corner of a grid of `shape`."""
    padded = np.zeros(shape, np.float32)
    x, y, z = mask.shape
    np.copyto(padded[:x, :y, :z], volume, where=mask, casting="unsafe")
    return padded


def crop(padded: Volume, mask: Mask) -> Volume:
    """A new volume of the mask's shape: the low corner of the grid inside the mask, zero elsewhere."""
    volume = np.zeros(mask.shape, np.float32)
    x, y, z = mask.shape
    np.copyto(volume, padded[:x, :y, :z], where=mask)
    return volume


def forward(volume: Volume) -> Spectrum:
    """The half spectrum of a real volume."""
    spectrum: Spectrum = scipy.fft.rfftn(volume)
    return spectrum


def inverse(spectrum: Spectrum, shape: Shape, lines: tuple[int, int] | None = None) -> Volume:
    """The real volume of a half spectrum, which is overwritten.

    Two transforms in place of `irfftn`: that one copies the spectrum first, which costs a
    third more memory and time.

    Parameters
    ----------
    spectrum : overwritten.
    shape : of the volume.
    lines : how many along the first two axes are wanted, from the low corner; all of them by default.
    """
    planes = scipy.fft.ifftn(spectrum, axes=(0, 1), overwrite_x=True)
    if lines is not None:
        planes = planes[: lines[0], : lines[1]]
    volume: Volume = scipy.fft.irfft(planes, n=shape[2], axis=2, overwrite_x=True)
    return volume


def cosine(volume: Volume) -> Volume:
    """The cosine transform of a real volume whose slope is zero at its faces; the volume is overwritten."""
    transformed: Volume = scipy.fft.dctn(volume, overwrite_x=True)
    return transformed


def inverse_cosine(transformed: Volume) -> Volume:
    """The volume of a cosine transform, which is overwritten."""
    volume: Volume = scipy.fft.idctn(transformed, overwrite_x=True)
    return volume


@spread
def weigh(spectrum: Spectrum, kernel: Volume) -> None:
    """Multiply a half spectrum by a real kernel on the same grid, in place."""
    for i in prange(spectrum.shape[0]):
        _weigh_plane(spectrum[i], kernel[i])


@compiled
def _weigh_plane(spectrum: Spectrum, kernel: Volume) -> None:
    for j in range(spectrum.shape[0]):
        for m in range(spectrum.shape[1]):
            spectrum[j, m] *= kernel[j, m]


def weighed(spectrum: Spectrum, kernel: Volume) -> Spectrum:
    """A half spectrum times a real kernel on the same grid, in an array of its own."""
    result = spectrum.copy()
    weigh(result, kernel)
    return result


def frequencies(shape: Shape, voxel_size: Vector) -> tuple[Floats, Floats, Floats]:
    """Frequencies [1/mm] of the half spectrum along each axis."""
    return (
        scipy.fft.fftfreq(shape[0], voxel_size[0]),
        scipy.fft.fftfreq(shape[1], voxel_size[1]),
        scipy.fft.rfftfreq(shape[2], voxel_size[2]),
    )


class SpectrumCache:
    """Read-only spectra of recent geometries, the least recently used dropped first.

    A spectrum is computed the same way whether or not it is kept, so that results have
    the same bits with a limit of zero.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[Hashable, NDArray[Any]] = OrderedDict()

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        return sum(array.nbytes for array in tuple(self._kept.values()))

    def get(self, key: Hashable, compute: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """The array of `key`, computed if it is not held. It cannot be written to."""
        found = self._kept.pop(key, None)
        if found is None:
            found = compute()
            found.flags.writeable = False
        if found.nbytes <= self._limit:
            self._kept[key] = found
        while self.nbytes > self._limit:
            self._kept.popitem(last=False)
        return found


spectra = SpectrumCache(CACHE_BYTES)
"""The one cache of the process."""
