"""The transforms of a kernel: recorded while it runs, and replayed alone."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import scipy.fft

# `inverse` of kernels.fourier takes two calls for one volume: the planes count, the lines do not.
WHOLE = ("rfftn", "ifftn", "irfftn", "fftn", "dctn", "idctn", "dstn", "idstn")
PARTS = ("irfft", "rfft", "fft", "ifft", "dct", "idct", "dst", "idst")
REPLAYS = 7

Call = tuple[str, tuple[int, ...], str, tuple[tuple[str, Any], ...]]
"""Function, shape and type of what it transforms, and its options."""


class Recorder:
    """Counts every transform of scipy.fft while it is entered, by function, shape, type and options."""

    def __init__(self) -> None:
        self.calls: Counter[Call] = Counter()
        self._kept: dict[str, Callable[..., Any]] = {}

    def count(self, voxels: int) -> int:
        """Transforms of volumes of at least `voxels`."""
        return sum(
            times
            for (name, shape, _, _), times in self.calls.items()
            if name in WHOLE and len(shape) == 3 and np.prod(shape) >= voxels
        )

    def seconds(self) -> float:
        """Processor time of the same transforms alone: the median of several of each kind, times how often it ran."""
        return sum(times * _alone(call) for call, times in self.calls.items())

    def _recorded(self, name: str) -> Callable[..., Any]:
        def call(array: Any, **options: Any) -> Any:
            given = tuple(sorted(options.items()))
            self.calls[name, np.shape(array), np.asarray(array).dtype.str, given] += 1
            return self._kept[name](array, **options)

        return call

    def __enter__(self) -> Self:
        for name in (*WHOLE, *PARTS):
            self._kept[name] = getattr(scipy.fft, name)
            setattr(scipy.fft, name, self._recorded(name))
        return self

    def __exit__(self, *_: object) -> None:
        for name, function in self._kept.items():
            setattr(scipy.fft, name, function)


def _alone(call: Call) -> float:
    name, shape, kind, options = call
    dtype = np.dtype(kind)
    random = np.random.default_rng(0)
    source = random.standard_normal(shape, dtype=np.float32).astype(dtype)
    if dtype.kind == "c":
        source += dtype.type(1j) * random.standard_normal(shape, dtype=np.float32)
    spent = []
    for _ in range(REPLAYS):
        work = source.copy()  # a transform may overwrite it
        start = time.process_time()
        getattr(scipy.fft, name)(work, **dict(options))
        spent.append(time.process_time() - start)
    return float(np.median(spent))
