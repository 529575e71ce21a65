"""Judge recovered against true susceptibility of every region of every scan of a demo."""

import json
import sys
from pathlib import Path


def main() -> int:
    worst, failures, checked = 0.0, [], 0
    for region in json.loads(Path(sys.argv[1]).read_text()):
        for scan, value in region["by_scan"].items():
            error = abs(value["recovered_ppb"] - value["true_ppb"])
            allowed = max(10.0, 0.15 * abs(value["true_ppb"]))
            checked += 1
            worst = max(worst, error / allowed)
            if error > allowed:
                failures.append(f"{scan} {region['region']}: {error:.1f} ppb off, {allowed:.1f} allowed")
    print("\n".join(failures))
    print(f"{checked} regions, {len(failures)} outside; the worst error is {worst:.2f} of what is allowed")
    return 1 if failures or not checked else 0


if __name__ == "__main__":
    sys.exit(main())
