"""A template of a cohort's own: what its registered scans look like on average, in the shape that they have on average.

The average is taken brick by brick over the cohort cube. Registering to it again and averaging again makes it sharper;
`api.build_template` does so.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, gaussian_filter

from qsm_dask.engine.resources import Machine
from qsm_dask.errors import ConfigError
from qsm_dask.io import documents
from qsm_dask.io.nifti import write_volume
from qsm_dask.kernels.standard import to_template
from qsm_dask.pipeline import Pipeline
from qsm_dask.scan import ScanKey
from qsm_dask.store import CohortStore
from qsm_dask.store.documents import PIPELINE, read_json

Real = NDArray[np.float32]

_STANDARD = "anatomy.standard"
_APART = ("anatomy.labels", "anatomy.probabilities", "roi.")
_SMOOTHING_VOXELS = 1.5
_BRICKS = 5
"""What a brick of all scans takes while its median is found, over its size: parts as read, levelled, joined, sorted."""


@dataclass(frozen=True)
class Average:
    """One average of the registered scans.

    Attributes
    ----------
    scans : how many there were.
    shape_mm : how far the scans' mean shape lay from that of the template they were registered to (root mean square
        over the brain) [mm]; it shrinks from one iteration to the next.
    """

    scans: int
    shape_mm: float


def pipeline_of(cohort: CohortStore, atlas: str | None = None) -> Pipeline:
    """What registers the cohort's scans and resamples them: its own pipeline, without what regions need.

    Parameters
    ----------
    cohort : the store, processed by a pipeline that has `anatomy.standard`.
    atlas : name of another template than that of the pipeline.

    Raises
    ------
    ConfigError : the cohort has no such pipeline.
    """
    source = read_json(cohort, PIPELINE)
    steps = [] if source is None else [one for one in source["steps"] if not _of_regions(one)]
    if not any(_STANDARD in _names(one) for one in steps):
        raise ConfigError(
            f"{cohort.place}: process it with a pipeline that has the step {_STANDARD} first, such as `standard`"
        )
    goal = ["chi_standard", "magnitude_standard"]
    made = {**source, "name": "template", "goal": goal, "keep": ["shape_standard"], "steps": steps}
    pipeline = Pipeline.from_mapping(made)
    return pipeline if atlas is None else pipeline.with_atlas(atlas)


def _of_regions(entry: Any) -> bool:
    return all(name.startswith(_APART) for name in _names(entry))


def _names(entry: Any) -> list[str]:
    """The stages of a step of a file, several where it is a choice."""
    if isinstance(entry, str):
        return [entry]
    ((name, given),) = entry.items()
    return [found for option in given for found in _names(option)] if name == "any" else [name]


def average(cohort: CohortStore, folder: Path, name: str) -> Average:
    """Write the average of the registered scans as a template, a folder that `--atlas` takes.

    Magnitudes are brought to one mean first. Medians over scans are taken, of magnitude and susceptibility, where at
    least half of the scans have a value. The average is then moved by the mean of the scans' shapes, so that the shape
    of the template they were registered to does not last.

    Parameters
    ----------
    cohort : its cube holds the scans, registered by `pipeline_of`.
    folder : of the template.
    name : of its space.

    Raises
    ------
    StoreError : there is no cube.
    """
    magnitude, chi = cohort.cube("magnitude"), cohort.cube("chi")
    images = {"magnitude": _medians(_levelled(magnitude)), "chi": _medians(chi)}
    mask = (chi.notnull().mean("scan") >= 0.5).to_numpy() & np.isfinite(images["chi"])
    affine = np.array(chi.attrs["affine"])
    shape = _mean_shape(cohort, mask)
    x, y, z = mask.shape
    grid = np.tensordot(affine[:3, :3], np.indices(mask.shape), 1) + affine[:3, 3].reshape(3, 1, 1, 1)
    moved, _, _ = to_template(images, mask, (grid + shape).astype(np.float32), (x, y, z), affine)
    _write(folder, name, moved, affine, chi.sizes["scan"])
    return Average(chi.sizes["scan"], float(np.sqrt(np.square(shape[:, mask]).sum(axis=0).mean())))


def _levelled(cube: xr.DataArray) -> xr.DataArray:
    """Every scan over its mean, which is known before: a graph of both would hold all bricks until the last is read."""
    return cube / cube.mean(("x", "y", "z")).compute(scheduler="threads")


def _medians(cube: xr.DataArray) -> Real:
    """The median over the scans that have a value, brick by brick; NaN where none has."""
    lazy = xr.apply_ufunc(
        _median,
        cube.chunk(scan=-1),
        input_core_dims=[["scan"]],
        dask="parallelized",
        output_dtypes=[np.float32],
    )
    done = lazy.compute(scheduler="threads", num_workers=_at_once(cube, Machine.here()))
    return np.asarray(done.to_numpy(), dtype=np.float32)


def _at_once(cube: xr.DataArray, machine: Machine) -> int:
    """How many bricks of all scans half of the memory holds, one for each processor at most."""
    voxels = math.prod(max(cube.chunksizes[axis]) for axis in ("x", "y", "z"))
    brick = _BRICKS * cube.dtype.itemsize * cube.sizes["scan"] * voxels
    return max(1, min(machine.cpus, machine.memory // (2 * brick)))


def _median(values: Real) -> Real:
    """Along the last axis; NaN is sorted to its end."""
    ordered, count = np.sort(values, axis=-1), np.isfinite(values).sum(axis=-1, keepdims=True)
    low, high = np.maximum(count - 1, 0) // 2, np.minimum(count // 2, values.shape[-1] - 1)
    middle = np.take_along_axis(ordered, low, -1) + np.take_along_axis(ordered, high, -1)
    return np.asarray(middle[..., 0] / 2, dtype=np.float32)


def _mean_shape(cohort: CohortStore, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean over scans of how far the anatomy lies from each voxel [mm], one scan in memory; smooth beyond the mask."""
    total, count = np.zeros((3, *mask.shape)), np.zeros(mask.shape)
    for member in cohort.cubes.members("chi_standard"):
        commit = cohort.commit(ScanKey.parse(member.scan), "standard", member.key)
        if commit is None:
            continue
        shape = cohort.read(commit, ("shape_standard",))["shape_standard"]
        here = np.isfinite(shape[0])
        total[:, here] += shape[:, here]
        count += here
    mean = total / np.maximum(count, 1)
    nearest = distance_transform_edt(~mask, return_distances=False, return_indices=True)
    return np.stack([gaussian_filter(along[tuple(nearest)], _SMOOTHING_VOXELS) for along in mean])


def _write(folder: Path, name: str, images: Mapping[str, Real], affine: NDArray[np.float64], scans: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    brain = np.isfinite(images["chi"])
    for suffix, volume, about in (
        ("T2starw", np.where(brain, images["magnitude"], np.float32(0.0)), {"SkullStripped": True}),
        ("Chimap", np.where(brain, images["chi"], np.float32(0.0)), {"Units": "ppm", "SkullStripped": True}),
        ("desc-brain_mask", brain, {"Type": "Brain"}),
    ):
        write_volume(folder / f"tpl-{name}_{suffix}.nii.gz", volume, affine)
        documents.write_json(folder / f"tpl-{name}_{suffix}.json", about)
    described = {"Identifier": name, "Name": f"Template of {scans} scans", "SampleSize": scans}
    documents.write_json(folder / "template_description.json", described)
