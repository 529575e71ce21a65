"""What the numbers of a phase series mean: their range, found once for all echoes, and their sign."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsm_dask.errors import ConfigError, InputError
from qsm_dask.scan import ScanKey

_TURN = 2 * math.pi
_STATED_TOLERANCE = 0.05
_RADIANS = ("rad", "radian", "radians")
_ARBITRARY = ("arbitrary", "a.u.", "au", "arbitrary units")


@dataclass(frozen=True)
class Range:
    """A way in which scanners and converters store one turn of phase.

    Attributes
    ----------
    name : for people.
    low, high : the values that a full turn spans.
    turn : how many stored units one turn is.
    zero : the stored value of phase zero.
    coverage : fraction of the turn that the values must span to be recognised by it alone.
    """

    name: str
    low: float
    high: float
    turn: float
    zero: float
    coverage: float


RANGES = (
    # No vendor scales to so few units, so half a turn is proof enough that they are radians.
    Range("radians, -pi..pi", -math.pi, math.pi, _TURN, 0.0, 0.55),
    Range("radians, 0..2 pi", 0.0, _TURN, _TURN, 0.0, 0.9),
    Range("12 bit, 0..4095", 0.0, 4095.0, 4096.0, 2048.0, 0.9),
    Range("signed 12 bit, -2048..2047", -2048.0, 2047.0, 4096.0, 0.0, 0.9),
    Range("milliradians, -3142..3142", -1000 * math.pi, 1000 * math.pi, 1000 * _TURN, 0.0, 0.9),
    Range("rescaled 12 bit, -4096..4094", -4096.0, 4095.0, 8192.0, 0.0, 0.9),
)
"""Known ranges, the narrowest first; none lies so near another that 90 % of a turn fits both."""


@dataclass(frozen=True)
class Scale:
    """How to turn stored values into radians: `(value - zero) * factor`."""

    factor: float
    zero: float
    reason: str
    warning: str | None = None


def find_scale(
    units: Mapping[str, str | None], low: float, high: float, scaling: Sequence[tuple[float, float, bool]]
) -> Scale:
    """Find what a turn is in a phase series, once, from all its echoes together.

    `Units: rad` is taken at its word. Otherwise the values must fill one of the known
    `RANGES`, or the header's own scaling must be that of one (a 12-bit integer times
    `scl_slope` plus `scl_inter`). Values that fill only a part of a turn are never
    stretched to fill it: without other evidence they are refused.

    Parameters
    ----------
    units : `Units` of each phase file by label, None where absent.
    low, high : the smallest and the largest value of all echoes.
    scaling : slope, intercept and whether the stored type is an integer, of each file.

    Raises
    ------
    InputError : the series is constant, its units contradict each other or the values, or
        no range can be told.
    """
    first = next(iter(units))
    if not high > low:
        raise InputError(f"{first}: the phase is {low:g} everywhere; the images hold no phase")
    stated = {_unit(label, value) for label, value in units.items()}
    if len(stated) > 1:
        raise InputError(f"{first}: Units differ within the series ({_listed(units)}); correct the sidecars")
    if stated == {"rad"}:
        if high - low > (1 + _STATED_TOLERANCE) * _TURN:
            raise InputError(
                f"{first}: Units says rad, but the values run from {low:g} to {high:g}, more than one turn; "
                "correct Units, or give the phase as the scanner wrapped it"
            )
        return Scale(1.0, 0.0, "Units: rad")
    found = _from_header(low, high, scaling) or _from_values(low, high)
    if found is None:
        raise InputError(
            f"{first}: phase units cannot be told: the values of all echoes run from {low:g} to {high:g}, which fills "
            f"none of the known ranges ({'; '.join(known.name for known in RANGES)}); "
            'convert the phase to radians and say "Units": "rad" in the sidecar'
        )
    range_, reason = found
    warning = None if stated == {"arbitrary"} else f"phase has no Units; taken for {range_.name} ({reason})"
    return Scale(_TURN / range_.turn, range_.zero, f"{range_.name} ({reason})", warning)


def to_radians(phase: NDArray[np.float32], scale: Scale, sign: int) -> None:
    """Turn stored values into wrapped radians of the project's sign, in place, echo by echo."""
    turn = np.float32(_TURN)
    for echo in phase:
        if scale.zero:
            np.subtract(echo, np.float32(scale.zero), out=echo)
        if scale.factor != 1.0:
            np.multiply(echo, np.float32(scale.factor), out=echo)
        if max(-echo.min(), echo.max()) > np.float32(math.pi):
            beyond = np.abs(echo) > np.float32(math.pi)
            echo[beyond] -= turn * np.rint(echo[beyond] / turn)
        if sign < 0:
            np.negative(echo, out=echo)


def to_polar(real: NDArray[np.float32], imag: NDArray[np.float32], sign: int) -> None:
    """Turn real into magnitude and imaginary into wrapped phase [rad], in place, slab by slab."""
    for r, i in zip(real.reshape(-1, *real.shape[2:]), imag.reshape(-1, *imag.shape[2:]), strict=True):
        magnitude = np.hypot(r, i)
        np.arctan2(i if sign > 0 else -i, r, out=i)
        r[...] = magnitude


