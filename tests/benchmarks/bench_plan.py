"""Whether `qsm-dask plan` is right: predict what a run on this machine takes, run it, compare.

Usage: python tests/benchmarks/bench_plan.py [--scans 12] [--within PERCENT] [--docs DIR]

Half of the scans are predicted from a calibration on copies of one of them, when nothing is known
yet; the other half from what the commits of the first half say. Wall time, bytes and objects of
the store are compared with those of the runs.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import qsm_dask as qd
from qsm_dask import calibration
from qsm_dask.costs import Costs, samples
from qsm_dask.engine import read_spec
from qsm_dask.engine.fleet import Node, fleet
from qsm_dask.engine.sizing import worker_for
from qsm_dask.scan import ScanKey
from qsm_dask.workflow import plan, process
from tests.benchmarks import many, page

SHAPE = (96, 96, 72)
CLUSTER = "local"


def predicted(cohort: qd.CohortStore, pipeline: qd.Pipeline, scans: int) -> plan.Forecast:
    """What is left to do on so many scans of a cohort, by calibration where nothing was measured."""
    found = plan.pending(cohort, pipeline)
    ((work, _),) = found.works
    works = [(work, scans)]
    known = samples(cohort)
    if plan.unmeasured(works, Costs.of(known)):
        known += calibration.on_copies(cohort, found.examples[:1], pipeline)
    size = plan.largest_task(works)
    spec = read_spec(CLUSTER)
    return plan.run(works, Costs.of(known), fleet(spec, Node.of(spec), size), needed_bytes=worker_for(size))


def measured(cohort: qd.CohortStore, pipeline: qd.Pipeline, scans: tuple[ScanKey, ...]) -> dict[str, float]:
    """What a run took: from the command to its end."""
    bytes_before, objects_before = _store(cohort)
    start = time.perf_counter()
    with qd.open_engine(CLUSTER) as engine:
        summary = process.run(cohort, engine, pipeline, scans=scans)
    seconds = time.perf_counter() - start
    assert summary.done == len(scans), summary
    size, objects = _store(cohort)
    return {"wall time [s]": seconds, "store [MB]": (size - bytes_before) / 1e6, "objects": objects - objects_before}


def _store(cohort: qd.CohortStore) -> tuple[int, int]:
    """Bytes and number of the objects of all scans."""
    assert cohort.place.folder is not None
    files = [file for file in (cohort.place.folder / "scans").rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files), len(files)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scans", type=int, default=12)
    parser.add_argument("--within", type=float, default=float("inf"), help="percent")
    parser.add_argument("--docs", type=Path, help="write the figures to its page scale.md")
    options = parser.parse_args()
    pipeline = qd.Pipeline.from_yaml("consensus")
    rows: list[tuple[str, str, float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        with qd.open_engine("local") as engine:
            cohort = many.ingested(Path(folder), options.scans, engine, SHAPE)
        scans, half = cohort.scans(), options.scans // 2
        for basis, part in (("calibration", scans[:half]), ("commits", scans[half:])):
            told = predicted(cohort, pipeline, len(part))
            figures = {
                "wall time [s]": 3600 * told.wall_hours,
                "store [MB]": told.store_bytes / 1e6,
                "objects": float(told.store_objects),
            }
            for name, found in measured(cohort, pipeline, part).items():
                rows.append((basis, name, figures[name], found))
                print(f"{basis:<12}{name:<16}predicted {figures[name]:10.2f}  measured {found:10.2f}", flush=True)
    worst = max(abs(100 * (told / found - 1)) for _, _, told, found in rows)
    if options.docs:
        what = f"{options.scans} scans of {'x'.join(map(str, SHAPE))}, pipeline `consensus`, half of them at a time:"
        lines = [what, ""]
        lines += ["| costs from | figure | predicted | measured | off by |", "|---|---|---|---|---|"]
        lines += [f"| {b} | {n} | {t:.2f} | {f:.2f} | {100 * (t / f - 1):+.1f} % |" for b, n, t, f in rows]
        page.put(options.docs, "plan", lines)
    print(f"predictions are off by {worst:.1f} % at most")
    return 0 if worst <= options.within else 1


if __name__ == "__main__":
    sys.exit(main())
