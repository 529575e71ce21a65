"""Morphology enabled dipole inversion."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsm_dask.kernels import fourier, series
from qsm_dask.kernels.doors import Mask, check_positive
from qsm_dask.kernels.fluid import REACH_MM, ventricles
from qsm_dask.kernels.fourier import Floats, Spectrum, Volume
from qsm_dask.kernels.inversion import door
from qsm_dask.kernels.inversion.admm import symbols
from qsm_dask.kernels.inversion.wrapped import WrappedField, mismatch
from qsm_dask.kernels.jit import compiled
from qsm_dask.kernels.slopes import Edges, curvature, find_edges, per_mm2, reweigh
from qsm_dask.kernels.solved import Solved

_FLAT = 1e-6
"""Added to the squared slopes [rad^2/mm^2] under the root, so that the absolute value can be differentiated."""


def medi(
    local_field: NDArray[np.float32],
    mask: NDArray[np.bool_],
    voxel_size: ArrayLike,
    b0_dir: ArrayLike,
    b0: ArrayLike,
    te: ArrayLike,
    magnitude: NDArray[np.float32] | None = None,
    field_noise: NDArray[np.float32] | None = None,
    r2star: NDArray[np.float32] | None = None,
    /,
    *,
    fidelity: float = 1000.0,
    edge_fraction: float = 0.3,
    csf_weight: float = 0.0,
    csf_r2star: float = 5.0,
    cg_tolerance: float = 0.01,
    cg_iterations: int = 100,
    tolerance: float = 0.1,
    max_iterations: int = 10,
) -> tuple[Volume, Solved]:
    """Susceptibility whose edges are those of the magnitude image.

    Minimises  fidelity * |W [exp(i D chi) - exp(i phase)]|^2 + |M grad chi|_1  with the field as a phase (see
    `wrapped`), chi in radians and slopes in rad/mm. M leaves out the strongest edges of the magnitude and the
    surface of the mask. Gauss-Newton; each step by conjugate gradients, of four transforms an iteration, as chi is
    kept in k-space.
    With `csf_weight` (MEDI+0) the term  csf_weight * |chi - mean|^2  over the fluid of the ventricles is added. The
    mean is the fluid's own, and becomes the map's zero: shadows that reach the ventricles are taken off.
    It gains from edges of the magnitude that are those of chi, and phantoms share all of them.

    Parameters
    ----------
    local_field, mask, voxel_size, b0_dir : field [ppm], where it is known, spacing [mm], direction; see `door.linear`.
    b0, te, magnitude, field_noise : what makes it a phase [T, s] and gives the weights W; see `door.wrapped`. The
        magnitude has the edges too: without it only the mask's surface is one.
    r2star : where the fluid is (x, y, z) [1/s]; read if `csf_weight` is not 0.
    fidelity : weight of the data [1/(rad mm)]; 1000 as Liu 2012, with the phase of one echo spacing. On two head
        phantoms with an SNR of 100 the error is 18 % at 300, 13 at 1000 and 12 at 3000.
    edge_fraction : share of the slopes inside the mask that count as edges; 0.3 as Liu 2012. On the same heads, whose
        edges all are susceptibility's, the error is 17 % at 0.2, 13 at 0.3 and 12 at 0.4.
    csf_weight : how uniform the fluid shall be [1/(rad mm)]; 0 leaves the term out, Liu 2018 takes 100.
    csf_r2star : largest R2* of fluid [1/s]; 5 as Liu 2018.
    cg_tolerance : residual of a step's equations relative to their right-hand side; 0.01 as the authors' toolbox. From
        0.003 to 0.1 the error on two head phantoms is the same within 0.2 points; 0.1 takes a third of the time.
    cg_iterations : most of each step; 100 as the authors' toolbox.
    tolerance : relative change of chi at which it has converged; 0.1 as the authors' toolbox. With 0.03 a fourth step
        takes half a point off the error.
    max_iterations : most Gauss-Newton steps; 10 as the authors' toolbox. Heads take three.

    Returns
    -------
    chi : (x, y, z) [ppm], zero outside the mask; its mean is arbitrary, or that of the fluid zero.
    Solved : Gauss-Newton steps, relative change and whether it converged.

    Raises
    ------
    ValueError : inputs do not fit one another or are not finite inside the mask, or there is no fluid to be found.

    References
    ----------
    Liu 2012, doi:10.1016/j.neuroimage.2011.08.082; Liu 2013, doi:10.1002/mrm.24272; Liu 2018, doi:10.1002/mrm.26946
    """
    check_positive(fidelity=fidelity, cg_tolerance=cg_tolerance, cg_iterations=cg_iterations)
    check_positive(tolerance=tolerance, max_iterations=max_iterations)
    if not 0 <= edge_fraction < 1:
        raise ValueError(f"edge_fraction is {edge_fraction}: it must be at least 0 and below 1")
    if not (0 <= csf_weight < math.inf and csf_r2star > 0):
        raise ValueError(f"csf_weight is {csf_weight} and csf_r2star {csf_r2star}: no negative weight, a positive R2*")
    if csf_weight and r2star is None:
        raise ValueError("csf_weight needs r2star, which tells where the fluid is: compute it first")
    grid, data = door.wrapped(local_field, mask, voxel_size, b0_dir, b0, te, magnitude, field_noise)
    fluid = None
    if r2star is not None:
        series.volume("r2star", r2star, grid.inside)
    if csf_weight and r2star is not None:
        fluid = ventricles(r2star, grid.inside, grid.size, csf_r2star)
        if not fluid.any():
            raise ValueError(
                f"r2star is below {csf_r2star} 1/s nowhere within {REACH_MM:g} mm of the mask's centroid: raise "
                "csf_r2star, or set csf_weight to 0"
            )
    image = None
    if magnitude is not None:
        image = np.linalg.norm(series.echoes("magnitude", magnitude, series.echo_times(te), grid.inside), axis=0)
    edges = find_edges(image, grid.inside, grid.shape, grid.size, edge_fraction)
    del image
    step = _Step(data, edges, grid, fidelity, fluid, csf_weight)
    chi = np.zeros(fourier.half_shape(grid.shape), np.complex64)
    change, done = math.inf, 0
    while done < max_iterations and change > tolerance:
        change_of_chi = step.solve(chi, cg_tolerance, cg_iterations)
        chi += change_of_chi
        norm = math.sqrt(step.dot(chi, chi))
        change = math.sqrt(step.dot(change_of_chi, change_of_chi)) / norm if norm else 0.0
        done += 1
    volume = fourier.inverse(chi, grid.shape)
    if fluid is not None:
        x, y, z = fluid.shape
        volume -= np.float32(volume[:x, :y, :z][fluid].mean(dtype=np.float64))
    return grid.crop(volume, data.scale), Solved(done, change, change <= tolerance)


class _Step:
    """The linear equations of one Gauss-Newton step, in k-space."""

    def __init__(
        self,
        data: WrappedField,
        edges: Edges,
        grid: door.Grid,
        fidelity: float,
        fluid: Mask | None,
        csf_weight: float,
    ) -> None:
        self._data, self._edges, self._dipole, self._shape = data, edges, grid.dipole, grid.shape
        self._factor = np.float32(2 * fidelity)
        self._fluid, self._csf_factor = fluid, np.float32(2 * csf_weight)
        self._per_mm2 = per_mm2(grid.size)
        self._symbols = symbols(grid.shape, grid.size)
        self._sums = np.zeros(grid.shape[0])

    def dot(self, a: Spectrum, b: Spectrum) -> float:
        """The scalar product over the full spectrum."""
        _dot(a, b, self._shape[2] % 2 == 0, self._sums)
        return float(self._sums.sum())

    def solve(self, chi: Spectrum, tolerance: float, iterations: int) -> Spectrum:
        """The change of chi."""
        slopes = np.empty((3, *self._shape), np.float32)
        volume = fourier.inverse(chi.copy(), self._shape)
        mean = reweigh(volume, self._edges, self._data.weight, self._per_mm2, np.float32(_FLAT), slopes)
        del volume
        residual = self._apply(chi, slopes, linear=False)
        np.negative(residual, out=residual)
        scaled = self._precondition(residual, mean)
        direction, change = scaled.copy(), np.zeros_like(chi)
        rho, first = self.dot(residual, scaled), self.dot(residual, residual)
        for _ in range(iterations):
            if not first or self.dot(residual, residual) <= tolerance**2 * first:
                break
            image = self._apply(direction, slopes, linear=True)
            length = np.float32(rho / self.dot(direction, image))
            change += length * direction
            residual -= length * image
            scaled = self._precondition(residual, mean)
            before, rho = rho, self.dot(residual, scaled)
            direction *= np.float32(rho / before)
            direction += scaled
        return change

    def _apply(self, x: Spectrum, slopes: Volume, *, linear: bool) -> Spectrum:
        field = fourier.inverse(x * self._dipole, self._shape)
        if linear:
            _weigh(field, self._data.weight, self._factor)
        else:
            mismatch(field, self._data.phase, self._data.weight, self._factor, self._sums)
        image = fourier.forward(field)
        fourier.weigh(image, self._dipole)
        volume = fourier.inverse(x.copy(), self._shape)
        curvature(volume, slopes, self._per_mm2, field)
        if self._fluid is not None:
            i, j, m = self._fluid.shape
            values = volume[:i, :j, :m][self._fluid]
            values -= np.float32(values.mean(dtype=np.float64))
            field[:i, :j, :m][self._fluid] += self._csf_factor * values
        del volume
        image += fourier.forward(field)
        image[0, 0, 0] = 0
        return image

    def _precondition(self, x: Spectrum, mean: float) -> Spectrum:
        lx, ly, lz = self._symbols
        symbol = lx[:, None, None] + ly[:, None] + lz
        symbol *= np.float32(mean)
        symbol += self._factor * self._dipole**2
        symbol[0, 0, 0] = 1
        scaled: Spectrum = x / symbol
        return scaled


@compiled
def _weigh(field: Volume, weight: Volume, factor: np.float32) -> None:
    nx, ny, nz = weight.shape
    field[nx:] = 0
    field[:, ny:] = 0
    field[:, :, nz:] = 0
    for i in range(nx):
        for j in range(ny):
            for m in range(nz):
                field[i, j, m] *= factor * weight[i, j, m]


@compiled
def _dot(a: Spectrum, b: Spectrum, even: bool, sums: Floats) -> None:
    nx, ny, nz = a.shape
    for i in range(nx):
        total = 0.0
        for j in range(ny):
            for m in range(nz):
                p, q = a[i, j, m], b[i, j, m]
                product = np.float64(p.real) * q.real + np.float64(p.imag) * q.imag
                total += product if m == 0 or (even and m == nz - 1) else 2 * product
        sums[i] = total
