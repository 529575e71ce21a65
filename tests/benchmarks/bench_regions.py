"""Seconds of one core for all region statistics of 100 labels and 5 maps on a head of 192 x 224 x 160 voxels of 1 mm.

Usage: python tests/benchmarks/bench_regions.py [--most SECONDS]

Every voxel of the head is labelled, which is the most there can be to do. Seconds are processor time of the process.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # a thread a library, before NumPy is loaded
    sys.path.insert(0, str(Path(__file__).parents[2]))
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, "1")

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from qsm_dask.kernels.roi import statistics

SHAPE, CELLS, MAPS, TURNS = (192, 224, 160), (5, 5, 4), 5, 7
Head = tuple[NDArray[Any], NDArray[Any], list[NDArray[np.float32]]]


def head(shape: tuple[int, int, int]) -> Head:
    """An ellipsoid of a head's size, cut into 100 labels of as many voxels, and noise for maps."""
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij", sparse=True)
    mask = sum((axis / half) ** 2 for axis, half in zip(axes, (0.71, 0.76, 0.76), strict=True)) < 1
    places = np.argwhere(mask)
    dseg = np.zeros(shape, np.int32)
    number = np.zeros(len(places), np.int64)
    for axis, cells in enumerate(CELLS):
        order = np.lexsort((places[:, axis], number))
        rank = np.empty(len(places), np.int64)
        rank[order] = np.arange(len(places))
        first = np.concatenate([[0], np.cumsum(np.bincount(number))])
        number = number * cells + (rank - first[number]) * cells // np.diff(first)[number]
    dseg[mask] = number + 1
    rng = np.random.default_rng(0)
    return mask, dseg, [rng.standard_normal(shape, dtype=np.float32) for _ in range(MAPS)]


def measure() -> tuple[float, int, float]:
    """Seconds, the least of several; labels; seconds of one transform of the volume on the same machine."""
    small = head((32, 30, 28))
    statistics(small[0], (1, 1, 1), small[1], *small[2])  # compiled, or loaded from the cache
    mask, dseg, maps = head(SHAPE)
    spent, transform = [], []
    for _ in range(TURNS):
        start = time.process_time()
        labels, _ = statistics(mask, (1, 1, 1), dseg, *maps)
        spent.append(time.process_time() - start)
        start = time.process_time()
        scipy.fft.rfftn(maps[0])
        transform.append(time.process_time() - start)
    return min(spent), labels.size - 1, min(transform)


def main() -> int:
    """Print the figures; 1 if they are more than allowed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--most", type=float, default=np.inf, help="seconds that are allowed")
    most = parser.parse_args().most
    seconds, labels, transform = measure()
    print(f"{labels} labels, {MAPS} maps, {'x'.join(map(str, SHAPE))}: {seconds:.3f} s of one core, "
          f"{seconds / transform:.1f} times a transform of the volume; at most {most:g} s")  # fmt: skip
    return 0 if labels == 100 and seconds <= most else 1


if __name__ == "__main__":
    sys.exit(main())
