"""The region values of a simulated cohort against plain NumPy on its stored maps and on the label files themselves.

Usage: python tests/evidence/judge_regions.py COHORT TRUTH

Exits 1 unless every statistic of every map and region is equal to the last bit, and every statistic under another
reference is that of the map from which the reference was subtracted, but for the rounding of that map.
"""

import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import ndimage

from qsm_dask import CohortStore, open_cohort
from qsm_dask.quantities import COORDINATES

STATISTICS = COORDINATES["statistic"][:17]  # the others need probabilities
REFERENCES = ("csf", "ventricles", "putamen_left + putamen_right")
Image = NDArray[Any]


def plain(image: Image, region: Image, mask: Image, voxel_mm3: float) -> list[float]:
    """Every statistic without probabilities, in double precision."""
    inside = region & mask
    values = image[inside].astype(np.float64)
    median = np.median(values)
    mad = np.median(np.abs(values - median))
    reach, cut, ordered = 3 * mad / 0.6744897501960817, values.size // 10, np.sort(values)
    core = np.sort(image[ndimage.binary_erosion(inside)].astype(np.float64))
    middle = (core.mean(), np.median(core)) if core.size else (np.nan, np.nan)
    return [
        values.size, values.size * voxel_mm3, values.mean(), values.std(ddof=1), median, mad,
        *np.percentile(values, [5, 25, 75, 95]), values.size / np.count_nonzero(region),
        ordered[cut : values.size - cut].mean(), ordered[np.abs(ordered - median) <= reach].mean(),
        values.sum() * voxel_mm3, core.size, *middle,
    ]  # fmt: skip


def regions(truth: Path, scan: str, mask: Image) -> dict[str, Image]:
    """Where each named region lies, from the label files."""
    stem = truth / scan / "anat" / f"{scan}_dseg"
    labels = np.asarray(nib.load(f"{stem}.nii.gz").dataobj)
    rows = [line.split("\t")[:2] for line in Path(f"{stem}.tsv").read_text(encoding="utf-8").splitlines()[1:]]
    found = {name: labels == int(number) for number, name in rows}
    return {"whole_brain": mask, **{name: where for name, where in found.items() if (where & mask).sum() > 1}}


def judge(cohort: CohortStore, scan: str, truth: Path) -> tuple[int, int, float, float]:
    """Statistics compared, how many differ in a bit, and the greatest error of a shift beside what rounding allows."""
    maps = cohort.scan(scan).compute()
    mask = maps["mask"].values
    voxel_mm3 = float(np.prod(maps.attrs["voxel_size"]))
    where = regions(truth, scan, mask)
    stored = cohort.dataset().sel(scan=scan, statistic=list(STATISTICS)).compute()
    compared = wrong = 0
    for name in ("chi", "r2star"):
        for region, place in where.items():
            expected = np.array(plain(maps[name].values, place, mask, voxel_mm3))
            found = stored[name].sel(region=region).values
            compared += expected.size
            wrong += int(np.count_nonzero(~((found == expected) | (np.isnan(found) & np.isnan(expected)))))
    error = 0.0
    chi = maps["chi"].values
    rounding = float(np.spacing(np.float32(np.abs(chi[mask]).max() + 0.1)))
    for reference in REFERENCES:
        moved = cohort.dataset(reference).sel(scan=scan, statistic=list(STATISTICS)).compute()["chi"]
        error = max(
            error, shift_error(moved, chi - np.float32(offset(cohort, scan, reference)), where, mask, voxel_mm3)
        )
    return compared, wrong, error, rounding


def offset(cohort: CohortStore, scan: str, reference: str) -> float:
    """The number that a reference takes off, from the moments of its parts."""
    moments = cohort.references().sel(scan=scan).compute()
    parts = [moments.sel(reference=name.strip()) for name in reference.split("+")]
    counts = [float(part.sel(moment="n")) for part in parts]
    return float(np.average([float(part.sel(moment="offset")) for part in parts], weights=counts))


def shift_error(moved: xr.DataArray, chi: Image, where: dict[str, Image], mask: Image, voxel_mm3: float) -> float:
    """The greatest difference [ppm] between shifted statistics and those of the map that was shifted itself."""
    worst = 0.0
    for region, place in where.items():
        expected = np.array(plain(chi, place, mask, voxel_mm3))
        difference = np.abs(moved.sel(region=region).values - expected)
        difference[STATISTICS.index("mass")] /= max(expected[1], 1.0)
        worst = max(worst, float(np.nanmax(difference)))
    return worst


def main(place: str, truth: str) -> int:
    """Print the comparison of each scan; 0 if it holds."""
    cohort = open_cohort(place)
    good = True
    for scan in cohort.dataset()["scan"].values.tolist():
        compared, wrong, error, rounding = judge(cohort, scan, Path(truth))
        print(f"{scan}: {compared} statistics, {wrong} not equal to the last bit; under {len(REFERENCES)} references "
              f"at most {error:.1e} ppm from recomputed, float32 maps round to {rounding:.1e}")  # fmt: skip
        good &= compared > 0 and not wrong and error <= rounding
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
