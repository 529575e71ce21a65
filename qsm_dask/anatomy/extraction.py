"""Brain extraction from the magnitude, by tools of others."""

import contextlib
import warnings
from importlib import import_module
from io import StringIO
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qsm_dask.kernels.doors import check_positive, check_voxel_size
from qsm_dask.kernels.resample import sample

Real = NDArray[np.float32]
Mask = NDArray[np.bool_]

MARGIN_MM = 26.0
"""Empty space around the image: rays of the tool, 20 mm long, read what lies beyond the array without a check."""


def bet(
    magnitude: Real,
    voxel_size: ArrayLike,
    /,
    *,
    fraction: float = 0.8,
    resolution_mm: float = 2.0,
    iterations: int = 600,
) -> Mask:
    """Find the brain by a surface that grows until the magnitude falls, as FSL's BET does.

    The wheel `brainextractor` (MIT) is run on the root mean square over echoes, on an isotropic grid. It is a smooth
    surface: follow with `mask.phase_quality`, which takes veins, sinuses and the orbits out.

    Parameters
    ----------
    magnitude : (echo, x, y, z).
    voxel_size : spacing [mm].
    fraction : of the local brightness at which the brain ends; smaller gives a larger brain. Gradient echoes set
        brain and what surrounds it less apart than T1-weighted images, for which 0.5 is usual: on a real 3 T head 0.5
        took scalp and neck in, 0.8 followed the brain.
    resolution_mm : voxels of the isotropic grid [mm]; the surface is no finer than its 2562 points.
    iterations : steps of the surface. On a real 3 T head the mask differs from that of the tool's own 1000 steps by
        less than 1 % (Dice 0.993), in 0.6 of the time; 300 are too few (0.90).

    Returns
    -------
    bool (x, y, z).

    Raises
    ------
    ValueError : the magnitude is zero throughout or not finite, a parameter is not positive, the tool is not
        installed, or it finds no brain.

    References
    ----------
    Smith 2002, doi:10.1002/hbm.10062
    """
    size = check_voxel_size(voxel_size)
    check_positive(fraction=fraction, resolution_mm=resolution_mm, iterations=iterations)
    image = _root_mean_square(magnitude)
    if not (np.isfinite(image).all() and image.max() > 0.0):
        raise ValueError("magnitude is zero throughout, or NaN: there is no brain to find")
    lengths = [(n - 1) * length + 2 * MARGIN_MM for n, length in zip(image.shape, size, strict=True)]
    shape = [int(np.ceil(length / resolution_mm)) + 1 for length in lengths]
    grid = np.diag([resolution_mm, resolution_mm, resolution_mm, 1.0])
    grid[:3, 3] = -MARGIN_MM
    isotropic = sample(image, np.diag([*size, 1.0]), _positions(shape, grid))
    brain = _extracted(isotropic, resolution_mm, fraction, iterations)
    found: Mask = sample(brain, grid, _positions(image.shape, np.diag([*size, 1.0]))) > 0.5
    found &= image > 0.0
    if not found.any():
        raise ValueError(f"fraction is {fraction}: the tool found no brain; make it smaller")
    return found


def _root_mean_square(magnitude: Real) -> Real:
    """Over echoes, one after the other: their squares are never all held."""
    image = np.zeros(magnitude.shape[1:], np.float32)
    for echo in magnitude:
        image += np.square(echo, dtype=np.float32)
    image /= np.float32(len(magnitude))
    return np.sqrt(image, out=image)


def _positions(shape: Any, affine: NDArray[np.float64]) -> Real:
    index = np.ix_(*(np.arange(n) for n in shape))
    found = np.empty((3, *shape), dtype=np.float32)
    for axis in range(3):
        found[axis] = affine[axis, axis] * index[axis] + affine[axis, 3]
    return found


def _extracted(image: Real, spacing_mm: float, fraction: float, iterations: int) -> Real:
    """Run the tool, which wants an image as nibabel has it and prints a line a step."""
    try:
        tool: Any = import_module("brainextractor")
    except ImportError as error:
        raise ValueError("mask.bet needs brainextractor: install qsm-dask[anatomy]") from error
    given = SimpleNamespace(
        header={"pixdim": np.array([1.0, spacing_mm, spacing_mm, spacing_mm])},
        shape=image.shape,
        get_fdata=lambda: image.astype(np.float64),
    )
    with contextlib.redirect_stdout(StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of its own dependencies, of which a user can do nothing
        extractor = tool.BrainExtractor(img=given, bt=fraction)
        extractor.run(iterations=iterations)
        return np.asarray(extractor.compute_mask(), dtype=np.float32)
