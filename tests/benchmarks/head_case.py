"""One head at full size, with every quantity that a stage may read, on disk: a measurement loads only what it needs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsm_dask import phantom
from qsm_dask.kernels import fieldmap, masking, offsets, relaxometry
from qsm_dask.kernels.unwrap.romeo import romeo
from qsm_dask.scan import Geometry

SHAPE = (192, 224, 160)
SMALL = (48, 56, 40)
TE = (0.005, 0.010, 0.015, 0.020)


def quantities(shape: tuple[int, int, int]) -> dict[str, NDArray[Any]]:
    """Every quantity of a simulated head: scanner data, intermediate results and truth."""
    head = phantom.simulate(1, 0, shape=shape, te=TE, oblique=True)
    raw, truth = head.arrays, head.truth
    given: dict[str, Any] = {**raw, **truth}
    mask = truth["mask"]
    phase, given["phase_offset"] = offsets.mcpc3ds(raw["phase"], mask, raw["te"], raw["voxel_size"], raw["magnitude"])
    given["unwrapped_phase"] = romeo(phase, mask, raw["te"], raw["magnitude"])
    given["total_field"], given["field_noise"] = fieldmap.weighted_mean(
        given["unwrapped_phase"], mask, raw["te"], raw["b0"], raw["magnitude"]
    )
    given["phase_quality"] = masking.phase_quality(raw["phase"], mask, raw["te"], raw["magnitude"], threshold=0.1)[1]
    given["r2star"] = relaxometry.arlo(raw["magnitude"], raw["te"], mask)
    given["mask_reliable"] = masking.field_quality(mask, given["field_noise"])
    given["chi_filled"] = given["chi_reliable"] = truth["chi"]
    given["r2"] = np.where(mask, np.float32(0.6) * truth["r2star"], np.float32(0.0))
    given["r2prime"] = np.where(mask, np.float32(0.4) * truth["r2star"], np.float32(0.0))
    return given


def geometry(shape: tuple[int, int, int]) -> Geometry:
    """What memory declarations are computed from."""
    size = phantom.voxel_size(shape)
    return Geometry(shape, (float(size[0]), float(size[1]), float(size[2])), TE)


def write(folder: Path, shape: tuple[int, int, int]) -> None:
    """Write one `.npy` a quantity, unless the folder is complete already."""
    done = folder / "done.json"
    if done.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    given = quantities(shape)
    for name, array in given.items():
        np.save(folder / f"{name}.npy", np.ascontiguousarray(array))
    done.write_text(json.dumps(sorted(given)))


def present(folder: Path, names: tuple[str, ...]) -> list[str]:
    """Those of the names that the folder holds."""
    return [name for name in names if (folder / f"{name}.npy").exists()]


def read(folder: Path, names: tuple[str, ...]) -> Mapping[str, NDArray[Any]]:
    """The named quantities that there are, in memory."""
    return {name: np.load(folder / f"{name}.npy") for name in present(folder, names)}
