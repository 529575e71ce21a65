"""Two local workers against two bare processes that run the same scans, without scheduler or driver.

Usage: python tests/benchmarks/bench_throughput.py [--scans 12] [--repeats 1] [--least RATIO] [--docs DIR]

Both sides run the task that workers run, on a copy of the same cohort, after a scan each to
warm up; the bare processes have half of the scans each. Both are timed from their first scan to
the end of their last, in turn. The ratio is the throughput of the workers over that of the processes;
the last line has its median.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import qsm_dask as qd
from qsm_dask.engine.settings import thread_environment
from qsm_dask.workflow import compile_ahead, process
from tests.benchmarks import many, page

PIPELINE = "consensus"
SIDES = 2
SHAPE = (96, 96, 72)


def local(cohort: qd.CohortStore) -> float:
    """Seconds of two workers."""
    scans = cohort.scans()
    pipeline = qd.Pipeline.from_yaml(PIPELINE)
    with qd.open_engine(_cluster(cohort)) as engine:
        process.run(cohort, engine, pipeline, scans=scans[:SIDES])
        start = time.perf_counter()
        summary = process.run(cohort, engine, pipeline, scans=scans[SIDES:])
        seconds = time.perf_counter() - start
    assert summary.done == len(scans) - SIDES, summary
    return seconds


def _cluster(cohort: qd.CohortStore) -> Path:
    assert cohort.place.folder is not None
    file = cohort.place.folder.parent / "two.yaml"
    file.write_text(f"kind: local\nworkers: {SIDES}\n")
    return file


def bare(cohort: qd.CohortStore) -> float:
    """Seconds of two processes."""
    command = [sys.executable, __file__, "--bare", cohort.place.url]
    environment = os.environ | thread_environment(1)
    sides = [
        subprocess.Popen(
            [*command, str(side)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        for side in range(SIDES)
    ]
    for side in sides:
        assert side.stdout is not None
        assert side.stdout.readline() == "warm\n"
    start = time.perf_counter()
    for side in sides:
        assert side.stdin is not None
        side.stdin.write("go\n")
        side.stdin.flush()
    codes = [side.wait() for side in sides]
    seconds = time.perf_counter() - start
    assert codes == [0] * SIDES, codes
    return seconds


def run_bare(place: str, side: int) -> None:
    """One of the bare processes."""
    cohort = qd.open_cohort(place)
    source = dict(qd.Pipeline.from_yaml(PIPELINE).source)
    task = partial(process.process_scan, cohort, source, "", 1)
    warm, *scans = cohort.scans()[side::SIDES]
    task(warm)
    print("warm", flush=True)
    sys.stdin.readline()
    for scan in scans:
        rows = task(scan)
        assert all(row["state"] == "done" for row in rows), rows


def compare(scans: int, repeats: int) -> list[float]:
    """The ratio of each repeat."""
    ratios = []
    compile_ahead.run(qd.Pipeline.from_yaml(PIPELINE))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with qd.open_engine("local") as engine:
            many.ingested(folder, scans + SIDES, engine, SHAPE)
        for number in range(repeats):
            seconds = {}
            for side in (local, bare) if number % 2 == 0 else (bare, local):
                copy = folder / "copy" / "cohort"
                shutil.copytree(folder / "cohort", copy)
                seconds[side.__name__] = side(qd.open_cohort(copy))
                shutil.rmtree(copy.parent)
            ratios.append(seconds["bare"] / seconds["local"])
            print(json.dumps({**seconds, "ratio": ratios[-1]}), flush=True)
    return ratios


def main() -> int:
    if sys.argv[1:2] == ["--bare"]:
        run_bare(sys.argv[2], int(sys.argv[3]))
        return 0
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scans", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--least", type=float, default=0.0)
    parser.add_argument("--docs", type=Path, help="write the figures to its page scale.md")
    options = parser.parse_args()
    ratios = compare(options.scans, options.repeats)
    median = statistics.median(ratios)
    what = f"{options.scans} scans of {'x'.join(map(str, SHAPE))}, two workers against two bare processes"
    said = f"{median:.3f} of the throughput (median of {len(ratios)}: {', '.join(f'{one:.3f}' for one in ratios)})"
    if options.docs:
        page.put(options.docs, "throughput", [f"{what}: {said}."])
    print(f"{what}: {said}")
    return 0 if median >= options.least else 1


if __name__ == "__main__":
    sys.exit(main())
