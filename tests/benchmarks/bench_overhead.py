"""What engine and store cost beside the kernels: many tiny scans through the whole of `run`.

Usage: python tests/benchmarks/bench_overhead.py [--scans 200] [--most SECONDS]

Own cost of a phase = (wall time x slots - seconds that commits report for their kernels or for
reading their files) / scans; starting the cluster and the report's pictures are shown apart.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import qsm_dask as qd
from qsm_dask.workflow import compare, report, simulate

SHAPE = (32, 32, 24)


def measure(scans: int, folder: Path) -> dict[str, float]:
    """Seconds a scan of each phase's own cost, and of the whole."""
    bids = folder / "bids"
    clock = [time.perf_counter()]

    def lap() -> float:
        clock.append(time.perf_counter())
        return clock[-1] - clock[-2]

    with qd.open_engine("local") as engine:
        simulate.run(bids, subjects=scans, seed=0, shape=SHAPE, engine=engine)
        lap()
        qd.ingest(bids, folder / "cohort", engine, derivatives=[f"{bids}/derivatives/truth:dseg"])
        wall = {"ingest": lap()}
        cohort = qd.open_cohort(folder / "cohort")
        summary = qd.process(cohort, engine)
        wall["process"] = lap()
        compare.run(cohort)
        wall["compare"] = lap()
        report.run(cohort, engine)
        wall["report"] = lap()
        slots = engine.slots
    if summary.done != scans:
        raise SystemExit(f"only {summary.done} of {scans} scans are done: {summary.failures}")
    index = cohort.index()
    busy = {
        "ingest": float(index.loc[index["node"] == "ingest", "seconds"].sum()),
        "process": float(index.loc[index["node"] != "ingest", "seconds"].sum()),
    }
    own = {phase: (wall[phase] * slots - busy[phase]) / scans for phase in busy}
    return {
        **{f"{phase}, own": cost for phase, cost in own.items()},
        **{f"{phase}, kernels or reading": cost / scans for phase, cost in busy.items()},
        "compare": wall["compare"] / scans,
        "report": wall["report"] * slots / scans,
        "engine and store, own": sum(own.values()),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scans", type=int, default=200)
    parser.add_argument("--most", type=float, default=float("inf"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(options.scans, Path(folder))
    print(f"{options.scans} scans of {'x'.join(map(str, SHAPE))}, slot-seconds a scan:")
    for name, value in figures.items():
        print(f"  {name:<30} {value:8.4f}")
    return 0 if figures["engine and store, own"] <= options.most else 1


if __name__ == "__main__":
    sys.exit(main())
