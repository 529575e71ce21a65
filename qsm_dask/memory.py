"""What stages take beside their inputs, as multiples of volumes; a test measures that it holds."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from qsm_dask.anatomy import extraction
from qsm_dask.kernels.fluid import REACH_MM
from qsm_dask.kernels.fourier import MARGIN_MM, SOURCES_MARGIN_MM, padded_shape
from qsm_dask.quantities import MOST_T1W_VOXELS
from qsm_dask.scan import Geometry

FLOAT = 4

NETWORK_BYTES = 1370 * 2**20
"""Of torch and the activations of the network of `mask.deepbet`."""


def volumes(
    native: float = 0.0, *, padded: float = 0.0, series: float = 0.0, margin_mm: float = MARGIN_MM
) -> Callable[[Geometry, Mapping[str, Any]], int]:
    """The peak of a stage in float32 volumes.

    Parameters
    ----------
    native : volumes of the scan's own matrix.
    padded : volumes of the matrix padded by `margin_mm` to a fast size.
    series : echo series of the scan's own matrix.
    margin_mm : margin [mm] of the padded matrix.
    """

    def peak(geometry: Geometry, parameters: Mapping[str, Any]) -> int:
        del parameters
        grid = math.prod(padded_shape(geometry.shape, geometry.voxel_size, margin_mm))
        return int(FLOAT * (geometry.voxels * (native + series * geometry.echoes) + padded * grid))

    return peak


# --- phase: masks, offsets, unwrapping -------------------------------------------------


def closed_labels(geometry: Geometry, parameters: Mapping[str, Any]) -> int:
    """`mask.segmentation` closes gaps on an image widened by twice their width; without that it holds a few masks."""
    closing = parameters["closing_mm"]
    if not closing > 0.0:
        return int(FLOAT * geometry.voxels * (1.1 if parameters["leave_out"] else 0.8))
    grid = zip(geometry.shape, geometry.voxel_size, strict=True)
    return int(FLOAT * 2.05 * math.prod(n + 4 * math.ceil(closing / size) + 2 for n, size in grid))


def coil_combination(geometry: Geometry, parameters: Mapping[str, Any]) -> int:
    """`coils.mcpc3ds` unwraps one volume, or holds two sums of a series, one coil's two echoes and six volumes.

    How many coils there are does not matter. The two volumes in which coils arrive are counted.
    """
    del parameters
    return int(FLOAT * geometry.voxels * max(10.8, 2 * geometry.echoes + 11.8))


def offset_removal(geometry: Geometry, parameters: Mapping[str, Any]) -> int:
    """`offset.mcpc3ds` unwraps one volume, before it holds a series without offset."""
    del parameters
    return int(FLOAT * geometry.voxels * max(8.8, geometry.echoes + 2.2))


def readout_removal(geometry: Geometry, parameters: Mapping[str, Any]) -> int:
    """`offset.bipolar` holds one complex volume, before it holds a series."""
    del parameters
    return int(FLOAT * geometry.voxels * max(2.2, geometry.echoes + 0.2))


def spanning_tree(geometry: Geometry, parameters: Mapping[str, Any]) -> int:
    """`unwrap.romeo` holds the result, the sorted edges of one echo and, unwrapping each by itself, orders of visit."""
    scratch = 6.8 if parameters["mode"] == "individual" else 5.8
    return int(FLOAT * geometry.voxels * (geometry.echoes + scratch))


# --- fields: background, inversion, reference ------------------------------------------

# Memory that is freed in pieces too small for the next volume adds about a tenth to what these hold at once.

division = volumes(padded=3.6)
"""`inversion.tkd`, `tsvd` and `tikhonov` hold a spectrum, half a kernel, the map (all padded) and its crop: 3.2."""

total_variation = volumes(padded=9.0)
"""`inversion.tv` and `inversion.rts` hold three duals, two maps, two spectra and the kernel's half: 7.5 volumes."""

split_field = volumes(3.2, padded=8.6)
"""`inversion.l1` and `hdqsm` hold what `tv` does, but phase, weights and a dual, no spectrum of data."""


def split_slopes(geometry: Geometry, parameters: Mapping[str, Any]) -> int:
    """`inversion.fansi` holds what `l1` does; with TGV also slopes, what two shrinkages keep, and three spectra."""
    more = 14.5 if parameters["regularisation"] == "tgv" else 0.0
    return volumes(3.2, padded=8.6 + more)(geometry, parameters)


split_rest = volumes(4.2, padded=10.0)
"""`inversion.whqsm` holds what `fansi` does, with a spectrum and a dual of the rest's Laplacian."""

two_levels = volumes(2.0, padded=9.0)
"""`inversion.star` holds what `tv` does, with the strong sources and the field they leave."""

streak_removal = volumes(padded=12.5)
"""`inversion.ilsqr` holds the map, three weights, five volumes of the solver with a spectrum, and two half kernels."""


def morphology(geometry: Geometry, parameters: Mapping[str, Any]) -> int:
    """`inversion.medi` holds three weights of slopes, six spectra, three volumes, phase, weights, fluid."""
    return volumes(3.1 if parameters["csf_weight"] else 2.2, padded=15.0)(geometry, parameters)


two_sources = volumes(padded=18.0)
"""`separation.*` holds eight duals, two maps, what two more shall be, four spectra and the kernel's half: 16.5."""

descent = volumes(3.3, padded=3.8)
"""`inversion.ndi` holds phase, weights, the map, a volume, a spectrum and half a kernel."""


