"""Compare the maps of a simulated cohort with the truth that the simulation wrote."""

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from qsm_dask.errors import InputError
from qsm_dask.io import nifti
from qsm_dask.io.tables import read_tsv
from qsm_dask.scan import ScanKey
from qsm_dask.store import CohortStore

PPB = 1000.0


@dataclass(frozen=True)
class Recovered:
    """A region's susceptibility as reconstructed and as it is, both minus the mean over the same mask.

    Attributes
    ----------
    scan, region : names.
    recovered, true : mean susceptibility [ppb].
    voxels : voxels of the region inside the final mask.
    """

    scan: str
    region: str
    recovered: float
    true: float
    voxels: int

    @property
    def error(self) -> float:
        """Recovered minus true [ppb]."""
        return self.recovered - self.true


def run(cohort: CohortStore, truth: Path) -> list[Recovered]:
    """Mean susceptibility of every comparable region, recovered beside true.

    Parameters
    ----------
    cohort : processed scans of a simulated dataset.
    truth : its folder `derivatives/truth`. It is read here only: no pipeline sees it.

    Raises
    ------
    InputError : the truth of a scan is missing.
    """
    rows: list[Recovered] = []
    for key in cohort.scans():
        maps = cohort.scan(key)
        if "chi" in maps:
            rows += _compare(key, np.asarray(maps["chi"]), np.asarray(maps["mask"]), truth)
    return rows


def _compare(key: ScanKey, chi: NDArray[np.float32], mask: NDArray[np.bool_], truth: Path) -> list[Recovered]:
    folder = truth / key.subject / (key.session or "") / "anat"
    true_chi = nifti.read_volume(_only(folder, f"{key}_*Chimap.nii.gz", f"{key}_Chimap.nii.gz"))
    labels = nifti.read_volume(_only(folder, f"{key}_*dseg.nii.gz", f"{key}_dseg.nii.gz")).astype(np.int64)
    table = read_tsv(_only(folder, f"{key}_*dseg.tsv", f"{key}_dseg.tsv").read_bytes())
    offset = float(chi[mask].mean(dtype=np.float64))
    true_offset = float(true_chi[mask].mean(dtype=np.float64))
    rows = []
    for region in _comparable(table):
        inside = mask & (labels == int(region["index"]))
        count = int(np.count_nonzero(inside))
        if count:
            recovered = float(chi[inside].mean(dtype=np.float64)) - offset
            true = float(true_chi[inside].mean(dtype=np.float64)) - true_offset
            rows.append(Recovered(str(key), str(region["name"]), PPB * recovered, PPB * true, count))
    return rows


def _only(folder: Path, *patterns: str) -> Path:
    for pattern in reversed(patterns):
        found = sorted(folder.glob(pattern))
        if found:
            return found[0]
    raise InputError(f"{folder} has no {patterns[-1]}: was the dataset written by `qsm-dask simulate`?")


def _comparable(table: pd.DataFrame) -> list[dict[Hashable, Any]]:
    """Regions that the grid resolves; the simulation marks them."""
    return table[table["comparable"].astype(str).str.lower() == "true"].to_dict("records")
