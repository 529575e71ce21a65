"""Correlate reconstructed with true susceptibility inside the final, eroded mask of each dataset."""

import sys
from pathlib import Path

import nibabel as nib
import numpy as np

import qsm_dask as qd

LEAST = 0.85


def main() -> int:
    out = Path(sys.argv[1])
    worst = 1.0
    for dataset in sorted((out / "bids").iterdir()):
        cohort = qd.open_cohort(out / "cohorts" / dataset.name)
        (key,) = cohort.scans()
        maps = cohort.scan(key)
        mask = np.asarray(maps["mask"])
        (path,) = (dataset / "derivatives").rglob("*_Chimap.nii*")
        truth = np.asarray(nib.load(path).dataobj)
        correlation = float(np.corrcoef(np.asarray(maps["chi"])[mask], truth[mask])[0, 1])
        print(f"{dataset.name}: r = {correlation:.3f} in {np.count_nonzero(mask)} voxels")
        worst = min(worst, correlation)
    print(f"lowest correlation {worst:.3f}, above {LEAST} wanted")
    return 0 if worst > LEAST else 1


if __name__ == "__main__":
    sys.exit(main())
