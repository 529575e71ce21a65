"""Correlate the maps of every pipeline with the truth inside the final mask and the true brain of simulated heads."""

import sys
from pathlib import Path

import nibabel as nib
import numpy as np

import qsm_dask as qd

LEAST = {"chi": 0.85, "chi_para": 0.9, "chi_dia": 0.8, "r2star": 0.97, "swi": 0.2}
"""Lowest correlation of each map; that of `swi` is between darkness and susceptibility, which is no straight line."""

LEAST_OF_FAST = 0.65
"""For susceptibility by k-space division after Laplacian unwrapping, whose streaks that pipeline announces."""

TRUTH = {
    "chi": "Chimap",
    "chi_para": "desc-paramagnetic_Chimap",
    "chi_dia": "desc-diamagnetic_Chimap",
    "r2star": "R2starmap",
    "swi": "Chimap",
}


def main() -> int:
    out = Path(sys.argv[1])
    failures, judged = 0, 0
    for data in ("combined", "coils"):
        truth = out / "bids" / data / "derivatives" / "truth" / "sub-01" / "anat"
        brain = np.asarray(nib.load(truth / "sub-01_desc-brain_mask.nii.gz").dataobj) > 0
        for cohort in sorted((out / data).iterdir()):
            maps = qd.open_cohort(cohort).scan("sub-01")
            found = {name: maps[name] for name in TRUTH if name in maps}
            mask = np.asarray(maps["mask"]) & brain
            for name, values in found.items():
                true = np.asarray(nib.load(truth / f"sub-01_{TRUTH[name]}.nii.gz").dataobj)
                correlation = float(np.corrcoef(np.asarray(values)[mask], true[mask])[0, 1])
                correlation = -correlation if name == "swi" else correlation
                print(f"{data} {cohort.name}: {name} r = {correlation:.3f} in {np.count_nonzero(mask)} voxels")
                least = LEAST_OF_FAST if cohort.name == "fast" else LEAST[name]
                failures += not correlation > least
                judged += 1
    print(f"{judged} maps judged, {failures} of them below what is wanted: {LEAST}, {LEAST_OF_FAST} for `fast`")
    return int(failures > 0 or judged < 30)


if __name__ == "__main__":
    sys.exit(main())
