"""What stages are compared with: another program, the bandwidth of memory, two threads, and empty caches."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft

from qsm_dask.kernels import fourier, relaxometry
from qsm_dask.kernels.unwrap.romeo import romeo
from qsm_dask.pipeline import Pipeline
from qsm_dask.workflow import compile_ahead
from tests.benchmarks import head_case
from tests.benchmarks.first_scan import first_scan
from tests.benchmarks.speed.calls import Prepared
from tests.benchmarks.speed.cases import SHORTENED, Row


def _least(call: Callable[[], Any], runs: int = 5, clock: Callable[[], float] = time.process_time) -> float:
    spent = []
    for _ in range(runs):
        start = clock()
        call()
        spent.append(clock() - start)
    return min(spent)


def unwrapping(folder: Path) -> Row:
    """ROMEO on one echo beside scikit-image on the same masked phase, and what the other echoes add.

    The phase is free of offsets, so that all four echoes can be unwrapped from one.
    """
    from skimage.restoration import unwrap_phase

    given = head_case.read(folder / "full", ("phase", "phase_offset", "mask", "te", "magnitude"))
    mask, te, magnitude = given["mask"], given["te"], given["magnitude"]
    rest = given["phase"] - given["phase_offset"]
    phase = (rest - 2 * np.pi * np.rint(rest / (2 * np.pi))).astype(np.float32)

    def ours(echoes: int) -> Any:
        return romeo(phase[:echoes], mask, te[:echoes], magnitude[:echoes])

    masked = np.ma.masked_array(phase[0].astype(np.float64), ~mask)
    one, every = _least(lambda: ours(1)), _least(lambda: ours(te.size))
    other = _least(lambda: unwrap_phase(masked), 2)
    apart = np.rint((unwrap_phase(masked).data - ours(1)[0])[mask] / (2 * np.pi))
    return {
        "seconds": one,
        "other_seconds": other,
        "times_faster": other / one,
        "every_echo_seconds": every,
        "extension_share": (every - one) / one,
        "differing": int((apart != np.median(apart)).sum()),
    }


def bandwidth(folder: Path) -> Row:
    """Bytes that R2* by ARLO reads and writes a second, beside a copy of the same series.

    It reads the series and the mask twice, to check and to fit. The mask is full, so that all of them are needed.
    """
    given = head_case.read(folder / "full", ("magnitude", "te"))
    magnitude, te = given["magnitude"], given["te"]
    mask = np.ones(magnitude.shape[1:], bool)
    target = np.zeros_like(magnitude)
    relaxometry.arlo(magnitude, te, mask)
    seconds = _least(lambda: relaxometry.arlo(magnitude, te, mask))
    copied = 2 * magnitude.nbytes / _least(lambda: np.copyto(target, magnitude))
    moved = (2 * magnitude.nbytes + 2 * mask.nbytes + 4 * mask.size) / seconds
    return {
        "seconds": seconds,
        "gb_per_s": moved / 1e9,
        "copy_gb_per_s": copied / 1e9,
        "of_bandwidth": moved / copied,
    }


def first_call(_folder: Path) -> Row:
    """What a worker's first scan costs beside its later ones, once kernels are compiled."""
    compile_ahead.run(Pipeline.from_yaml("consensus"))
    found = first_scan("consensus")
    return {
        "seconds": found["imports"] + found["calls"],
        "compiled": found["misses"],
        **{key: found[key] for key in ("imports", "calls", "loaded")},
    }


COMPARISONS: Mapping[str, Callable[[Path], Row]] = {
    "unwrapping": unwrapping,
    "relaxometry": bandwidth,
    "first call": first_call,
}


def two_threads(name: str, folder: Path) -> Row:
    """A stage on one thread and on two, in turn: wall time, as only that can gain, and whether the results agree."""
    prepared = Prepared(name, folder, SHORTENED.get(name, {}))

    def run(threads: int) -> tuple[float, Any]:
        with scipy.fft.set_workers(threads):
            start = time.perf_counter()
            result = prepared.timed()[1]
            return time.perf_counter() - start, result

    run(2)
    spent: dict[int, list[float]] = {1: [], 2: []}
    maps = {}
    for _ in range(3):
        for threads, times in spent.items():
            seconds, result = run(threads)
            times.append(seconds)
            maps[threads] = result[0] if isinstance(result, tuple) else result
    one, two = min(spent[1]), min(spent[2])
    return {
        "seconds": one,
        "two_seconds": two,
        "gain": one / two,
        "differing": int((maps[1].view(np.uint32) != maps[2].view(np.uint32)).sum()),
    }


def kept_spectra(name: str, folder: Path) -> Row:
    """A stage with the cache of spectra emptied before each call, and with the spectra of the call before."""
    prepared = Prepared(name, folder)
    empty, kept = [], []
    for _ in range(3):
        fourier.spectra = fourier.SpectrumCache(fourier.CACHE_BYTES)
        empty.append(prepared.timed()[0])
        kept.append(prepared.timed()[0])
    return {"empty_seconds": min(empty), "seconds": min(kept), "gain": min(empty) / min(kept)}
