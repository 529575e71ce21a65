"""Cost of the local engine itself: empty tasks, start and stop, memory of driver and scheduler.

The scheduler of a local cluster lives in the driver's process, so that one figure covers both.
Run `python tests/benchmarks/bench_engine.py [SCANS ...] [--most-ms MS] [--most-growth MIB]`; it fails
when the local engine takes more of either.
"""

import argparse
import sys
import time
from pathlib import Path

from qsm_dask.engine import Engine, SerialEngine, open_engine
from qsm_dask.engine.resources import resident
from tests.benchmarks import page

DEFAULT = (2_000, 10_000)
SETTLED = 3_000  # by then dask's bounded logs of tasks are full
MIB = 2**20


def nothing(_key: str) -> None:
    return None


def no_memory(_key: str) -> int:
    return 0


def measure(engine: Engine, scans: int) -> tuple[float, float, float, float]:
    """Milliseconds a scan, of which this process computed; growth of resident memory [MiB]: in all, after SETTLED."""
    at_start = settled = resident()
    start, cpu = time.perf_counter(), time.process_time()
    keys = (f"sub-{number:05d}" for number in range(scans))
    for done, outcome in enumerate(engine.map(nothing, keys, memory=no_memory), start=1):
        assert outcome.ok, outcome
        if done == SETTLED:
            settled = resident()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    late = (resident() - settled) / MIB if scans > SETTLED else 0.0
    return 1e3 * seconds / scans, 1e3 * cpu / scans, (resident() - at_start) / MIB, late


def main(sizes: tuple[int, ...]) -> tuple[float, float]:
    """The most milliseconds a scan and the most growth after SETTLED [MiB] of the local engine."""
    row = "{:<8}{:>8}{:>10.3f}{:>11.3f}{:>12.1f}{:>14.1f}"
    print(f"{'engine':<8}{'scans':>8}{'ms/scan':>10}{'of driver':>11}{'growth MiB':>12}{f'after {SETTLED}':>14}")
    for scans in sizes:
        print(row.format("serial", scans, *measure(SerialEngine(2**30), scans)))
    worst_ms = worst_growth = 0.0
    for scans in sizes:
        start = time.perf_counter()
        with open_engine({"kind": "local", "workers": 2, "memory": "1 GiB"}) as engine:
            opened = time.perf_counter() - start
            found = measure(engine, scans)
            print(row.format("local", scans, *found))
            start = time.perf_counter()
        print(f"{'':<8}start {opened:.2f} s, stop {time.perf_counter() - start:.2f} s")
        worst_ms, worst_growth = max(worst_ms, found[0]), max(worst_growth, found[3])
    return worst_ms, worst_growth


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scans", type=int, nargs="*", default=DEFAULT)
    parser.add_argument("--most-ms", type=float, default=float("inf"))
    parser.add_argument("--most-growth", type=float, default=float("inf"))
    parser.add_argument("--docs", type=Path, help="write the figures to its page scale.md")
    options = parser.parse_args()
    ms, growth = main(tuple(options.scans))
    said = f"local engine: {ms:.2f} ms a scan; driver with scheduler grew by {growth:.1f} MiB after scan {SETTLED}"
    if options.docs:
        page.put(options.docs, "engine", [f"{max(options.scans)} empty tasks, {said}."])
    print(said)
    sys.exit(ms > options.most_ms or growth > options.most_growth)
