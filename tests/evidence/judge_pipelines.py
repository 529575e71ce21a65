"""Correlate the maps of every pipeline and scan with the truth inside the final mask and the true brain of the head."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

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


SUBJECTS = ("sub-01", "sub-02")


def main() -> int:
    out = Path(sys.argv[1])
    failures, judged, cohorts = 0, 0, 0
    for data in ("combined", "coils"):
        for cohort in sorted((out / data).iterdir()):
            cohorts += 1
            for subject in SUBJECTS:
                truth = out / "bids" / data / "derivatives" / "truth" / subject / "anat" / subject
                for name, correlation in correlations(cohort, subject, truth):
                    print(f"{data} {cohort.name} {subject}: {name} r = {correlation:.3f}")
                    least = LEAST_OF_FAST if cohort.name == "fast" else LEAST[name]
                    failures += not correlation > least
                    judged += 1
    print(f"wanted of each map at least {LEAST}, {LEAST_OF_FAST} for `fast`")
    print(f"{judged} maps of {cohorts} cohorts judged, {failures} of them below what is wanted")
    return int(failures > 0 or judged < 60)


def correlations(cohort: Path, subject: str, truth: Path) -> Iterator[tuple[str, float]]:
    """Of each map of a scan that has a truth, with the darkness of `swi` turned round."""
    maps = qd.open_cohort(cohort).scan(subject)
    mask = np.asarray(maps["mask"]) & (volume(f"{truth}_desc-brain_mask.nii.gz") > 0)
    for name, suffix in TRUTH.items():
        if name in maps:
            true = volume(f"{truth}_{suffix}.nii.gz")
            found = float(np.corrcoef(np.asarray(maps[name])[mask], true[mask])[0, 1])
            yield name, -found if name == "swi" else found


def volume(file: str) -> NDArray[Any]:
    return np.asarray(nib.load(file).dataobj)


if __name__ == "__main__":
    sys.exit(main())
