"""Speed and memory of every stage on one head of 192 x 224 x 160 with 4 echoes, one thread, against its own FFTs.

Usage: python tests/benchmarks/bench_kernels.py [--stages NAME ...] [--pipelines NAME ...] [--write FILE] [--folder DIR]

Each stage runs in a process of its own on a head simulated once. Seconds are processor time of the
process, so that other work on the machine disturbs them little. `FFTs` counts transforms of a whole
volume, `x FFT` is the stage's time over the time of its own transforms in that same run, and memory
is the measured peak beside the inputs, as a share of what the stage declares.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

if __name__ == "__main__":  # a thread a library, before NumPy is loaded
    sys.path.insert(0, str(Path(__file__).parents[2]))
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**20))  # what is freed is given back, as peaks must show

import numpy as np
import scipy.fft

from qsm_dask.engine.resources import PeakMemory, resident
from qsm_dask.kernels import fourier
from qsm_dask.pipeline import Pipeline
from qsm_dask.quantities import QUANTITIES, RAW
from qsm_dask.stages import ANATOMY, STAGES
from tests.benchmarks import head_case

VOLUME = 4 * int(np.prod(head_case.SHAPE))
PIPELINES = ("consensus", "fast")

# What the project has set itself: times the stage's own transforms, and seconds.
TIMES_TRANSFORMS = dict.fromkeys(
    [f"inversion.{name}" for name in ("tkd", "tikhonov", "tv", "rts", "ndi", "fansi")]
    + [f"background.{name}" for name in ("vsharp", "resharp", "pdf")],
    2.0,
)
SECONDS = {
    "background.lbv": 3.0,
    "background.pdf": 15.0,
    "inversion.medi": 60.0,
    "inversion.tgv": 90.0,
    "consensus": 12.0,
    "fast": 4.0,
}
VOLUMES = {"consensus": 20.0}
Row = Mapping[str, Any]


class Transforms:
    """Counts and times every transform of scipy.fft while it is entered."""

    # `inverse` of kernels.fourier takes two calls for one volume: the planes count, the lines do not.
    WHOLE = ("rfftn", "ifftn", "irfftn", "fftn", "dctn", "idctn", "dstn", "idstn")
    PARTS = ("irfft", "rfft", "fft", "ifft", "dct", "idct", "dst", "idst")

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0
        self._kept: dict[str, Callable[..., Any]] = {}

    def _timed(self, function: Callable[..., Any], counts: int) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            start = time.process_time()
            result = function(*args, **options)
            self.seconds += time.process_time() - start
            self.count += counts if np.ndim(result) == 3 and result.size > VOLUME // 32 else 0
            return result

        return call

    def __enter__(self) -> Self:
        for name in (*self.WHOLE, *self.PARTS):
            self._kept[name] = getattr(scipy.fft, name)
            setattr(scipy.fft, name, self._timed(self._kept[name], int(name in self.WHOLE)))
        return self

    def __exit__(self, *_: object) -> None:
        for name, function in self._kept.items():
            setattr(scipy.fft, name, function)


def reference_transform() -> float:
    """Seconds of one rfftn of the padded grid, the least of several."""
    shape = fourier.padded_shape(head_case.SHAPE, np.ones(3), fourier.MARGIN_MM)
    volume = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    spent = []
    for _ in range(5):
        start = time.process_time()
        fourier.forward(volume)
        spent.append(time.process_time() - start)
    return min(spent)


def measure_stage(name: str, folder: Path) -> Row:
    """Time, transforms and peak memory of one stage; this process has done nothing else."""
    stage = STAGES[name]
    small = head_case.read(folder / "small", stage.inputs)
    lacking = [quantity for quantity in stage.inputs if quantity not in small and quantity not in stage.optional]
    if lacking:
        return {"stage": name, "lacks": lacking}
    given = head_case.read(folder / "full", stage.inputs)
    parameters = {"labels": (1, 2)} if name == "reference.region" else {}
    values = [[of.get(quantity) for quantity in stage.inputs] for of in (small, given)]
    stage.kernel(*values[0], **parameters)  # compiled, or loaded from the cache
    before, peak = resident(), PeakMemory()
    start = time.process_time()
    with peak:
        result = stage.kernel(*values[1], **parameters)
    seconds = time.process_time() - start
    taken = peak.bytes - before
    del result
    with Transforms() as transforms:
        start = time.process_time()
        stage.kernel(*values[1], **parameters)
        counted = time.process_time() - start
    declared = stage.memory(head_case.geometry(head_case.SHAPE), {**stage.parameters, **parameters})
    return {
        "stage": name,
        "seconds": min(seconds, counted),
        "transforms": transforms.count,
        "over_transforms": counted / transforms.seconds if transforms.count else None,
        "volumes": taken / VOLUME,
        "of_declared": taken / declared,
    }


def measure_pipeline(name: str, folder: Path) -> Row:
    """Kernel time of a whole pipeline, and its peak with every array read when it is needed and freed after."""
    names = tuple({*RAW, "dseg", "r2"} & QUANTITIES.keys())
    pipeline = Pipeline.from_yaml(name)

    def run(size: str, shape: tuple[int, int, int]) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            plan = pipeline.plan(head_case.geometry(shape), head_case.present(folder / size, names))

            def load(node: str, wanted: str) -> Any:
                return head_case.read(folder / size if node == "ingest" else Path(scratch), (wanted,)).get(wanted)

            for result in plan.run(load, [node.name for node in plan.nodes]):
                for output, array in result.outputs.items():
                    np.save(f"{scratch}/{output}.npy", array)

    run("small", head_case.SMALL)
    before, peak = resident(), PeakMemory()
    start = time.process_time()
    with peak:
        run("full", head_case.SHAPE)
    seconds = time.process_time() - start
    transform = reference_transform()
    return {
        "pipeline": name,
        "seconds": seconds,
        "in_transforms": seconds / transform,
        "volumes": (peak.bytes - before) / VOLUME,
    }


def measure_apart(kind: str, name: str, folder: Path) -> Row:
    """`measure_<kind>` in a fresh process."""
    done = subprocess.run(
        [sys.executable, __file__, "--one", kind, name, "--folder", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return {kind: name, "failed": done.stderr.strip().splitlines()[-1:]}
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def misses(row: Row) -> Iterator[str]:
    """What a row does not keep of what was set."""
    name = row.get("stage") or row["pipeline"]
    if "failed" in row:
        yield f"{name} failed: {row['failed']}"
    for figure, limits, unit in (
        ("over_transforms", TIMES_TRANSFORMS, "times its transforms"),
        ("seconds", SECONDS, "s"),
        ("volumes", VOLUMES, "float32 volumes"),
    ):
        if name in limits and (row.get(figure) or 0.0) > limits[name]:
            yield f"{name} takes {row[figure]:.2f} {unit}; {limits[name]:g} is set"
    if (row.get("of_declared") or 0.0) > 1.0:
        yield f"{name} takes {row['of_declared']:.2f} of the memory it declares"


def stage_line(row: Row) -> str:
    """A row of the table of stages."""
    name = row["stage"]
    if "seconds" not in row:
        return f"| {name} | {row.get('failed') or row.get('lacks')} | | | | |"
    ratio = f"{row['over_transforms']:.2f}" if row["over_transforms"] else ""
    return (
        f"| {name} | {row['seconds']:.2f} | {row['transforms'] or ''} | {ratio} | "
        f"{row['volumes']:.1f} | {row['of_declared']:.2f} |"
    )


def pipeline_line(row: Row) -> str:
    """A row of the table of pipelines."""
    if "seconds" not in row:
        return f"| {row['pipeline']} | {row.get('failed')} | | |"
    return f"| {row['pipeline']} | {row['seconds']:.1f} | {row['in_transforms']:.0f} | {row['volumes']:.1f} |"


def report(stages: Sequence[str], pipelines: Sequence[str], folder: Path) -> Iterator[tuple[str, Row | None]]:
    """The lines of the report as they are measured, with the row that each shows."""
    grid = "x".join(map(str, fourier.padded_shape(head_case.SHAPE, np.ones(3), fourier.MARGIN_MM)))
    yield "| pipeline | seconds | in rfftn of its padded grid | peak, float32 volumes |", None
    yield "|-|-|-|-|", None
    for name in pipelines:
        row = measure_apart("pipeline", name, folder)
        yield pipeline_line(row), row
    yield "", None
    yield f"The padded grid is {grid}; one float32 `rfftn` of it takes {reference_transform():.3f} s.", None
    yield "", None
    yield "| stage | seconds | FFTs | x FFT | peak, float32 volumes | of declared |", None
    yield "|-|-|-|-|-|-|", None
    for name in stages:
        row = measure_apart("stage", name, folder)
        yield stage_line(row), row


@contextmanager
def _place(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", nargs="*", default=[name for name in STAGES if name not in ANATOMY])
    parser.add_argument("--pipelines", nargs="*", default=PIPELINES)
    parser.add_argument("--folder", type=Path, help="where the simulated head is kept between runs")
    parser.add_argument("--write", type=Path, help="Markdown file that gets the table")
    parser.add_argument("--most", type=float, help="exit 1 if consensus costs more rfftn than this")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        kind, name = options.one
        measure = {"stage": measure_stage, "pipeline": measure_pipeline}[kind]
        print(json.dumps(measure(name, options.folder)))
        return
    with _place(options.folder) as folder:
        head_case.write(folder / "small", head_case.SMALL)
        head_case.write(folder / "full", head_case.SHAPE)
        lines, rows = [], list[Row]()
        for line, row in report(options.stages, options.pipelines, folder):
            print(line, flush=True)
            lines.append(line)
            rows += [row] if row is not None else []
    if options.write:
        options.write.write_text("\n".join(lines) + "\n")
    missed = [text for row in rows for text in misses(row)]
    print("", *(missed or ["every limit is kept"]), sep="\n")
    if options.most is not None:
        found = next(row["in_transforms"] for row in rows if row.get("pipeline") == "consensus")
        print(f"consensus costs {found:.0f} rfftn of its padded grid; {options.most:g} are allowed")
        sys.exit(found > options.most)


if __name__ == "__main__":
    main()