def _unit(label: str, value: str | None) -> str | None:
    if value is None:
        return None
    text = str(value).strip().lower()
    if text in _RADIANS:
        return "rad"
    if text in _ARBITRARY:
        return "arbitrary"
    raise InputError(f'{label}: Units of a phase image is {value!r}; BIDS allows "rad" or "arbitrary"')


def _listed(units: Mapping[str, str | None]) -> str:
    return ", ".join(sorted({str(value) if value is not None else "absent" for value in units.values()}))


def _fits(range_: Range, low: float, high: float) -> bool:
    slack = range_.turn / 4096 + 1e-3 * range_.turn
    return low >= range_.low - slack and high <= range_.high + slack


def _from_values(low: float, high: float) -> tuple[Range, str] | None:
    for range_ in RANGES:
        covered = (high - low) / (range_.high - range_.low)
        if _fits(range_, low, high) and covered >= range_.coverage:
            return range_, f"values run from {low:g} to {high:g}"
    return None


def _from_header(low: float, high: float, scaling: Sequence[tuple[float, float, bool]]) -> tuple[Range, str] | None:
    """Read the range off the scaling, where it maps 12 bits to a known range and all files share it."""
    slope, inter, integer = scaling[0]
    if not integer or not inter or any(other != scaling[0] for other in scaling):
        return None
    ends = (inter, inter + 4095 * slope)
    for range_ in RANGES:
        near = 0.002 * range_.turn
        if abs(ends[0] - range_.low) < near and abs(ends[1] - range_.high) < near and _fits(range_, low, high):
            return range_, f"scl_slope {slope:g}, scl_inter {inter:g}"
    return None


@dataclass(frozen=True)
class PhaseSign:
    """Which sign to give the phase of a scan.

    The project wants `phase = +2 pi 42.577 b0 field[ppm] te + offset`, so that veins have a
    positive susceptibility.

    Attributes
    ----------
    default : `auto`, `+1` or `-1`.
    scans : signs of single scans or groups of them: `sub-01`, `sub-01_ses-2`.
    manufacturers : signs by the beginning of `Manufacturer`, in lower case.
    """

    default: str = "auto"
    scans: Mapping[str, str] = field(default_factory=dict)
    manufacturers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "PhaseSign":
        """Read `auto`, `+1`, `-1`, or a list such as `auto,GE=-1,sub-03_ses-1=-1`.

        Raises
        ------
        ConfigError : anything else.
        """
        default, scans, manufacturers = "auto", {}, {}
        for item in filter(None, (part.strip() for part in text.split(","))):
            name, _, value = item.rpartition("=")
            sign = {"1": "+1", "+1": "+1", "-1": "-1", "auto": "auto"}.get(value.strip())
            if sign is None:
                raise ConfigError(
                    f"phase sign {item!r}: expected auto, +1 or -1, or NAME=SIGN as in GE=-1 or sub-03=-1"
                )
            if not name:
                default = sign
            elif re.match(r"^sub-[0-9A-Za-z+]+(_|$)", name.strip()):
                scans[name.strip()] = sign
            else:
                manufacturers[name.strip().lower()] = sign
        return cls(default, scans, manufacturers)

    def of(self, key: ScanKey, manufacturer: str | None) -> tuple[int, str, str | None]:
        """The sign of a scan, why, and a warning where the user should look.

        What names the scan most closely wins, then the manufacturer, then the default.
        `auto` is +1 for every vendor: the phase is taken as delivered. GE phase has been
        reported with the opposite sign of Siemens' for the same sequence, but not always,
        so it is not turned unasked; a warning says how to.
        """
        matching = self._naming(key)
        if matching:
            name = max(matching, key=lambda name: (name.count("_"), name))
            if self.scans[name] != "auto":
                return int(self.scans[name]), f"given for {name}", None
        maker = (manufacturer or "").lower()
        named = [name for name in self.manufacturers if maker.startswith(name)]
        if named and not matching:
            name = max(named, key=len)
            if self.manufacturers[name] != "auto":
                return int(self.manufacturers[name]), f"given for manufacturer {manufacturer}", None
        if self.default != "auto" and not matching and not named:
            return int(self.default), "given for all scans", None
        warning = None
        if maker.startswith("ge"):
            warning = (
                "GE phase may have the opposite sign, it was taken as delivered: if veins are negative in chi, "
                "ingest again with phase sign GE=-1"
            )
        return 1, "auto: taken as delivered", warning

    def to_dict(self, key: ScanKey) -> dict[str, Any]:
        """What bears on one scan, as plain values."""
        scans = {name: self.scans[name] for name in self._naming(key)}
        return {"default": self.default, "scans": scans, "manufacturers": dict(self.manufacturers)}

    def _naming(self, key: ScanKey) -> list[str]:
        """Entries that name the scan or a group that it belongs to."""
        parts = set(str(key).split("_"))
        return [name for name in self.scans if set(name.split("_")) <= parts]
