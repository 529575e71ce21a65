"""What each stage, pipeline and comparison is asked to keep: the one table of limits."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
"""The figures of one measurement by their names; `name` is what was measured."""

PIPELINES = ("consensus", "fast", "swi", "two-pass", "separation", "ukb", "accurate")
"""All that are shipped but `regions`, which needs an atlas."""

CACHED = ("inversion.tkd", "inversion.rts", "background.pdf")
"""Stages of which the gain by the cache of spectra is measured: one division, an iteration, a kernel from space."""


@dataclass(frozen=True)
class Limit:
    """The most, or with `least` the least, that a figure may be.

    Attributes
    ----------
    figure : of a row.
    value : the limit.
    unit : as the page says it.
    least : whether it is the least.
    """

    figure: str
    value: float
    unit: str
    least: bool = False

    def __str__(self) -> str:
        """What is asked, in a few characters."""
        return f"{'>=' if self.least else '<='} {self.value:g} {self.unit}"

    def kept(self, row: Row) -> bool:
        """Whether a row keeps it; a figure that is lacking keeps nothing."""
        found = row.get(self.figure)
        return found is not None and bool(found >= self.value if self.least else found <= self.value)


_TIMES = Limit("ratio", 2.0, "x FFT")
_CONVERGED = Limit("converged", 1, "converged", least=True)
_PEAK = Limit("of_declared", 1.0, "of the memory declared")

_STAGES: Mapping[str, tuple[Limit, ...]] = {
    **dict.fromkeys([f"inversion.{name}" for name in ("tkd", "tikhonov", "tv", "rts", "ndi", "fansi")], (_TIMES,)),
    **dict.fromkeys(["background.vsharp", "background.resharp"], (_TIMES,)),
    "background.pdf": (_TIMES, Limit("seconds", 15.0, "s"), _CONVERGED),
    "background.lbv": (Limit("seconds", 3.0, "s"), Limit("residual", 1e-4, "residual")),
    "inversion.medi": (Limit("seconds", 60.0, "s"),),
    "inversion.tgv": (Limit("seconds", 90.0, "s"),),
}

_OTHERS: Mapping[str, tuple[Limit, ...]] = {
    "consensus": (
        Limit("seconds", 12.0, "s"),
        Limit("in_transforms", 350.0, "rfftn"),
        Limit("volumes", 20.0, "volumes"),
    ),
    "fast": (Limit("seconds", 4.0, "s"),),
    "unwrapping": (
        Limit("times_faster", 4.0, "x faster than scikit-image", least=True),
        Limit("extension_share", 1.0, "of a second unwrapping for all other echoes"),
    ),
    "relaxometry": (Limit("of_bandwidth", 0.5, "of the bandwidth of a copy", least=True),),
    "first call": (Limit("seconds", 3.0, "s"), Limit("compiled", 0.0, "functions compiled")),
}

THREADED: Mapping[str, tuple[Limit, ...]] = {
    name: (Limit("gain", 1.6, "x", least=True), Limit("differing", 0.0, "voxels that differ"))
    for name in (
        "inversion.tkd",
        "inversion.tikhonov",
        "inversion.rts",
        "inversion.tv",
        "inversion.ndi",
        "background.vsharp",
        "field.nonlinear_fit",
    )
}
"""Stages that are measured with two threads."""

SHORTENED: Mapping[str, Mapping[str, int]] = {
    "inversion.rts": {"max_iterations": 5},
    "inversion.tv": {"max_iterations": 5},
    "inversion.ndi": {"max_iterations": 10},
}
"""What they are measured with then: all iterations cost the same, and each stage runs seven times."""


def _radii(parameters: Mapping[str, Any]) -> int:
    """How many spheres V-SHARP takes."""
    span = parameters["radius_mm"] - parameters["radius_min_mm"]
    return math.ceil(span / parameters["radius_step_mm"]) + 1


PLANS: Mapping[str, Callable[[int, Mapping[str, Any]], int]] = {
    "background.vsharp": lambda _, given: 1 + _radii(given) + 2,
    "inversion.tv": lambda iterations, given: 2 * iterations + 1 + 3 * given["extensions"],
    "inversion.rts": lambda iterations, given: 2 * iterations + 2 + 3 * given["extensions"],
}
"""Transforms that the design allows: a sphere each, two an iteration and three to extend the field."""


def limits(row: Row) -> tuple[Limit, ...]:
    """What a row is asked to keep."""
    name = row["name"]
    if row["kind"] == "threads":
        return THREADED[name]
    if row["kind"] == "pipeline":
        return (*_OTHERS.get(name, ()), _PEAK)
    if row["kind"] != "stage":
        return _OTHERS.get(name, ())
    planned = [Limit("transforms", row["planned"], "FFTs")] if "planned" in row else []
    return (*_STAGES.get(name, ()), *planned, _PEAK)


def missed(row: Row) -> list[str]:
    """What a row does not keep, in words."""
    if "failed" in row:
        return [f"{row['kind']} {row['name']} failed: {row['failed']}"]
    if "lacks" in row:
        return []
    return [
        f"{row['kind']} {row['name']}: {float(row.get(limit.figure, 'nan')):.3g} {limit.unit}, asked {limit}"
        for limit in limits(row)
        if not limit.kept(row)
    ]
