"""Who is scanned: age, sex, size, form and iron of one subject, drawn from a seed."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from qsm_dask.phantom import nuclei

IRON_SD = 0.08
"""Standard deviation between people of the iron of a region, as a fraction."""


@dataclass(frozen=True)
class Subject:
    """One person.

    Attributes
    ----------
    age : [years]; sex : `F` or `M`.
    head_from_array : (3, 3) maps mm along the array axes to mm in MNI coordinates.
    deformation_mm : standard deviation of the smooth deformation.
    ventricle_mm : how much wider than in youth the ventricles are.
    iron_excess : fraction by which a region's iron exceeds that of the age.
    pose : (3, 3) rotation of the array axes to the scanner's axes in an oblique scan.
    calcified : whether the choroid plexus is.
    form_seed, scan_seed : of the random fields of the head, and of the noise.
    """

    age: float
    sex: str
    head_from_array: NDArray[np.float64]
    deformation_mm: float
    ventricle_mm: float
    iron_excess: Mapping[str, float]
    pose: NDArray[np.float64]
    calcified: bool
    form_seed: np.random.SeedSequence
    scan_seed: np.random.SeedSequence


def rotation(degrees: tuple[float, float, float]) -> NDArray[np.float64]:
    """The rotation matrix Rz Ry Rx of right-handed angles about x, y and z."""
    result = np.eye(3)
    for axis, angle in enumerate(np.deg2rad(degrees)):
        first, second = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[first, first] = turn[second, second] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        result = turn @ result
    return result


def draw_subject(number: int, seed: int, age: float | None = None, *, calcified: bool = True) -> Subject:
    """Draw subject `number` of the cohort `seed`; how many others there are does not matter.

    Parameters
    ----------
    number : counts from 1.
    seed : of the cohort.
    age : [years]; drawn from 20 to 80 if not given.
    calcified : whether the choroid plexus is; nothing else depends on it.

    Raises
    ------
    ValueError : a negative number or seed, or an age outside 0 to 110.
    """
    if number < 0 or seed < 0:
        raise ValueError(f"subject number and seed must not be negative, got {number} and {seed}")
    if age is not None and not 0.0 <= age <= 110.0:
        raise ValueError(f"an age is given in years from 0 to 110, got {age}")
    traits, form_seed, scan_seed = np.random.SeedSequence([seed, number]).spawn(3)
    rng = np.random.default_rng(traits)
    drawn_age = round(float(rng.uniform(20.0, 80.0)), 1)
    sex = "M" if rng.random() < 0.5 else "F"
    scale = np.clip(0.95 + 0.02 * rng.standard_normal(3) + (0.01 if sex == "M" else -0.01), 0.90, 0.99)
    tilt = np.clip(3.0 * rng.standard_normal(3), -6.0, 6.0)
    excess = {region: float(np.clip(IRON_SD * rng.standard_normal(), -0.25, 0.25)) for region in nuclei.NUCLEI}
    years = drawn_age if age is None else float(age)
    pose = (float(rng.uniform(15.0, 33.0)), float(rng.uniform(-8.0, 8.0)), float(rng.uniform(-5.0, 5.0)))
    return Subject(
        age=years,
        sex=sex,
        head_from_array=np.diag(1.0 / scale) @ rotation((tilt[0], tilt[1], tilt[2])),
        deformation_mm=1.5,
        ventricle_mm=0.025 * max(years - 30.0, 0.0) + float(np.clip(0.4 * rng.standard_normal(), -0.6, 0.8)),
        iron_excess=MappingProxyType(excess),
        pose=rotation(pose),
        calcified=calcified,
        form_seed=form_seed,
        scan_seed=scan_seed,
    )
