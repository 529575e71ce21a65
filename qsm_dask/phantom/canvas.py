"""Mixing tissues into the maps of a head, voxel fractions kept."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qsm_dask.phantom.shapes import Frame, Shape, Volume, Window
from qsm_dask.phantom.tissue import Look

_EVERYWHERE: Window = (slice(None), slice(None), slice(None))


@dataclass(frozen=True)
class Canvas:
    """The maps being painted; each layer replaces the fraction of a voxel that it fills.

    Attributes
    ----------
    chi : susceptibility relative to water [ppm].
    r2star : effective transverse relaxation [1/s].
    signal : signal at echo time zero [a.u.].
    dia : magnitude of the diamagnetic part of chi [ppm].
    label : number of the last layer that filled most of the voxel when it was painted.
    share : fraction of the voxel that this layer still fills.
    """

    chi: Volume
    r2star: Volume
    signal: Volume
    dia: Volume
    label: NDArray[np.int32]
    share: Volume

    @classmethod
    def blank(cls, shape: tuple[int, int, int], chi: float = 0.0) -> "Canvas":
        """A canvas without signal, of uniform susceptibility [ppm]."""
        return cls(
            np.full(shape, chi, np.float32),
            np.zeros(shape, np.float32),
            np.zeros(shape, np.float32),
            np.zeros(shape, np.float32),
            np.zeros(shape, np.int32),
            np.zeros(shape, np.float32),
        )

    def blend(self, fraction: Volume, look: Look, label: int = 0, window: Window = _EVERYWHERE) -> None:
        """Replace `fraction` of each voxel of `window`."""
        for plane, value in zip((self.chi, self.r2star, self.signal, self.dia), look, strict=True):
            view = plane[window]
            view += fraction * (np.float32(value) - view)
        share = self.share[window]
        share *= 1.0 - fraction
        mostly = fraction > 0.5
        self.label[window][mostly] = label
        share[mostly] = fraction[mostly]

    def paint(self, frame: Frame, shapes: Iterable[Shape], look: Look, label: int = 0) -> None:
        """Fill shapes one after the other."""
        for shape in shapes:
            window = frame.window(shape.bounds)
            if window is not None:
                self.blend(frame.occupancy(shape, window), look, label, window)

    def majority(self) -> NDArray[np.int32]:
        """The label of each voxel that its layer fills by more than half, else 0."""
        return np.where(self.share > 0.5, self.label, 0).astype(np.int32)
