"""The page of results, in Markdown: for the terminal and for docs."""

import os
import platform
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from qsm_dask.engine.resources import Machine
from tests.benchmarks import head_case
from tests.benchmarks.speed.cases import Row, limits, missed

Column = tuple[str, Callable[[Row], str]]

_HEAD = """# Speed and memory

Written by `make bench`; do not edit. One simulated head of {shape} voxels of 1 mm with {echoes} echoes; every line is
measured in a process of its own, at default parameters.

- **CPU s** is processor time of that process on one thread, after a first call on a small head.
- **own FFT s** is the time of the very transforms that the stage made, by number, size and kind, run again alone in
  the same process right after it; **ratio** is CPU s over that.
- **FFTs** counts transforms of whole volumes, **its.** iterations (in brackets: stopped before it converged).
- **peak MB** is the peak resident memory beside the inputs. What is **declared** holds for a mask that fills the
  matrix; this head fills a fifth of it, so that many stages stay well below.
- **asked** is what the project has set itself; that the peak stays below what is declared is asked of every stage and
  pipeline.

{machine}.
"""


def page(rows: Sequence[Row]) -> str:
    """The page of all rows."""
    parts = [_head(), _verdict(rows)]
    for kind, title, text, columns in _TABLES:
        chosen = [row for row in rows if row["kind"] == kind and "lacks" not in row]
        if chosen:
            parts += [f"\n## {title}\n", text, "", *_table(chosen, columns)]
    lacking = [f"`{row['name']}` ({row['lacks']})" for row in rows if "lacks" in row]
    if lacking:
        parts += ["", f"Not measured, for want of inputs on this head: {', '.join(lacking)}."]
    return "\n".join(parts) + "\n"


def line(row: Row) -> str:
    """A row in one line, while it is measured."""
    figures = [f"{key} {value:.4g}" for key, value in row.items() if isinstance(value, float)]
    said = row.get("failed") or row.get("lacks") or ", ".join(figures)
    return f"{row['kind']} {row['name']}: {said}"


def machine() -> str:
    """The processor, its cores and memory, and the libraries that compute."""
    here = Machine.here()
    libraries = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy", "numba"))
    return (
        f"{_processor()}, {here.cpus} cores, {here.memory / 2**30:.0f} GiB; "
        f"Python {platform.python_version()}, {libraries}"
    )


def _processor() -> str:
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.machine()
    named = [entry.partition(":")[2].strip() for entry in told.splitlines() if entry.startswith("model name")]
    return named[0] if named else platform.machine()


def _head() -> str:
    shape = " x ".join(map(str, head_case.SHAPE))
    return _HEAD.format(shape=shape, echoes=len(head_case.TE), machine=machine())


def _verdict(rows: Sequence[Row]) -> str:
    misses = [one for row in rows for one in missed(row)]
    load = os.getloadavg()[0]
    beside = f" The load average at the end was {load:.1f}: other work ran beside." if load > 2.5 else ""
    if not misses:
        return f"Every limit is kept.{beside}"
    return "\n".join([f"Not kept:{beside}", "", *(f"- {one}" for one in misses)])


def _table(rows: Sequence[Row], columns: Sequence[Column]) -> list[str]:
    shown = [*columns, ("asked", lambda row: ", ".join(map(str, limits(row)[: _own(row)]))), ("", _said)]
    lines = ["| " + " | ".join(title for title, _ in shown) + " |"]
    lines.append("|---|" + "---:|" * (len(columns) - 1) + "---|---|")
    return lines + ["| " + " | ".join(cell(row) for _, cell in shown) + " |" for row in rows]


def _own(row: Row) -> int | None:
    """How many limits a row has but for the memory, which every stage and pipeline has."""
    return -1 if row["kind"] in {"stage", "pipeline"} else None


def _said(row: Row) -> str:
    if missed(row):
        return "**miss**"
    return "pass" if limits(row)[: _own(row)] else ""


def _figure(key: str, form: str = "{:.2f}") -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        found: Any = row.get(key)
        return "" if found is None or (key == "transforms" and not found) else form.format(found)

    return cell


def _name(row: Row) -> str:
    return f"`{row['name']}`" if row["kind"] != "compare" else str(row["name"])


def _iterations(row: Row) -> str:
    if "iterations" not in row:
        return ""
    return str(row["iterations"]) if row["converged"] else f"({row['iterations']})"


def _compared(row: Row) -> str:
    return _WORDS[row["name"]].format(**row) if "failed" not in row else "failed"


_WORDS = {
    "unwrapping": (
        "ROMEO unwraps one echo in {seconds:.2f} s and scikit-image's `unwrap_phase` the same masked phase in "
        "{other_seconds:.2f} s, {times_faster:.1f} times as long; {differing} voxels differ. All four echoes take "
        "{every_echo_seconds:.2f} s: the three others add {extension_share:.2f} of the first."
    ),
    "relaxometry": (
        "R2\\* by ARLO, mask full, moves {gb_per_s:.1f} GB/s; a copy of the same series moves {copy_gb_per_s:.1f} GB/s."
    ),
    "first call": (
        "A worker's first scan by `consensus`, compiled ahead: {imports:.1f} s for imports and {calls:.1f} s more than "
        "its second scan; {compiled:.0f} functions compiled, {loaded:.0f} loaded."
    ),
}

_TABLES: Sequence[tuple[str, str, str, Sequence[Column]]] = (
    (
        "pipeline",
        "Pipelines",
        (
            "Kernels only, each array read when it is needed and freed after. *rfftn* is the time over that of one "
            "float32 `rfftn` of the padded grid, in the same process."
        ),
        (
            ("pipeline", _name),
            ("CPU s", _figure("seconds", "{:.1f}")),
            ("rfftn", _figure("in_transforms", "{:.0f}")),
            ("s of one", _figure("transform_seconds", "{:.3f}")),
            ("peak MB", _figure("peak_mb", "{:.0f}")),
            ("float32 volumes", _figure("volumes", "{:.1f}")),
            ("declared", _figure("declared_volumes", "{:.1f}")),
        ),
    ),
    (
        "stage",
        "Stages",
        "",
        (
            ("stage", _name),
            ("CPU s", _figure("seconds")),
            ("own FFT s", _figure("transform_seconds")),
            ("ratio", _figure("ratio")),
            ("FFTs", _figure("transforms", "{:d}")),
            ("its.", _iterations),
            ("peak MB", _figure("peak_mb", "{:.0f}")),
            ("declared MB", _figure("declared_mb", "{:.0f}")),
        ),
    ),
    ("compare", "Beside other measures", "", (("", _name), ("measured", _compared))),
    (
        "threads",
        "Two threads",
        (
            "Wall time with one thread and with two (`threads_per_worker: 2`), the least of three in turn; RTS and TV "
            "do five iterations, NDI ten. Results are the same bit for bit."
        ),
        (
            ("stage", _name),
            ("one thread, s", _figure("seconds")),
            ("two threads, s", _figure("two_seconds")),
            ("gain", _figure("gain")),
            ("voxels that differ", _figure("differing", "{:d}")),
        ),
    ),
    (
        "cache",
        "Spectra kept between scans",
        "CPU s with the cache of spectra emptied before each call, and with the spectra of the call before.",
        (
            ("stage", _name),
            ("emptied, s", _figure("empty_seconds")),
            ("kept, s", _figure("seconds")),
            ("gain", _figure("gain", "{:.3f}")),
        ),
    ),
)
