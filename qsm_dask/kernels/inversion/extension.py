"""What the field is outside the mask, where it was not measured: the field of the sources inside.

An inversion in k-space takes the field as known everywhere. Zeros outside the mask are the
largest error of its data: they cut off the field of every source near the surface. So once
the solver has a first idea of the sources, what their field would be outside the mask replaces the zeros, and
again as the idea improves. This is the expectation step for the missing data of a fidelity
that is weighted by the mask, at three transforms a time instead of two more in every iteration.
Two of them take TV from 27 to 21 % and RTS from 31 to 28 % on head phantoms at SNR 100 (NRMSE).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from qsm_dask.kernels import fourier
from qsm_dask.kernels.fourier import Spectrum, Volume
from qsm_dask.kernels.inversion.door import Grid

EVERY = 2
"""Iterations between extensions. ADMM needs them to settle: extended in each, the map may diverge."""


class KnownField:
    """The data of an inversion: a field that is known inside a mask, on a padded grid.

    Attributes
    ----------
    spectrum : of the field, zero outside the mask until it is extended; after `prepare`.
    """

    spectrum: Spectrum

    def __init__(
        self,
        field: NDArray[np.float32],
        grid: Grid,
        prepare: Callable[[Spectrum], None] | None = None,
    ) -> None:
        """Take the field as it is.

        Parameters
        ----------
        field : relative field (x, y, z) [ppm].
        grid : where it is known, and what the transforms need.
        prepare : done in place to each spectrum before it is used.
        """
        self._field, self._grid, self._prepare = field, grid, prepare
        self._take(fourier.pad(field, grid.inside, grid.shape))

    def extend(self, chi: Volume) -> None:
        """Put the field of the sources inside the mask outside it.

        Parameters
        ----------
        chi : susceptibility on the padded grid [ppm].
        """
        inside = self._grid.inside
        x, y, z = inside.shape
        del self.spectrum
        spectrum = fourier.forward(fourier.pad(chi[:x, :y, :z], inside, self._grid.shape))
        fourier.weigh(spectrum, self._grid.dipole)
        field = fourier.inverse(spectrum, self._grid.shape)
        del spectrum
        np.copyto(field[:x, :y, :z], self._field, where=inside, casting="unsafe")
        self._take(field)

    def _take(self, field: Volume) -> None:
        self.spectrum = fourier.forward(field)
        if self._prepare is not None:
            self._prepare(self.spectrum)
