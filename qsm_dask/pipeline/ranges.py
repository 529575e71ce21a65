"""Which values a parameter may have, so that one that no scan could be computed with is refused before the run.

Kernels refuse them too, scan by scan: they are called by hand as well. A test holds the two together.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Range:
    """Numbers between two limits.

    Attributes
    ----------
    low, high : the limits.
    least, most : whether the limits themselves are allowed.
    """

    low: float = -math.inf
    high: float = math.inf
    least: bool = False
    most: bool = False

    def __contains__(self, value: float) -> bool:
        """Whether a number may be taken."""
        above = value >= self.low if self.least else value > self.low
        return above and (value <= self.high if self.most else value < self.high)

    def __str__(self) -> str:
        """As a sentence goes on after `must be`."""
        low = f"{'at least' if self.least else 'above'} {_plain(self.low)}"
        high = f"{'at most' if self.most else 'below'} {_plain(self.high)}"
        said = [text for text, limit in ((low, self.low), (high, self.high)) if math.isfinite(limit)]
        return " and ".join(said)


_POSITIVE, _NOT_NEGATIVE, _NEGATIVE = Range(0.0), Range(0.0, least=True), Range(high=0.0)
_OF_KERNEL = Range(0.0, 1 / 3)
"""The dipole kernel reaches from -2/3 to 1/3: with a larger threshold nothing positive is left."""
_FRACTION = Range(0.0, 1.0, least=True)
_PROBABILITY = Range(0.0, 1.0, most=True)

_ABOVE_ZERO = (
    "above_ppm", "cg_iterations", "cg_tolerance", "csf_r2star", "damping", "decay_s", "dia_per_s_ppm", "edge_weight",
    "fidelity", "field_rho", "first_iterations", "fraction", "harmonic_mm4", "harmonic_rho_mm4", "least_mm3",
    "least_voxels", "lsmr_iterations", "max_iterations", "max_per_s", "max_s", "most_elongation", "most_mm3",
    "noise_ratio", "para_per_s_ppm", "r2star_below", "radius_min_mm", "radius_mm", "radius_step_mm",
    "relaxation_weight", "residual_rad", "resolution_mm", "rho", "second_weight", "sensitivity_mm", "slices",
    "smoothing_mm", "step", "streak_iterations", "streak_tolerance", "strength", "strong_ppm", "strong_weight_ppm_mm",
    "template_echo", "threshold", "tolerance", "tolerance_rad", "weight", "weight_mm", "weight_ppm_mm",
)  # fmt: skip
_NOT_BELOW_ZERO = (
    "affine_iterations", "chi_weight", "closing_mm", "csf_weight", "depth_mm", "edge_steps", "erosion_mm", "extensions",
    "highpass_voxels", "noise_level", "opening_mm", "peel", "rim_mm", "smoothing_voxels",
)  # fmt: skip

RANGES: Mapping[str, Range] = MappingProxyType(
    {
        **dict.fromkeys(_ABOVE_ZERO, _POSITIVE),
        **dict.fromkeys(_NOT_BELOW_ZERO, _NOT_NEGATIVE),
        "below_ppm": _NEGATIVE,
        "cone": _OF_KERNEL,
        "edge_fraction": _FRACTION,
        "iterations": _POSITIVE,
        "percentile": Range(0.0, 100.0),
        "uncertain": Range(0.0, 1.0, least=True, most=True),
        "anatomy.labels.threshold": _PROBABILITY,
        "anatomy.probabilities.threshold": _PROBABILITY,
        "anatomy.register.iterations": _NOT_NEGATIVE,
        "inversion.l1.field_rho": Range(1.0),
        "inversion.hdqsm.field_rho": Range(1.0),
        "inversion.rts.threshold": _OF_KERNEL,
        "inversion.tkd.threshold": _OF_KERNEL,
        "inversion.tsvd.threshold": _OF_KERNEL,
        "mask.deepbet.echo": _POSITIVE,
        "mask.deepbet.threshold": Range(0.0, 1.0),
        "mask.phase_quality.threshold": _FRACTION,
    }
)
"""By the name of a parameter, and by `stage.parameter` where a stage takes it otherwise."""


_ORDERED = (("radius_min_mm", "radius_mm"),)
"""Parameters of which the first must not be larger than the second."""


def check(stage: str, parameter: str, value: Any) -> None:
    """Refuse a value that the stage could not compute any scan with; of several, each counts.

    Raises
    ------
    ValueError : it lies outside its range.
    """
    allowed = RANGES.get(f"{stage}.{parameter}", RANGES.get(parameter))
    if allowed is None:
        return
    for one in value if isinstance(value, tuple) else (value,):
        if one is not None and one not in allowed:
            raise ValueError(f"{one:g} is out of range: it must be {allowed}")


def check_together(parameters: Mapping[str, Any]) -> None:
    """Refuse values that each may be had, but not one beside the other.

    Raises
    ------
    ValueError : a smallest value lies above the largest.
    """
    for smallest, largest in _ORDERED:
        if smallest in parameters and largest in parameters and parameters[smallest] > parameters[largest]:
            raise ValueError(
                f"{smallest}: {parameters[smallest]:g} is out of range: it must be at most {largest}, which is "
                f"{parameters[largest]:g}"
            )


def _plain(limit: float) -> str:
    return "1/3" if limit == 1 / 3 else f"{limit:g}"
