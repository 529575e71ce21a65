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
from scipy import ndimage

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

CACHE_BYTES = 64 * 2**20
"""Bytes of spectra that a process keeps between calls: three dipole kernels of a head at 1 mm.

Workers are sized with them. They save little: a dipole kernel costs 0.05 to 0.1 `rfftn` of its
grid, 2 % of TKD and less than 1 % of RTS; the sampled kernel of PDF costs 2 `rfftn`, 1 % of PDF.
"""


def padded_shape(shape: Shape, voxel_size: Vector, margin_mm: float) -> Shape:
    """The grid with at least `margin_mm` [mm] behind every axis whose transform is fast.

    Lengths are products of 2, 3 and 5, for which real and complex transforms are fast.
    """
    x, y, z = (
        int(scipy.fft.next_fast_len(n + math.ceil(margin_mm / size), real=True))
        for n, size in zip(shape, voxel_size, strict=True)
    )
    return x, y, z


def smallest_box(mask: Mask) -> Box:
    """The smallest box of the array that holds a mask: what lies outside it need not be transformed."""
    x, y, z = ndimage.find_objects(mask.astype(np.int8))[0]
    return x, y, z


def uncrop(part: Volume, box: Box, shape: tuple[int, ...]) -> Volume:
    """A volume of the given shape with a part in its box, zero elsewhere."""
    volume = np.zeros(shape, np.float32)
    volume[box] = part
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


def inverse(spectrum: Spectrum, shape: Shape) -> Volume:
    """The real volume of a half spectrum, which is overwritten.

    Two transforms in place of `irfftn`: that one copies the spectrum first, which costs a
    third more memory and time.
    """
    planes = scipy.fft.ifftn(spectrum, axes=(0, 1), overwrite_x=True)
    volume: Volume = scipy.fft.irfft(planes, n=shape[2], axis=2, overwrite_x=True)
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