def primal_dual(geometry: Geometry, parameters: Mapping[str, Any]) -> int:
    """`inversion.tgv` holds 15 variables and 5 extrapolations on a grid with a border, its data, flags and the map."""
    del parameters
    return int(FLOAT * (22.0 * math.prod(n + 2 for n in geometry.shape) + 1.8 * geometry.voxels))


whole_brain_reference = volumes(1.1)
region_reference = volumes(1.4)


def fluid_reference(geometry: Geometry, parameters: Mapping[str, Any]) -> int:
    """`reference.csf` looks within a box about the middle of the brain, or holds what is labelled in float64."""
    if parameters["labels"]:
        return volumes(11.6)(geometry, parameters)
    box = (2 * REACH_MM) ** 3 / math.prod(geometry.voxel_size)
    return int(1.0 * geometry.voxels + 25.0 * min(box, geometry.voxels))


boundary_value = volumes(9.2)
"""`background.lbv` holds five volumes of the solver, 3/7 of three for its coarser grids, two fields, masks."""

smallest_field = volumes(8.2)
"""`background.harperella` holds six volumes of the solver, three sevenths of one for its coarser grids, and masks."""

inner_sources = volumes(17.5, padded=3.1)
"""`background.tfi` holds two solvers and coarser grids, three weights of slopes, a spectrum, two kernels."""

outer_dipoles = volumes(padded=6.9, margin_mm=SOURCES_MARGIN_MM)
"""`background.pdf` holds three volumes of the solver, the weights, a field, a spectrum and the kernel's half."""


def largest_sphere(geometry: Geometry, parameters: Mapping[str, Any]) -> int:
    """`background.vsharp` pads by its largest sphere; it holds a spectrum, a product, what it chose so far, depths."""
    margin_mm = max(MARGIN_MM, float(parameters["radius_mm"]))
    return volumes(3.05, padded=2.85, margin_mm=margin_mm)(geometry, parameters)


fitted_sphere = volumes(padded=6.5, margin_mm=0.0)
"""`background.ismv` and `resharp` hold three volumes of the solver, an image, a spectrum, its inverse and masks."""


# --- anatomy ---------------------------------------------------------------------------


def registration(geometry: Geometry, parameters: Mapping[str, Any]) -> int:
    """`anatomy.register` holds the template as read, stripped and as ITK has it, and sums over windows."""
    compared = _blocks(geometry, parameters["resolution_mm"])
    return int(FLOAT * (88.0 * compared + 3.7 * parameters["template"] + 1.3 * geometry.voxels))


_LARGEST_HEAD_MM3 = 2**25


def rigid_alignment(geometry: Geometry, parameters: Mapping[str, Any]) -> int:
    """`anatomy.align_t1w` holds means over blocks of both images, of a T1w of the largest matrix planned for."""
    resolution_mm = parameters["resolution_mm"]
    other = min(MOST_T1W_VOXELS, _LARGEST_HEAD_MM3 / resolution_mm**3)
    compared = _blocks(geometry, resolution_mm)
    return int(FLOAT * (0.37 * MOST_T1W_VOXELS + 1.95 * geometry.voxels + 16.0 * compared + 4.0 * other))


def _blocks(geometry: Geometry, resolution_mm: float) -> int:
    """Voxels of a scan when it is compared in blocks."""
    steps = [max(1, int(resolution_mm / size + 1e-6)) for size in geometry.voxel_size]
    return math.prod(math.ceil(n / step) for n, step in zip(geometry.shape, steps, strict=True))


def carried_labels(geometry: Geometry, parameters: Mapping[str, Any]) -> int:
    """`anatomy.labels` holds the atlas as it is read, then as labels, and the scan's with their margins, sorted."""
    return int(FLOAT * max(3.0 * parameters["atlas"], parameters["atlas"] + 4.1 * geometry.voxels))


def carried_probabilities(geometry: Geometry, parameters: Mapping[str, Any]) -> int:
    """`anatomy.probabilities` holds the atlas as it is read, or its probabilities in the scan, and labels."""
    carried = (geometry.probabilities + 4.1) * geometry.voxels
    return int(FLOAT * max(3.0 * parameters["atlas"], parameters["atlas"] + carried))


def standard_maps(geometry: Geometry, parameters: Mapping[str, Any]) -> int:
    """`anatomy.standard` holds the magnitude and six volumes of the template, and these while one is packed."""
    grid = parameters["template"]
    return int(FLOAT * max(2.4 * geometry.voxels, 1.3 * geometry.voxels + 6.5 * grid, 7.5 * grid))


_MESH = 6_000_000
"""Bytes of the surface that brain extraction grows, whatever the grid."""


def grown_surface(geometry: Geometry, parameters: Mapping[str, Any]) -> int:
    """`mask.bet` holds what its tool makes of the isotropic grid, or the positions of all voxels, beside the image."""
    step = parameters["resolution_mm"]
    lengths = zip(geometry.shape, geometry.voxel_size, strict=True)
    isotropic = math.prod(math.ceil((n * size + 2 * extraction.MARGIN_MM) / step) + 1 for n, size in lengths)
    return int(
        max(FLOAT * (12.5 * isotropic + 1.2 * geometry.voxels) + _MESH, FLOAT * (2 * isotropic + 5.1 * geometry.voxels))
    )


def network_activations(geometry: Geometry, parameters: Mapping[str, Any]) -> int:
    """`mask.deepbet` brings torch and works on a fixed grid of 256x256x256, whatever the scan."""
    del parameters
    return NETWORK_BYTES + int(FLOAT * 2.0 * geometry.voxels)
