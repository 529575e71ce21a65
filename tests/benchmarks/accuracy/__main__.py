"""Compare every method with known truth.

Usage: python -m tests.benchmarks.accuracy [--methods PATTERN ...] [--seeds S ...] [--shape X Y Z] [--docs DIR] ...
Prints the page of results; exits 0 only if every bound holds, and every method that has one exists.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from qsm_dask import phantom
from qsm_dask.stages import STAGES
from tests.benchmarks.accuracy import pictures, runs, verdicts
from tests.benchmarks.accuracy.gather import Plan, gather
from tests.benchmarks.accuracy.page import page


def read(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.accuracy", description=__doc__)
    parser.add_argument("--methods", nargs="+", default=[""], help="only names that contain one of these")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], help="a head each")
    parser.add_argument("--shape", nargs=3, type=int, default=phantom.DEFAULT_SHAPE, help="matrix of the heads")
    parser.add_argument("--snr", type=float, default=100.0, help="of the heads' first echo")
    parser.add_argument("--oblique", action="store_true", help="tilt the heads")
    parser.add_argument("--heads-only", action="store_true", help="without the data of qsm-forward")
    parser.add_argument("--jobs", type=int, default=1, help="cases at a time")
    parser.add_argument("--docs", type=Path, help="folder to write accuracy.md and its pictures to")
    parser.add_argument("--json", type=Path, help="file to write every figure to")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = read(arguments)
    if not runs.methods(options.methods):
        print(f"no method's name contains any of {', '.join(options.methods)}", file=sys.stderr)
        return 2
    x, y, z = options.shape
    plan = Plan(options.methods, options.seeds, (x, y, z), options.snr, options.oblique, not options.heads_only)
    rows, tiles, zoom = gather(plan, options.jobs)
    found = verdicts.verdicts(rows)
    drawn = {}
    if options.docs:
        options.docs.mkdir(parents=True, exist_ok=True)
        drawn = pictures.write(tiles, zoom, options.docs)
    text = page(rows, found, plan.about(), drawn)
    if options.docs:
        (options.docs / "accuracy.md").write_text(text, encoding="utf-8")
    if options.json:
        content = {
            "about": plan.about(),
            "rows": [row.plain() for row in rows],
            "verdicts": [one.plain() for one in found],
        }
        options.json.write_text(json.dumps(content, indent=1), encoding="utf-8")
    print(text)
    absent = [method for method in verdicts.BOUNDS if method not in STAGES]
    if absent:
        print(f"methods with a bound that do not exist: {', '.join(absent)}")
    missed = [one.bound for one in found if not one.met]
    print(
        f"accuracy: {len(found) - len(missed)} of {len(found)} bounds hold, {len(absent)} of methods that do not exist"
    )
    return 1 if missed or (absent and options.methods == [""]) else 0


if __name__ == "__main__":
    sys.exit(main())
