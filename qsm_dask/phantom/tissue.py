"""What tissues are made of: iron by age, susceptibility, relaxation and signal at 3 T.

Iron follows Hallgren and Sourander (1958, doi:10.1111/j.1471-4159.1958.tb12607.x). Susceptibility follows iron by
the line `CHI_PER_IRON`, `CHI_AT_ZERO_IRON`, fitted to group means of different cohorts: a good default for a
phantom, not a calibration. Values marked (assumed) have no table behind them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

CHI_PER_IRON = 0.690e-3
"""Slope of susceptibility over iron [ppm per µg/g wet weight]."""

CHI_AT_ZERO_IRON = -28.7e-3
"""Susceptibility of deep grey matter without iron [ppm]."""

R2PRIME_PER_PPM = 137.0
"""R2' of one ppm of para- plus one of |dia|magnetic susceptibility, at 3 T [1/s per ppm]; it scales with b0."""

AIR = 9.2
"""Susceptibility of air relative to water [ppm]."""

BONE = -2.1
"""Susceptibility of cortical bone relative to water [ppm]."""

FAT = 0.65
"""Susceptibility of fat relative to water [ppm]."""

# Iron [mg/100 g] = amplitude (1 - exp(-rate age)) + birth.
_GROWTH: Mapping[str, tuple[float, float, float]] = MappingProxyType(
    {
        "globus_pallidus": (21.41, 0.09, 0.37),
        "putamen": (14.62, 0.04, 0.46),
        "caudate": (9.66, 0.05, 0.33),
    }
)
# Adult means [mg/100 g]; the paper gives no age curve for them.
_ADULT: Mapping[str, float] = MappingProxyType(
    {"red_nucleus": 19.48, "substantia_nigra": 18.46, "dentate": 10.35, "thalamus": 4.76}
)


def iron(region: str, age: float) -> float:
    """Iron of a deep grey region [µg/g wet weight] at `age` [years].

    Raises
    ------
    ValueError : the region has no iron on record.
    """
    if region in _GROWTH:
        amplitude, rate, birth = _GROWTH[region]
        return 10.0 * (amplitude * (1.0 - math.exp(-rate * age)) + birth)
    if region in _ADULT:
        return 10.0 * _ADULT[region]
    known = ", ".join([*_GROWTH, *_ADULT])
    raise ValueError(f"no iron on record for {region!r}; known are {known}")


def chi_of_iron(content: float) -> float:
    """Susceptibility [ppm] of deep grey matter with `content` µg/g of iron."""
    return CHI_PER_IRON * content + CHI_AT_ZERO_IRON


class Look(NamedTuple):
    """What a scanner sees of a tissue.

    Attributes
    ----------
    chi : susceptibility relative to water [ppm].
    r2star : effective transverse relaxation [1/s].
    signal : at echo time zero [a.u.].
    dia : magnitude of the diamagnetic part of chi [ppm]; only the brain's is told.
    """

    chi: float
    r2star: float
    signal: float
    dia: float = 0.0


def r2prime(para: Any, dia: Any, b0: float) -> Any:
    """R2' [1/s] of para- and of |dia|magnetic susceptibility [ppm] at `b0` [T]."""
    return R2PRIME_PER_PPM * b0 / 3.0 * (para + dia)


@dataclass(frozen=True)
class Tissue:
    """Magnetic make-up of a tissue.

    Attributes
    ----------
    para, dia : magnitudes of its para- and diamagnetic susceptibility [ppm].
    r2 : irreversible transverse relaxation at 3 T [1/s].
    signal : signal at echo time zero in a T1-weighted gradient echo [a.u.].
    """

    para: float
    dia: float
    r2: float
    signal: float

    @property
    def chi(self) -> float:
        """Bulk susceptibility relative to water [ppm]."""
        return self.para - self.dia

    def look(self, b0: float) -> Look:
        """What it looks like at `b0` [T]: R2 is kept, R2' grows in proportion to the field."""
        return Look(self.chi, self.r2 + r2prime(self.para, self.dia, b0), self.signal, self.dia)


BRAIN: Mapping[str, Tissue] = MappingProxyType(
    {
        "white_matter": Tissue(0.017, 0.029, 13.5, 0.92),
        "cortex": Tissue(0.030, 0.010, 11.0, 0.80),
        "csf": Tissue(0.019, 0.0, 0.5, 0.60),
        "accumbens": Tissue(0.045, 0.023, 12.0, 0.80),
        "pulvinar": Tissue(0.052, 0.004, 13.0, 0.84),
        "subthalamic_nucleus": Tissue(0.112, 0.015, 15.0, 0.82),
        "hippocampus": Tissue(0.020, 0.018, 11.0, 0.78),  # (assumed)
        "amygdala": Tissue(0.018, 0.022, 11.0, 0.78),  # (assumed)
        "vein": Tissue(0.300, 0.0, 15.0, 0.75),
        # Half as mineralised as BONE (assumed): between what CT finds as calcified at -0.15 ppm and more
        # (doi:10.64898/2026.05.26.26354154) and the -3 ppm of reconstruction challenges; a fifth of the brain's energy.
        "calcification": Tissue(0.0, 1.000, 30.0, 0.30),
    }
)
"""Tissues whose make-up does not change with age."""

_IRON_RICH: Mapping[str, tuple[float, float, float]] = MappingProxyType(
    {  # |dia| [ppm], R2 [1/s], signal
        "caudate": (0.008, 14.0, 0.82),
        "putamen": (0.010, 14.0, 0.82),
        "globus_pallidus": (0.013, 19.0, 0.86),
        "thalamus": (0.021, 14.0, 0.85),
        "substantia_nigra": (0.011, 17.0, 0.83),
        "red_nucleus": (0.010, 17.0, 0.84),
        "dentate": (0.020, 15.0, 0.83),  # |dia| (assumed)
    }
)


def deep_grey(region: str, age: float, excess: float = 0.0) -> Tissue:
    """Tissue of a deep grey region at `age` [years].

    Parameters
    ----------
    region : its name without the side.
    age : [years].
    excess : how much more iron than the age has the person has, as a fraction.

    Returns
    -------
    Tissue : of the table where the region has no iron on record; then `excess` scales its paramagnetic part.
    """
    if region not in _IRON_RICH:
        base = BRAIN[region]
        return Tissue(base.para * (1.0 + excess), base.dia, base.r2, base.signal)
    dia, r2, signal = _IRON_RICH[region]
    chi = chi_of_iron(iron(region, age) * (1.0 + excess))
    return Tissue(max(chi + dia, 0.0), dia, r2, signal)
