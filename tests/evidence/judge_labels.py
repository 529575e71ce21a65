"""Judge carried labels against the labels that simulated heads were made with: `BIDS COHORT [BIDS COHORT …]`."""

import sys
from pathlib import Path

import numpy as np

import qsm_dask
from qsm_dask.io import nifti
from qsm_dask.phantom import DEEP_GREY

LARGE_MM3 = 1000.0
DICE = 0.85
LARGE_PPB, SMALL_PPB = 5.0, 10.0
TRUTH_SHARE, TRUTH_PPB = 0.15, 10.0


def median_ppb(values, chosen):
    return 1000.0 * float(np.median(values[chosen])) if chosen.any() else float("nan")


def regions(bids, dataset, name):
    """One row a nucleus of a scan: name, volume [mm3], Dice, and the three medians [ppb]."""
    folder = bids / "derivatives" / "truth" / name / "anat"
    truth = {n: nifti.read_volume(folder / f"{name}_{n}.nii.gz") for n in ("dseg", "Chimap", "desc-brain_mask")}
    arrays = {n: dataset[n].to_numpy() for n in ("chi", "dseg", "mask")}
    mask = arrays["mask"]
    # Susceptibility is known up to a constant: both maps are relative to the mean over the same final mask.
    true_chi = truth["Chimap"] - truth["Chimap"][mask].mean(dtype=np.float64)
    chi = arrays["chi"] - arrays["chi"][mask].mean(dtype=np.float64)
    voxel = float(np.prod(dataset.attrs["voxel_size"]))
    for label, region in DEEP_GREY.items():
        known, carried = truth["dseg"] == label, arrays["dseg"] == label
        dice = 2.0 * (known & carried).sum() / max(known.sum() + carried.sum(), 1)
        medians = (median_ppb(chi, known & mask), median_ppb(chi, carried & mask), median_ppb(true_chi, known & mask))
        yield region, known.sum() * voxel, dice, *medians


def main(arguments):
    failed = total = 0
    worst = {}
    for bids, place in zip(arguments[::2], arguments[1::2], strict=True):
        cohort = qsm_dask.open_cohort(place)
        for key in cohort.scans():
            dataset = cohort.scan(key)
            for region, volume, dice, known, carried, true in regions(Path(bids), dataset, key.subject):
                large = volume > LARGE_MM3
                same_map, allowed = abs(carried - known), max(TRUTH_PPB, TRUTH_SHARE * abs(true))
                off = abs(carried - true)
                problems = [
                    *([f"Dice {dice:.2f}"] if large and dice < DICE else []),
                    *([f"median off by {same_map:.1f} ppb"] if same_map > (LARGE_PPB if large else SMALL_PPB) else []),
                    *([f"{off:.1f} ppb from truth {true:.1f}"] if off > allowed else []),
                ]
                total += 1
                failed += bool(problems)
                kind = "large" if large else "small"
                for figure, value in (("Dice", -dice), ("same map", same_map), ("truth", off)):
                    worst[kind, figure] = max(worst.get((kind, figure), (-np.inf, "")), (value, f"{key} {region}"))
                if problems:
                    where = f"{Path(bids).name} {key} {region} ({volume:.0f} mm3)"
                    print(f"MISS {where}: {', '.join(problems)}; with the true labels {abs(known - true):.1f} ppb off")
    for (kind, figure), (value, where) in sorted(worst.items()):
        print(f"worst {figure:9} of {kind} nuclei: {abs(value):.2f} {'' if figure == 'Dice' else 'ppb '}({where})")
    print(f"{failed} of {total} nuclei outside")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
