"""One case after the other, or several at a time, each in a process of its own."""

import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context

from tests.benchmarks.accuracy import cases
from tests.benchmarks.accuracy.cases import Case
from tests.benchmarks.accuracy.pictures import Album, Tile
from tests.benchmarks.accuracy.runs import Row, methods, run

FORWARD_KINDS = ("axial", "oblique")


@dataclass(frozen=True)
class Plan:
    """What to run.

    Attributes
    ----------
    methods : parts of their names; seeds : a head each, with and without calcification.
    shape, snr, oblique : of the heads; forward : whether `qsm-forward` is measured too.
    """

    methods: Sequence[str]
    seeds: Sequence[int]
    shape: tuple[int, int, int]
    snr: float
    oblique: bool
    forward: bool

    def cases(self) -> list[tuple[int | str, bool]]:
        """Seed or kind of each case, and whether it is calcified."""
        heads: list[tuple[int | str, bool]] = [(seed, calcified) for calcified in (True, False) for seed in self.seeds]
        return heads + [(kind, True) for kind in FORWARD_KINDS if self.forward]

    def about(self) -> str:
        """One line for the page."""
        return (
            f"Heads of {'x'.join(map(str, self.shape))} voxels, {'oblique' if self.oblique else 'axial'}, "
            f"SNR {self.snr:g}, seeds {', '.join(map(str, self.seeds))}."
        )


def gather(plan: Plan, jobs: int) -> tuple[list[Row], list[Tile], int]:
    """Every row; and the tiles of the first case, with their zoom."""
    task, todo = partial(_measure, plan), plan.cases()
    if jobs == 1:
        done = list(map(task, todo))
    else:
        with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
            done = list(pool.map(task, todo))
    return [row for rows, _, _ in done for row in rows], done[0][1], done[0][2]


def _measure(plan: Plan, what: tuple[int | str, bool]) -> tuple[list[Row], list[Tile], int]:
    case = _case(plan, *what)
    album = Album(case)
    rows = []
    for row in run(case, methods(plan.methods), album.keep):
        rows.append(row)
        said = row.reason or f"NRMSE {row.figures['nrmse']:.1f} %"
        print(
            f"{case.group}, {case.name}: {row.mode} {row.method}, {row.quantity}: {said}, {row.seconds:.1f} s",
            file=sys.stderr,
        )
    return rows, album.tiles, album.zoom


def _case(plan: Plan, which: int | str, calcified: bool) -> Case:
    if isinstance(which, str):
        return cases.forward(which)
    return cases.head(which, plan.shape, plan.snr, calcified=calcified, oblique=plan.oblique)
