"""Total variation with any data term that is a sum over voxels, by a second splitting of ADMM.

Minimises  sum T(D chi) + weight * sum |grad chi|  with the field as a phase [rad]. Beside the slopes (`admm`) the field
y = D chi is split off, so that the data term is solved voxel by voxel: y = argmin T(y) + penalty / 2 (y - D chi - u)^2.
Outside the mask there is no data, y is D chi itself and the dual u is zero. Four transforms an iteration.
"""

from collections.abc import Callable

import numpy as np

from qsm_dask.kernels import fourier
from qsm_dask.kernels.fourier import Spectrum, Volume
from qsm_dask.kernels.inversion.admm import Schedule, Symbols, minimise
from qsm_dask.kernels.inversion.door import Grid
from qsm_dask.kernels.inversion.wrapped import WrappedField
from qsm_dask.kernels.jit import compiled
from qsm_dask.kernels.solved import Solved

Fit = Callable[[Volume, Volume, Volume, Volume, np.float32], None]
"""(field, dual, phase, weight, penalty): one step of the splitting, in place where the weight is not zero.

The padded field holds D chi and becomes y minus the new dual, which is what D chi shall be.
"""


class SplitField:
    """The splitting of D chi; called, it makes the spectrum of the next chi.

    Attributes
    ----------
    fit : the data term; may be exchanged between runs.
    weight : of each voxel in it, squared or not as the term takes it; may be exchanged too.
    penalty : of the splitting, in the units of the data term per rad^2.
    wanted : spectrum of what D chi shall be.
    """

    def __init__(self, grid: Grid, data: WrappedField, fit: Fit, penalty: float, start: Volume | None = None) -> None:
        """Split the field of the first chi.

        Parameters
        ----------
        grid : where.
        data : phase and weights.
        fit : the data term.
        penalty : of the splitting, in the units of the data term per rad^2.
        start : first chi on the padded grid [rad]; no sources if not given.
        """
        self.fit, self.weight = fit, data.weight
        self._grid, self._phase, self.penalty = grid, data.phase, np.float32(penalty)
        self._dual = np.zeros(grid.inside.shape, np.float32)
        field = np.zeros(grid.shape, np.float32)
        if start is not None:
            field = fourier.inverse(fourier.forward(start) * grid.dipole, grid.shape)
        self.wanted = self._take(field)

    def __call__(self, spectrum: Spectrum, symbols: Symbols, rho: float) -> None:
        """Replace the spectrum of Eᴴ(z - u) by that of chi (an `admm.Update`)."""
        _update(spectrum, self.wanted, self._grid.dipole, *symbols, np.float32(rho), self.penalty)
        self.follow(spectrum)

    def follow(self, spectrum: Spectrum) -> None:
        """Split the field of the chi that a spectrum is of."""
        del self.wanted
        self.wanted = self._take(fourier.inverse(spectrum * self._grid.dipole, self._grid.shape))

    def _take(self, field: Volume) -> Spectrum:
        self.fit(field, self._dual, self._phase, self.weight, self.penalty)
        return fourier.forward(field)


def solve(
    split: SplitField,
    grid: Grid,
    weight: float,
    rho: float,
    tolerance: float,
    iterations: int,
    start: Volume | None = None,
) -> tuple[Volume, Solved]:
    """Run ADMM.

    Parameters
    ----------
    split : of the field.
    grid : where.
    weight : of the total variation, in the units of the data term times mm/rad.
    rho : penalty of the splitting of the slopes [units of the data term * mm^2 / rad^2].
    tolerance : relative change of chi at which it has converged.
    iterations : most done.
    start : the first chi, of which `split` holds the field; overwritten; no sources if not given.

    Returns
    -------
    chi : on the padded grid [rad].
    Solved : iterations, relative change and whether it converged.
    """
    schedule = Schedule(weight, rho, False, 0, tolerance, iterations)
    # No name here for the first chi: it would outlive its use by the whole iteration.
    return minimise(np.zeros(grid.shape, np.float32) if start is None else start, None, split, grid.size, schedule)


@compiled
def _update(
    spectrum: Spectrum,
    wanted: Spectrum,
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
                spectrum[i, j, m] = (wanted[i, j, m] * (d * penalty) + spectrum[i, j, m] * rho) * (
                    one / (penalty * d * d + rho * (lxy + lz[m]))
                )
    spectrum[0, 0, 0] = 0
