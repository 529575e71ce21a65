"""Judge recovered against true susceptibility of every deep grey region of a demo: its mean over the cohort.

Single scans are held to the same bound and those outside it are printed, for the reader.
"""

import json
import sys
from pathlib import Path


def excess(recovered: float, true: float) -> float:
    """The error over what is allowed: 15 % of the truth, or 10 ppb where that is less."""
    return abs(recovered - true) / max(10.0, 0.15 * abs(true))


def main() -> int:
    regions = json.loads(Path(sys.argv[1]).read_text())
    scans = [
        (excess(**{name.removesuffix("_ppb"): value for name, value in found.items()}), scan, region["region"])
        for region in regions
        for scan, found in region["by_scan"].items()
    ]
    for ratio, scan, region in sorted(scans, reverse=True):
        if ratio > 1:
            print(f"single scan outside: {scan} {region}: error {ratio:.2f} of what is allowed")
    ratios = {region["region"]: excess(region["recovered_ppb"], region["true_ppb"]) for region in regions}
    worst = max(ratios, key=lambda name: ratios[name])
    outside = sum(ratio > 1 for ratio in ratios.values())
    print(f"single scans: {sum(ratio > 1 for ratio, _, _ in scans)} of {len(scans)} region values outside")
    print(f"{len(ratios)} regions, {outside} outside; worst is {worst}: error {ratios[worst]:.2f} of what is allowed")
    return 1 if outside or not ratios else 0


if __name__ == "__main__":
    sys.exit(main())
