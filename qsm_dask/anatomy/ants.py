"""Registration by ANTs (wheel `antspyx`, Apache 2.0), for those who compare with it: an affine map, then SyN.

ANTs optimises from both sides, so that exchanging scan and template gives the inverse. Its results depend on threads
and on a seed that it takes from the environment; both are fixed here for as long as it runs.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsm_dask.anatomy.channels import Channel, displaced, place
from qsm_dask.atlas import Image

_ENVIRONMENT = {"ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1", "ANTS_RANDOM_SEED": "1"}
_RADIUS = 2
"""Of the windows of cross-correlation [voxel], as with greedy."""


def register(
    channels: Sequence[Channel],
    mask: Image,
    *,
    affine_iterations: Sequence[int],
    iterations: Sequence[int],
    smoothing_voxels: tuple[float, float],
) -> NDArray[np.float32]:
    """Where each voxel of the fixed grid lies in the moving image.

    The affine map is found by mutual information of the first channel alone, the deformation by all channels.

    Parameters
    ----------
    channels, mask, affine_iterations, iterations, smoothing_voxels : as for `anatomy.greedy.register`.

    Returns
    -------
    float32 (axis, x, y, z) : position in the moving image's space [mm].

    Raises
    ------
    ValueError : ANTs is not installed, or fails.
    """
    with _fixed(), TemporaryDirectory() as folder:
        try:
            tool: Any = import_module("ants")
        except ImportError as error:
            raise ValueError("method ants needs ANTs: install qsm-dask[ants]") from error
        pairs = [(_image(tool, one.fixed), _image(tool, one.moving), one.weight) for one in channels]
        fixed, moving, _ = pairs[0]
        inside = _image(tool, mask)
        levels = range(len(affine_iterations) - 1, -1, -1)
        update, whole = smoothing_voxels
        try:
            linear = tool.registration(
                fixed, moving, "Affine", mask=inside, initial_transform="Identity",
                    aff_iterations=tuple(affine_iterations),
                aff_shrink_factors=tuple(2**level for level in levels), aff_smoothing_sigmas=tuple(levels),
                outprefix=f"{folder}/linear",
            )["fwdtransforms"]  # fmt: skip
            found = linear
            if any(iterations):
                found = tool.registration(
                    fixed, moving, "SyNOnly", mask=inside, initial_transform=linear[0],
                    reg_iterations=tuple(iterations),
                    syn_metric="CC", syn_sampling=_RADIUS, flow_sigma=update**2, total_sigma=whole**2,
                    multivariate_extras=[("CC", one, other, weight, _RADIUS) for one, other, weight in pairs[1:]]
                    or None,
                    outprefix=f"{folder}/deformation",
                )["fwdtransforms"]  # fmt: skip
            composed = tool.apply_transforms(fixed, moving, found, compose=f"{folder}/composed")
            moved = tool.image_read(composed).numpy()
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"ANTs failed: {error}") from error
    return np.stack(displaced(np.moveaxis(moved, -1, 0), mask.affine)).astype(np.float32)


def _image(tool: Any, image: Image) -> Any:
    origin, spacing, direction = place(image.affine)
    values = np.ascontiguousarray(image.values, dtype=np.float32)
    return tool.from_numpy(values, origin=origin, spacing=spacing, direction=direction)


@contextmanager
def _fixed() -> Iterator[None]:
    """The environment in which ANTs gives the same on every run."""
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ.update(_ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
