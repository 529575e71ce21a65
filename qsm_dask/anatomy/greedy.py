"""Registration by greedy: an affine map, then a deformation that is smooth and can be inverted.

greedy (https://greedy.readthedocs.io, wheel `picsl-greedy`, Apache 2.0) was taken before ANTs because one wheel of
25 MB holds it, pins no version of NumPy, takes several contrasts at once and, with its seed fixed, gives the same
bytes on every run and with any number of threads.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from io import StringIO
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from qsm_dask.anatomy.channels import Channel, displaced, place
from qsm_dask.atlas import Image

_METRIC = "NCC 2x2x2"
"""Normalised cross-correlation in windows of 5 voxels: contrasts need to agree locally, and up to a scale, only."""


def register(
    channels: Sequence[Channel],
    mask: Image,
    *,
    affine_iterations: Sequence[int],
    iterations: Sequence[int],
    smoothing_voxels: tuple[float, float],
) -> NDArray[np.float32]:
    """Where each voxel of the fixed grid lies in the moving image.

    Parameters
    ----------
    channels : contrasts; the fixed images share one grid, and so do the moving ones.
    mask : voxels of the fixed grid in which the images are compared.
    affine_iterations, iterations : of the affine map and of the deformation, per level, coarsest first; each level
        halves the voxels.
    smoothing_voxels : standard deviations of the Gaussians that smooth each update and the whole deformation.

    Returns
    -------
    float32 (axis, x, y, z) : position in the moving image's space [mm].

    Raises
    ------
    ValueError : greedy is not installed, or fails.
    """
    said = StringIO()
    with _quiet():
        tool, images = _prepared(channels, mask)
        common = f"-d 3 -V 0 -seed 1 -threads {numba.get_num_threads()} -m {_METRIC} -gm mask"
        pairs = " ".join(f"-w {one.weight:g} -i fixed{n} moving{n}" for n, one in enumerate(channels))
        update, whole = smoothing_voxels
        try:
            tool.execute(
                f"{common} -a -dof 12 -ia-identity -n {_levels(affine_iterations)} {pairs} -o linear",
                out=said, err=said, linear=None, **images,
            )  # fmt: skip
            linear = np.array(tool["linear"], dtype=np.float64)
            tool.execute(
                f"{common} -it linear -n {_levels(iterations)} -s {update:g}vox {whole:g}vox {pairs} -o warp",
                out=said, err=said, warp=None, **images,
            )  # fmt: skip
        except RuntimeError as error:
            raise ValueError(f"greedy failed: {error}") from error
        return _positions(tool["warp"], linear, mask)


def align(channel: Channel, mask: Image, *, iterations: Sequence[int]) -> NDArray[np.float64]:
    """The rigid map that takes positions in the fixed image to those in the moving one, by mutual information.

    One thread counts the joint histogram: sums of several threads came out differently by a thousandth of a mm.

    Parameters
    ----------
    channel : the images, of two contrasts, laid about where they belong.
    mask : voxels of the fixed grid in which the images are compared.
    iterations : per level, coarsest first; each level halves the voxels.

    Returns
    -------
    float64 (4, 4) [mm].

    Raises
    ------
    ValueError : greedy is not installed, or fails.
    """
    said = StringIO()
    with _quiet():
        tool, images = _prepared([channel], mask)
        try:
            tool.execute(
                f"-d 3 -V 0 -seed 1 -threads 1 -m NMI -gm mask -a -dof 6 -ia-identity "
                f"-n {_levels(iterations)} -i fixed0 moving0 -o rigid",
                out=said, err=said, rigid=None, **images,
            )  # fmt: skip
        except RuntimeError as error:
            raise ValueError(f"greedy failed: {error}") from error
        return np.array(tool["rigid"], dtype=np.float64)


def _levels(iterations: Sequence[int]) -> str:
    return "x".join(str(number) for number in iterations)


def _prepared(channels: Sequence[Channel], mask: Image) -> tuple[Any, dict[str, Any]]:
    try:
        greedy: Any = import_module("picsl_greedy")
    except ImportError as error:
        raise ValueError("registration needs greedy: install qsm-dask[anatomy]") from error
    images = {"mask": _to_itk(mask)}
    for number, channel in enumerate(channels):
        images[f"fixed{number}"] = _to_itk(channel.fixed)
        images[f"moving{number}"] = _to_itk(channel.moving)
    return greedy.Greedy3D(), images


def _to_itk(image: Image) -> Any:
    itk: Any = import_module("SimpleITK")
    origin, spacing, direction = place(image.affine)
    made = itk.GetImageFromArray(np.ascontiguousarray(image.values.transpose(2, 1, 0), dtype=np.float32))
    made.SetSpacing(spacing)
    made.SetOrigin(origin)
    made.SetDirection(direction.ravel().tolist())
    return made


def _positions(warp: Any, linear: NDArray[np.float64], grid: Image) -> NDArray[np.float32]:
    """The deformation, which acts first and whose vectors are ITK's, and then the affine map."""
    itk: Any = import_module("SimpleITK")
    moved = itk.GetArrayViewFromImage(warp).transpose(3, 2, 1, 0)
    points = displaced(moved, grid.affine)
    found = np.empty(moved.shape, dtype=np.float32)
    for axis in range(3):
        found[axis] = linear[axis, 3] + sum(linear[axis, other] * points[other] for other in range(3))
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the optimiser's compiled code prints away from standard output, which may be read by a program."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
