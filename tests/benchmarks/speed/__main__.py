"""Measure speed and memory on one head of 192 x 224 x 160 with 4 echoes, and judge every limit.

Usage: python -m tests.benchmarks.speed [--stages NAME ...] [--kinds KIND ...] [--docs DIR] [--json FILE] [--folder DIR]
Prints the page of results; exits 0 only if every limit is kept. Nothing else should run beside it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from qsm_dask.stages import ANATOMY, STAGES
from tests.benchmarks.speed.cases import CACHED, PIPELINES, THREADED, Row, missed
from tests.benchmarks.speed.page import line, page

ROOT = Path(__file__).parents[3]
KINDS = {
    "stage": tuple(name for name in STAGES if name not in ANATOMY),
    "pipeline": PIPELINES,
    "compare": ("unwrapping", "relaxometry", "first call"),
    "threads": tuple(THREADED),
    "cache": CACHED,
}


def environment(threads: int) -> dict[str, str]:
    """What a measurement starts with: so many threads a library, and freed memory given back, as peaks must show."""
    libraries = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**os.environ, **libraries, "NUMBA_NUM_THREADS": str(threads), "MALLOC_MMAP_THRESHOLD_": str(2**20)}


def measured(kind: str, name: str, folder: Path) -> Row:
    """One row, from a fresh process."""
    order = [sys.executable, "-m", "tests.benchmarks.speed.measure", kind, name, str(folder)]
    threads = 2 if kind == "threads" else 1
    done = subprocess.run(order, cwd=ROOT, env=environment(threads), capture_output=True, text=True, check=False)
    if done.returncode:
        return {"kind": kind, "name": name, "failed": (done.stderr.strip().splitlines() or ["no word"])[-1]}
    return {"kind": kind, "name": name, **json.loads(done.stdout.splitlines()[-1])}


@contextmanager
def _place(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        yield folder.resolve()
        return
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def read(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.speed", description=__doc__.partition("\n")[0])
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), help="what to measure")
    parser.add_argument("--stages", nargs="+", default=[""], help="only names that contain one of these")
    parser.add_argument("--folder", type=Path, help="where the simulated head is kept between runs")
    parser.add_argument("--docs", type=Path, help="folder to write speed.md to")
    parser.add_argument("--json", type=Path, help="file to write every figure to")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = read(arguments)
    asked = [(kind, name) for kind in KINDS if kind in options.kinds for name in KINDS[kind]]
    asked = [(kind, name) for kind, name in asked if any(part in name for part in options.stages)]
    rows = []
    with _place(options.folder) as folder:
        prepared = measured("head", "", folder)
        if "failed" in prepared:
            print(f"the head could not be simulated: {prepared['failed']}", file=sys.stderr)
            return 2
        for number, (kind, name) in enumerate(asked, 1):
            print(f"{number} of {len(asked)}:", end=" ", file=sys.stderr, flush=True)
            rows.append(measured(kind, name, folder))
            print(line(rows[-1]), file=sys.stderr, flush=True)
    text = page(rows)
    if options.docs:
        options.docs.mkdir(parents=True, exist_ok=True)
        (options.docs / "speed.md").write_text(text, encoding="utf-8")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    print(text)
    misses = [one for row in rows for one in missed(row)]
    print(*(misses or ["speed: every limit is kept"]), sep="\n")
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main())
