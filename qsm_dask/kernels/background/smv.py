"""Background removal by the spherical mean value property: harmonic fields equal their mean over any sphere.

A sphere is the set of voxels whose centres it holds, weighted so that second-degree
harmonic polynomials keep their mean value on anisotropic voxels too. As it is even along every axis, its spectrum
is real and known from one octant, a sum of as many cosines as the radius has voxels: it costs
no transform and an eighth of a volume.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsm_dask.kernels import fourier
from qsm_dask.kernels.background.slow import remove_slow
from qsm_dask.kernels.distance import deeper, depth_squared, reach
from qsm_dask.kernels.doors import Mask, Vector, check_mask, check_positive, check_volume, check_voxel_size
from qsm_dask.kernels.fourier import Floats, Shape, Spectrum, Volume
from qsm_dask.kernels.jit import compiled, prange, spread


def vsharp(
    total_field: NDArray[np.float32],
    mask: NDArray[np.bool_],
    voxel_size: ArrayLike,
    /,
    *,
    radius_mm: float = 12.0,
    radius_min_mm: float = 1.0,
    radius_step_mm: float = 2.0,
    threshold: float = 0.08,
    refine: bool = True,
) -> tuple[Volume, Mask]:
    """Local field by V-SHARP: spherical mean value filtering with the largest sphere that fits at each voxel.

    The field minus its spherical mean is free of the background; what the filter took from the local
    field is restored by deconvolution with the largest sphere. Spheres shrink towards the
    surface, down to the larger of `radius_min_mm` and the longest voxel edge; voxels
    where none fits are lost. Takes three transforms and one a radius.

    Parameters
    ----------
    total_field : relative field (x, y, z) [ppm].
    mask : voxels where it is known.
    voxel_size : spacing [mm].
    radius_mm : largest radius [mm]; Ozbay 2017 finds 6 to 15 mm good, UK Biobank uses 12 mm. On three head phantoms the
        error is 31 % at 8 mm, 23 at 10, 21 at 12 and 19 at 15.
    radius_min_mm : smallest radius [mm]; at 1 mm a mask on larger voxels loses one layer. From 1 to 4 mm the error
        deeper inside is the same within 0.2 points.
    radius_step_mm : largest step between radii [mm]. Steps from 0.5 to 4 mm give the same error within 0.5 %.
    threshold : spatial frequencies where one minus the largest sphere's spectrum is below it are
        not restored. It cuts wavelengths above 2 pi radius / sqrt(10 threshold): 107 mm at the
        0.05 of Schweser 2011, 84 mm at 0.08. Between them lies half a head, where what the small
        spheres near the surface get wrong is amplified more than the local field: over six head phantoms the
        error is 27 % at 0.08, 33 % at 0.05 and 29 % at 0.1, without `refine`.
    refine : whether harmonic polynomials of the second degree are fitted to what is left and removed, in each
        component of at least 1000 voxels, as SEPIA offers after any removal. The field of sources next to the
        surface makes them; on ten head phantoms they are one to four points of an error of 20 to 30 %. In cylinders
        of the package qsm-forward the error changes by less than one point.

    Returns
    -------
    local_field : (x, y, z) [ppm], zero outside the mask.
    mask : where it is known, the given mask eroded by the smallest sphere.

    Raises
    ------
    ValueError : inputs do not fit one another, are not finite inside the mask, or the mask is
        too thin for the smallest sphere.

    References
    ----------
    Wu 2012, doi:10.1002/mrm.23000; Schweser 2011, doi:10.1016/j.neuroimage.2010.10.070;
    Ozbay 2017, doi:10.1002/nbm.3550; SEPIA's refinement, https://sepia-documentation.readthedocs.io
    """
    inside, size = check_mask(mask), check_voxel_size(voxel_size)
    field = check_volume("total_field", total_field, inside)
    check_positive(radius_mm=radius_mm, radius_min_mm=radius_min_mm, radius_step_mm=radius_step_mm, threshold=threshold)
    radii = _radii(size, radius_mm, radius_min_mm, radius_step_mm)
    box = fourier.smallest_box(inside)
    within = np.ascontiguousarray(inside[box])
    chosen, left = largest_fitting(within, size, radii)
    shape = fourier.padded_shape(within.shape, size, max(fourier.MARGIN_MM, radius_mm))
    lines = within.shape[0], within.shape[1]
    spectrum = fourier.forward(fourier.pad(field[box], within, shape))
    filtered = np.zeros(shape, np.float32)
    product = np.empty_like(spectrum)
    for index, radius in enumerate(radii):
        weigh(spectrum, product, octant(shape, size, radius))
        _collect(filtered, fourier.inverse(product, shape, lines), chosen, index)
    del spectrum, product
    restored = fourier.forward(filtered)
    del filtered
    weigh(restored, restored, octant(shape, size, radii[0], threshold))
    local = fourier.uncrop(fourier.inverse(restored, shape, lines), box, inside.shape, left)
    del restored
    if refine:
        remove_slow(local[box], left, size)
    kept = np.zeros(inside.shape, np.bool_)
    kept[box] = left
    return local, kept


def sharp(
    total_field: NDArray[np.float32],
    mask: NDArray[np.bool_],
    voxel_size: ArrayLike,
    /,
    *,
    radius_mm: float = 6.0,
    threshold: float = 0.05,
) -> tuple[Volume, Mask]:
    """Local field by SHARP: spherical mean value filtering with one sphere, and deconvolution.

    Takes four transforms.

    Parameters
    ----------
    total_field : relative field (x, y, z) [ppm].
    mask : voxels where it is known.
    voxel_size : spacing [mm].
    radius_mm : of the sphere [mm], as much as the mask loses. A small one loses less of it and amplifies more when
        long waves are restored; 6 mm is usual. On three head phantoms the error is 44 % at 4 mm, 33 at 6 and 28 at 8.
    threshold : spatial frequencies where one minus the sphere's spectrum is below it are not restored; 0.05 as Schweser
        2011. On three head phantoms the error is 27 % at 0.03, 33 at 0.05 and 38 at 0.08.

    Returns
    -------
    local_field : (x, y, z) [ppm], zero outside the mask.
    mask : where it is known, the given mask eroded by the sphere.

    Raises
    ------
    ValueError : inputs do not fit one another, are not finite inside the mask, or the mask is
        too thin for the sphere.

    References
    ----------
    Schweser 2011, doi:10.1016/j.neuroimage.2010.10.070
    """
    return vsharp(
        total_field,
        mask,
        voxel_size,
        radius_mm=radius_mm,
        radius_min_mm=radius_mm,
        threshold=threshold,
        refine=False,
    )


def _radii(voxel_size: Vector, largest: float, smallest: float, step: float) -> list[float]:
    smallest = max(smallest, *voxel_size)
    if largest < smallest:
        raise ValueError(
            f"radius_mm is {largest:g}, below the smallest sphere of {smallest:g} mm (radius_min_mm, or a voxel's edge)"
        )
    steps = math.ceil((largest - smallest) / step - 1e-9)
    return [float(radius) for radius in np.linspace(largest, smallest, steps + 1)]


def largest_fitting(mask: Mask, voxel_size: Vector, radii: list[float]) -> tuple[NDArray[np.uint8], Mask]:
    """The index of the largest of descending radii that fits at each voxel, and where the smallest does."""
    squared = depth_squared(mask, voxel_size, radii[0])
    kept = deeper(squared, radii[-1])
    if not kept.any():
        raise ValueError(f"no sphere of {radii[-1]:g} mm fits into the mask: it is too thin for this method")
    chosen = np.empty(mask.shape, np.uint8)
    _choose(squared, np.array([reach(r) for r in radii], np.float32), chosen)
    return chosen, kept


@compiled
def _choose(squared: Volume, reaches: Volume, chosen: NDArray[np.uint8]) -> None:
    flat, index = squared.ravel(), chosen.ravel()
    for n in range(flat.size):
        i = 0
        while i < reaches.size and not flat[n] > reaches[i]:
            i += 1
        index[n] = i


@spread
def _collect(filtered: Volume, difference: Volume, chosen: NDArray[np.uint8], index: int) -> None:
    for i in prange(chosen.shape[0]):
        _collect_plane(filtered[i], difference[i], chosen[i], index)


@compiled
def _collect_plane(filtered: Volume, difference: Volume, chosen: NDArray[np.uint8], index: int) -> None:
    ny, nz = chosen.shape
    for j in range(ny):
        for m in range(nz):
            mine = chosen[j, m] == index
            filtered[j, m] = difference[j, m] if mine else filtered[j, m]


def octant(shape: Shape, voxel_size: Vector, radius: float, threshold: float = 0.0) -> Volume:
    """One octant of 1 - S on the half spectrum; with a threshold of its reciprocal, zero where 1 - S is below it."""
    weights = _sphere(voxel_size, radius)
    cosines = [
        np.cos(2 * np.pi * np.outer(np.arange(count), np.arange(n // 2 + 1)) / n)
        for count, n in zip(weights.shape, shape, strict=True)
    ]
    found = np.empty([n // 2 + 1 for n in shape], np.float32)
    _fill(found, weights, cosines[0], cosines[1], cosines[2], threshold)
    return found


@spread
def weigh(spectrum: Spectrum, product: Spectrum, factor: Volume) -> None:
    """Write the product of a half spectrum and a kernel of which an octant is given; both may be one array."""
    nx = spectrum.shape[0]
    for i in prange(nx):
        plane = np.int64(i)  # an unsigned index less a signed number is a float
        _weigh_plane(spectrum[i], product[i], factor[min(plane, nx - plane)])


@compiled
def _weigh_plane(spectrum: Spectrum, product: Spectrum, factor: Volume) -> None:
    ny, nz = spectrum.shape
    for j in range(ny):
        line = factor[min(j, ny - j)]
        for m in range(nz):
            value = spectrum[j, m]
            product[j, m] = complex(value.real * line[m], value.imag * line[m])


def _sphere(voxel_size: Vector, radius: float) -> Floats:
    """The weights of one octant of a sphere, faces shared between octants counted in."""
    axes = [np.arange(math.floor(math.sqrt(reach(radius)) / size) + 1) * size for size in voxel_size]
    squares = np.meshgrid(*(axis**2 for axis in axes), indexing="ij", sparse=True)
    weights = np.array(sum(squares) <= reach(radius), dtype=np.float64)
    for axis in range(3):
        np.moveaxis(weights, axis, 0)[1:] *= 2.0
    weights /= weights.sum()
    # The mean value property of x^2 - y^2 needs equal second moments, which voxels spoil. A factor
    # quadratic in position mends them gently; moved to the next neighbours alone, the same moment
    # would double the spectrum of anisotropic voxels at its highest frequencies.
    terms = [np.ones_like(weights), *(np.broadcast_to(square, weights.shape) for square in squares)]
    gram = np.array([[float((weights * one * other).sum()) for other in terms] for one in terms])
    wanted = np.array([1.0, *np.full(3, gram[0, 1:].mean())])
    coefficients = np.linalg.lstsq(gram, wanted, rcond=None)[0]
    weights *= sum(c * term for c, term in zip(coefficients, terms, strict=True))
    return weights


@compiled
def _fill(octant: Volume, weights: Floats, cos_x: Floats, cos_y: Floats, cos_z: Floats, threshold: float) -> None:
    nx, ny, nz = octant.shape
    partial = _sum_cosines(weights, cos_y, cos_z)
    line = np.empty(nz)
    for i in range(nx):
        for j in range(ny):
            line[:] = 1.0
            for a in range(weights.shape[0]):
                for m in range(nz):
                    line[m] -= cos_x[a, i] * partial[a, j, m]
            for m in range(nz):
                restored = 1.0 / line[m] if abs(line[m]) >= threshold else 0.0
                octant[i, j, m] = line[m] if threshold == 0.0 else restored


@compiled
def _sum_cosines(weights: Floats, cos_y: Floats, cos_z: Floats) -> Floats:
    """The sums over the last two axes of a sphere's octant; the first is left to the caller."""
    partial = np.zeros((weights.shape[0], cos_y.shape[1], cos_z.shape[1]))
    line = np.empty(cos_z.shape[1])
    for a in range(weights.shape[0]):
        for b in range(weights.shape[1]):
            line[:] = 0.0
            for c in range(weights.shape[2]):
                for m in range(line.size):
                    line[m] += weights[a, b, c] * cos_z[c, m]
            for j in range(cos_y.shape[1]):
                for m in range(line.size):
                    partial[a, j, m] += cos_y[b, j] * line[m]
    return partial
