"""Whether `qsm-dask plan` is right: predict what a run on this machine takes, run it, compare.

Usage: python tests/benchmarks/bench_plan.py [--scans 12] [--within PERCENT] [--study] [--docs DIR]

Half of the scans are predicted from a calibration on copies of one of them, when nothing is known
yet; the other half from what the commits of the first half say. Wall time, bytes and objects of
the store are compared with those of the runs. `--study` does something else: it tells what a study of
the size of UK Biobank costs on 100 nodes, from heads of its matrix that are simulated and processed here.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import qsm_dask as qd
from qsm_dask import calibration
from qsm_dask.cohort.costs import Costs, samples
from qsm_dask.engine import read_spec
from qsm_dask.engine.fleet import Node, fleet
from qsm_dask.engine.sizing import worker_for
from qsm_dask.scan import Geometry, ScanKey
from qsm_dask.workflow import plan, process
from tests.benchmarks import many, page

SHAPE = (96, 96, 72)
CLUSTER = "local"
STUDY, STUDY_SCANS = Geometry((256, 288, 48), (0.8, 0.8, 3.0), (0.00942, 0.020)), 40_000
STUDY_NODE = Node(count=100, cpus=32, memory="128 GiB", price=1.5)
STUDY_CLUSTER = {"kind": "slurm", "memory": "4 GiB"}
COILS = {"combined": 1, "32 coils": 32}


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


def study() -> dict[str, plan.Forecast]:
    """What the study costs, with coils combined and kept apart."""
    pipeline = qd.Pipeline.from_yaml("consensus")
    found = {}
    for name, coils in COILS.items():
        works = plan.described(STUDY, coils, STUDY_SCANS, pipeline)
        costs = Costs.of(calibration.on_simulated(STUDY, coils, pipeline))
        size = plan.largest_task(works)
        machines = fleet(STUDY_CLUSTER, STUDY_NODE, size)
        found[name] = plan.run(works, costs, machines, needed_bytes=worker_for(size))
        print(name, json.dumps(plan.as_dict(found[name]), indent=1), flush=True)
    return found


def told(found: dict[str, plan.Forecast]) -> list[str]:
    """The study as a table."""
    rows = {
        "scans at once": [f"{one.nodes} x {one.slots_per_node}" for one in found.values()],
        "seconds a scan, one slot": [f"{sum(one.seconds.values()):.0f}" for one in found.values()],
        "of these ingest": [f"{one.seconds['reading']:.0f}" for one in found.values()],
        "wall time": [f"{one.wall_hours:.1f} h" for one in found.values()],
        "node-hours": [f"{one.node_hours:.0f}" for one in found.values()],
        "cost at 1.50 a node-hour": [f"{one.cost:.0f}" for one in found.values()],
        "store": [f"{one.store_bytes / 1e12:.2f} TB" for one in found.values()],
        "objects": [f"{one.store_objects / 1e6:.2f} million" for one in found.values()],
        "network, read": [f"{one.read_bytes / 1e12:.1f} TB" for one in found.values()],
        "network, written": [f"{one.written_bytes / 1e12:.1f} TB" for one in found.values()],
    }
    head = ["| | " + " | ".join(found) + " |", "|---|" + "---|" * len(found)]
    return [*head, *(f"| {name} | {' | '.join(values)} |" for name, values in rows.items())]


def compared(scans: int) -> list[tuple[str, str, float, float]]:
    """Where costs came from, which figure, as predicted and as measured."""
    pipeline = qd.Pipeline.from_yaml("consensus")
    rows: list[tuple[str, str, float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        with qd.open_engine("local") as engine:
            cohort = many.ingested(Path(folder), scans, engine, SHAPE)
        every = cohort.scans()
        for basis, part in (("calibration", every[: scans // 2]), ("commits", every[scans // 2 :])):
            forecast = predicted(cohort, pipeline, len(part))
            figures = {
                "wall time [s]": 3600 * forecast.wall_hours,
                "store [MB]": forecast.store_bytes / 1e6,
                "objects": float(forecast.store_objects),
            }
            for name, found in measured(cohort, pipeline, part).items():
                rows.append((basis, name, figures[name], found))
                print(f"{basis:<12}{name:<16}predicted {figures[name]:10.2f}  measured {found:10.2f}", flush=True)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scans", type=int, default=12)
    parser.add_argument("--within", type=float, default=float("inf"), help="percent")
    parser.add_argument("--study", action="store_true", help="the study of the size of UK Biobank")
    parser.add_argument("--docs", type=Path, help="write the figures to its page scale.md")
    options = parser.parse_args()
    if options.study:
        table = told(study())
        if options.docs:
            page.put(options.docs, "study", table)
        print("\n".join(table))
        return 0
    rows = compared(options.scans)
    worst = max(abs(100 * (expected / found - 1)) for _, _, expected, found in rows)
    if options.docs:
        what = f"{options.scans} scans of {'x'.join(map(str, SHAPE))}, pipeline `consensus`, half of them at a time:"
        head = ["| costs from | figure | predicted | measured | off by |", "|---|---|---|---|---|"]
        table = [f"| {b} | {n} | {t:.2f} | {f:.2f} | {100 * (t / f - 1):+.1f} % |" for b, n, t, f in rows]
        page.put(options.docs, "plan", [what, "", *head, *table])
    print(f"predictions are off by {worst:.1f} % at most")
    return 0 if worst <= options.within else 1


if __name__ == "__main__":
    sys.exit(main())
