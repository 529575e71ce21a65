"""What a cohort of many scans costs before any of them is computed: opening it, `status`, and a run with nothing to do.

The cohort is made up: the commits of its scans hold no arrays and say that a map
is there, so that nothing of the pipeline is left to do.
Run `python tests/benchmarks/bench_index.py [--scans 2000] [--most-open SECONDS] [--most-ms MS]
[--most-growth MIB]`.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import qsm_dask as qd
from qsm_dask.engine import SerialEngine
from qsm_dask.engine.resources import resident
from qsm_dask.quantities import NODES
from qsm_dask.scan import Geometry
from qsm_dask.store import INGEST_KEY, Recorder
from qsm_dask.store.files import LocalFiles
from qsm_dask.workflow import process, status
from tests.benchmarks import page

GEOMETRY = Geometry((2, 2, 2), (1.0, 1.0, 1.0), (0.004, 0.008, 0.012))
EMPTY = {
    "name": "empty",
    "steps": ["mask.magnitude", "unwrap.laplacian", "field.weighted_mean", "background.vsharp", "inversion.tkd"],
}
"""Nothing of it is left to do where the map is there already."""
SETTLED = 0.3
LISTINGS = 4
"""More would grow with the cohort: the index is listed twice a reading."""


def make_up(place: Path, scans: int) -> None:
    """Write a cohort of scans whose susceptibility is known."""
    cohort = qd.CohortStore.create(place)
    files = [
        f"sub-x/anat/sub-x_echo-{echo}_part-{part}_MEGRE.nii.gz" for echo in (1, 2, 3) for part in ("mag", "phase")
    ]
    sources = {
        name: {"from": "raw", "files": files}
        for name in ("phase", "magnitude", "te", "b0", "b0_dir", "voxel_size", "affine")
    } | {name: {"from": "derivatives", "files": [f"d/sub-x_{name}.nii.gz"]} for name in ("chi", "local_field", "mask")}
    attributes = {
        "digests": dict.fromkeys(sources, "0" * 32),
        "sources": sources,
        "labels": {},
        "warnings": [],
        "files": {file: {"size": 1, "mtime_ns": 1, "sha256": "0" * 64} for file in files},
        "geometry": GEOMETRY.to_dict(),
        "facts": {"geometry": GEOMETRY.to_dict(), "sources": sources, "warnings": []},
    }
    rows = []
    for number in range(scans):
        key = qd.ScanKey((("sub", f"{number:05d}"),))
        bare = {"attributes": attributes, "provenance": {}, "seconds": 0.1, "peak_bytes": 1}
        rows.append(cohort.write(key, "ingest", INGEST_KEY, {}, **bare).row())
        if len(rows) == 256 or number == scans - 1:
            cohort.record(rows)
            rows = []


class Counted:
    """Counts how often a block lists folders and reads objects of the store."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def __enter__(self) -> Counter[str]:
        self.before = {name: getattr(LocalFiles, name) for name in ("names", "sizes", "ages", "get")}
        for name, method in self.before.items():
            setattr(LocalFiles, name, self._counting(name, method))
        return self.calls

    def _counting(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(files: LocalFiles, key: str) -> Any:
            self.calls["get" if name == "get" else "list"] += 1
            return method(files, key)

        return call

    def __exit__(self, *_error: object) -> None:
        for name, method in self.before.items():
            setattr(LocalFiles, name, method)


def timed(work: Callable[[], Any]) -> tuple[float, Counter[str]]:
    """Processor seconds of this thread, and calls of the store."""
    with Counted() as calls:
        start = time.process_time()
        work()
        return time.process_time() - start, calls


def nothing_to_do(place: Path, scans: int) -> float:
    """Processor seconds a scan of a run whose pipeline is empty."""
    start = time.process_time()
    summary = process.run(qd.open_cohort(place), SerialEngine(2**30), qd.Pipeline.from_mapping(EMPTY))
    seconds = time.process_time() - start
    assert summary.done == scans, summary
    return seconds / scans


def recording(place: Path, scans: int) -> float:
    """Growth of this process [MiB] while the driver records that every scan was processed, after the first 30 %."""
    settled = 0
    with Recorder(qd.open_cohort(place)) as recorder:
        for number in range(scans):
            digest = f"{number:032d}"
            known = {"state": "done", "key": digest, "digest": digest, "seconds": 1.0, "peak_bytes": 1}
            known["facts"] = {"run": [digest, digest], "warnings": [], "left_out": [f"{digest}: made already"] * 4}
            recorder.add([{"scan": f"sub-{number:05d}", "node": node, **known} for node in NODES[1:]])
            if number == int(SETTLED * scans):
                settled = resident()
    return (resident() - settled) / 2**20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scans", type=int, default=2_000)
    parser.add_argument("--most-open", type=float, default=float("inf"), help="seconds")
    parser.add_argument("--most-ms", type=float, default=float("inf"), help="a scan, of a run with nothing to do")
    parser.add_argument("--most-growth", type=float, default=float("inf"), help="of the driver, MiB")
    parser.add_argument("--docs", type=Path, help="write the figures to its page scale.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "cohort")
        with patch("os.fsync"):  # nobody needs these scans after a crash
            make_up(place, options.scans)
        opening, of_opening = timed(lambda: qd.open_cohort(place).scans())
        looking, of_looking = timed(lambda: status.run(qd.open_cohort(place)))
        running = 1e3 * nothing_to_do(place, options.scans)
        with patch("os.fsync"):
            growth = recording(place, options.scans)
    lines = (
        f"open, and name every scan: {opening:.2f} s; {of_opening['list']} listings, {of_opening['get']} objects read",
        f"`status`: {looking:.2f} s; {of_looking['list']} listings, {of_looking['get']} objects read",
        f"`process` when nothing is left to do, in one process: {running:.2f} ms a scan",
        f"recording 3 nodes of every scan: the driver changes by {growth:+.1f} MiB after the first {SETTLED:.0%}",
    )
    if options.docs:
        told = [f"A cohort of {options.scans} scans (processor time):", "", *(f"- {line}" for line in lines)]
        page.put(options.docs, "index", told)
    print(f"{options.scans} scans (processor time):", *lines, sep="\n  ")
    few = max(of_opening["list"], of_looking["list"]) <= LISTINGS
    cheap = opening <= options.most_open and running <= options.most_ms and growth <= options.most_growth
    return 0 if few and cheap else 1


if __name__ == "__main__":
    sys.exit(main())
