"""Memory of workers, scheduler and driver while many small scans are processed: it must stay as it is.

Usage: python tests/benchmarks/bench_flat.py [--scans 60] [--docs DIR] [--most PERCENT]

The scans are a few simulated heads of 64x64x48 with 3 echoes, each copy with noise of its own.
Resident memory of every process is read twice a second. Its trend is that of a line through all
samples after the first fifth of the run, over the whole of it; `--most` fails a trend above that
part of the process's mean. `--docs` draws the samples there and fills the part of its page.
The scheduler of a local cluster lives in the driver's process. Workers are never started anew meanwhile
(`recycle_growth: null`), which would hide a rise.
"""

import argparse
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import qsm_dask as qd
from qsm_dask.workflow import compile_ahead, process
from tests.benchmarks import many, page

MIB = 2**20
PERIOD_S = 0.5
WARM = 0.2
PIPELINE = "consensus"
PICTURE = "scale-memory.png"


@dataclass
class Watch:
    """Samples of the resident memory of this process and of its children that do work."""

    samples: dict[int, list[tuple[float, float]]] = field(default_factory=dict)
    ended: threading.Event = field(default_factory=threading.Event)
    begun: float = 0.0

    def __enter__(self) -> Self:
        self.begun = time.perf_counter()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.ended.set()
        self.thread.join()

    def _run(self) -> None:
        own = int(Path("/proc/self").resolve().name)
        while not self.ended.wait(PERIOD_S):
            now = time.perf_counter() - self.begun
            for pid in [own, *_workers(own)]:
                self.samples.setdefault(pid, []).append((now, _resident(pid)))


def _workers(parent: int) -> list[int]:
    """Children of a process that dask spawned."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            of = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            spawned = b"spawn_main" in (folder / "cmdline").read_bytes()
        except (OSError, IndexError, ValueError):
            continue
        if of == parent and spawned:
            found.append(int(folder.name))
    return sorted(found)


def _resident(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:")), float("nan"))


@dataclass(frozen=True)
class Trend:
    """Memory of one process: mean and largest [MiB], and how much a line through it rises over the run [MiB]."""

    name: str
    mean: float
    largest: float
    rise: float

    @classmethod
    def of(cls, name: str, samples: list[tuple[float, float]]) -> "Trend":
        """The trend after the workers are warm."""
        times, values = np.array([one for one in samples if np.isfinite(one[1])]).T
        settled = times > WARM * times.max()
        slope = np.polyfit(times[settled], values[settled], 1)[0]
        return cls(name, float(values[settled].mean()), float(values.max()), float(slope * times.max()))


def draw(path: Path, named: dict[str, list[tuple[float, float]]], title: str) -> None:
    """Memory over time, one line a process."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, samples in named.items():
        times, values = np.array(samples).T
        axes.plot(times / 60, values, linewidth=0.7, label=name)
    axes.set(xlabel="minutes", ylabel="resident memory [MiB]", title=title, ylim=(0, None))
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def measure(scans: int, folder: Path) -> tuple[dict[str, list[tuple[float, float]]], float]:
    """Samples of each process while the scans are processed, and the seconds that took."""
    with qd.open_engine("local") as engine:
        start = time.perf_counter()
        cohort = many.ingested(folder, scans, engine)
        print(f"{scans} scans simulated, copied and ingested in {time.perf_counter() - start:.0f} s", flush=True)
    pipeline = qd.Pipeline.from_yaml(PIPELINE)
    compile_ahead.run(pipeline)  # not part of what is watched: it may take minutes, in which workers wait
    cluster = folder / "cluster.yaml"
    cluster.write_text("kind: local\nrecycle_growth: null\n")
    with qd.open_engine(cluster) as engine, Watch() as watch:
        start = time.perf_counter()
        summary = process.run(cohort, engine, pipeline)
        seconds = time.perf_counter() - start
    assert summary.done == scans, summary
    driver = int(Path("/proc/self").resolve().name)
    named = {"driver and scheduler": watch.samples[driver]}
    workers = [pid for pid in sorted(watch.samples) if pid != driver]
    return named | {f"worker {n}": watch.samples[pid] for n, pid in enumerate(workers, 1)}, seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scans", type=int, default=60)
    parser.add_argument("--most", type=float, default=float("inf"), help="percent of a process's mean memory")
    parser.add_argument("--docs", type=Path, help="draw a picture there and write the figures to its page scale.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        named, seconds = measure(options.scans, Path(folder))
    trends = [Trend.of(name, samples) for name, samples in named.items()]
    done = f"{options.scans} scans of {'x'.join(map(str, many.SHAPE))} in {seconds:.0f} s"
    print(f"{'process':<22}{'mean MiB':>10}{'largest':>10}{'rise MiB':>10}{'rise %':>8}")
    for one in trends:
        print(
            f"{one.name:<22}{one.mean:>10.1f}{one.largest:>10.1f}{one.rise:>+10.1f}{100 * one.rise / one.mean:>+8.2f}"
        )
    worst = max(100 * one.rise / one.mean for one in trends)
    if options.docs:
        draw(options.docs / PICTURE, named, f"{done}, pipeline {PIPELINE}")
        rows = [f"| {one.name} | {one.mean:.0f} MiB | {one.largest:.0f} MiB | {one.rise:+.1f} MiB |" for one in trends]
        head = ["| process | mean | largest | rise over the run |", "|---|---|---|---|"]
        picture = f"![Resident memory over time]({PICTURE})"
        page.put(options.docs, "flat", [f"{done}, pipeline `{PIPELINE}`:", "", *head, *rows, "", picture])
    print(f"{done}: memory of a process rises by {worst:+.2f} % at most")
    return 0 if worst <= options.most else 1


if __name__ == "__main__":
    sys.exit(main())
