"""Iron from susceptibility: published lines, what they hold for, and what they cannot be used for.

A calibration is the line  susceptibility = slope * iron + intercept  of a tissue, against one reference. The intercept
belongs to the reference; a slope holds against any. Values that nobody could look up in their source are marked
(recalled): compare them with the paper before you publish a number that rests on them.
"""

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import yaml

from qsm_dask.errors import ConfigError
from qsm_dask.regions import split_side

if TYPE_CHECKING:
    import xarray as xr

    from qsm_dask.store import CohortStore


@dataclass(frozen=True)
class Calibration:
    """A line from iron to susceptibility.

    Attributes
    ----------
    slope, slope_se : [ppb per ug/g of wet tissue].
    intercept, intercept_se : susceptibility without iron [ppb].
    references : what the susceptibility must be relative to.
    source : where the numbers come from.
    cite : DOI; empty where there is none to cite.
    recalled : which of the numbers were not looked up in their source.
    """

    slope: float
    slope_se: float
    intercept: float
    intercept_se: float
    references: tuple[str, ...]
    source: str
    cite: str = ""
    recalled: str = ""

    def iron(self, susceptibility: Any, se: Any) -> tuple[Any, Any]:
        """Iron and its standard error [ug/g] of a mean susceptibility and its standard error [ppm].

        The errors of slope, intercept and mean are taken for independent and propagated to first order.
        """
        content = (1e3 * susceptibility - self.intercept) / self.slope
        square = (1e3 * se) ** 2 + self.intercept_se**2 + (content * self.slope_se) ** 2
        return content, square**0.5 / self.slope


CALIBRATIONS: Mapping[str, Calibration] = MappingProxyType(
    {
        "zheng2013": Calibration(
            1.10, 0.08, 0.0, 0.0, ("csf",),
            "ferritin and cadaveric brain by X-ray fluorescence, Zheng 2013 (NeuroImage 78, 68-74)",
            recalled="that the line passes through zero, which is taken to be that of fluid: no intercept was found",
        ),
        "langkammer2012": Calibration(
            0.89, math.nan, 0.0, 0.0, ("csf",),
            "grey matter of 13 unfixed brains by mass spectrometry, Langkammer 2012",
            "10.1016/j.neuroimage.2012.05.049",
            "slope (its error is unknown here, so no error of iron is told), and that the line passes through the zero "
            "of fluid; looked up was r = 0.84 in grey matter",
        ),
        "simulated": Calibration(
            0.690, 0.0, -28.7 - 19.0, 0.0, ("csf",),
            "what the heads of `qsm-dask simulate` are made of, exactly; fluid has 19 ppb: for tests, not for people",
        ),
    }
)  # fmt: skip
"""The calibrations that are offered."""

_DEEP_GREY = (
    *("caudate", "putamen", "pallidum", "pallidus", "gp", "gpe", "gpi", "accumbens", "accu", "thalamus", "pulvinar"),
    *("hippocampus", "hippo", "amygdala", "substantia", "nigra", "sn", "snc", "snr", "red", "ruber", "rn"),
    *("subthalamic", "stn", "dentate", "striatum", "habenula", "vta"),
)
_WHITE = ("white", "wm", "callosum", "capsule", "radiata", "fasciculus", "tract", "fornix", "splenium", "genu", "plic")
_NO_TISSUE = (
    *("ventricle", "ventricles", "vent", "csf", "vein", "veins", "vessel", "calcification", "choroid", "plexus"),
)


def calibration(name: str) -> Calibration:
    """One of `CALIBRATIONS`, or one of your own: a YAML file whose keys are the attributes of `Calibration`.

    Raises
    ------
    ConfigError : there is none of that name, or the file is no calibration.
    """
    if name in CALIBRATIONS:
        return CALIBRATIONS[name]
    if not name.endswith((".yaml", ".yml")):
        close = difflib.get_close_matches(name, CALIBRATIONS, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(CALIBRATIONS)}, or your own YAML file"
        raise ConfigError(f"no iron calibration {name!r}; {hint}")
    try:
        content = yaml.safe_load(Path(name).read_text(encoding="utf-8"))
        given: dict[str, Any] = {key: str(content[key]) for key in ("source", "cite", "recalled") if key in content}
        given |= {key: float(content[key]) for key in ("slope", "slope_se", "intercept", "intercept_se")}
        made = Calibration(**given, references=_names(content["references"]))
    except (OSError, yaml.YAMLError, TypeError, ValueError, KeyError) as error:
        needed = ", ".join(field.name for field in fields(Calibration))
        raise ConfigError(f"{name} is no iron calibration ({error}): it has {needed}") from error
    if not made.slope > 0:
        raise ConfigError(f"{name}: slope is {made.slope:g}; iron raises susceptibility, so it must be positive")
    return made


MEANS: Mapping[str, str] = MappingProxyType(
    {"core_mean": "core_n", "mean": "n", "clipped_mean": "n", "trimmed_mean": "n", "weighted_mean": "n"}
)
"""Statistics that iron may be told from, each with the number of its voxels."""


def content(cohort: "CohortStore", name: str, reference: str = "csf", statistic: str = "core_mean") -> "xr.Dataset":
    """Iron of the deep grey matter of every scan.

    Parameters
    ----------
    cohort : the store.
    name : of a calibration.
    reference : what susceptibility is made relative to; the calibration must hold for it.
    statistic : one of `MEANS`. The voxels at the edge of a nucleus are filled by their neighbours in part, which costs
        a putamen in voxels of 2 mm a tenth of its iron: the core is free of them, and missing where a nucleus is thin.

    Returns
    -------
    xarray.Dataset : `iron`, `iron_se` [ug/g of wet tissue], `chi`, `chi_se` [ppm] of (scan, region), lazy; regions of
        which `obstacle` tells nothing. The error of a mean is SD / sqrt(n) of the region and of the reference together,
        as if voxels were independent: a lower bound, for neighbours in a susceptibility map are not.

    Raises
    ------
    ConfigError : no such calibration or statistic, or the line does not hold for the reference.
    StoreError : there is no such reference.
    """
    line = calibration(name)
    check_reference(name, reference)
    if statistic not in MEANS:
        raise ConfigError(f"iron cannot be told from {statistic!r}; take one of {', '.join(MEANS)}")
    values = cohort.dataset(reference)["chi"]
    chosen = [region for region in values["region"].values.tolist() if not obstacle(region)]
    values = values.sel(region=chosen)
    number = values.sel(statistic=MEANS[statistic], drop=True)
    own = values.sel(statistic="sd", drop=True) ** 2 / number.where(number > 0)
    known = cohort.references()
    if reference not in known["reference"].values:
        raise ConfigError(f"iron needs one reference by itself, not {reference!r}: its error is told for one at a time")
    moments = known.sel(reference=reference)
    size = moments.sel(moment="n", drop=True)
    common = moments.sel(moment="sd", drop=True) ** 2 / size.where(size > 0)
    chi, se = values.sel(statistic=statistic, drop=True), (own + common.drop_vars("reference")) ** 0.5
    iron, error = line.iron(chi, se)
    tables = {"iron": (iron, "ug/g"), "iron_se": (error, "ug/g"), "chi": (chi, "ppm"), "chi_se": (se, "ppm")}
    found = chi.to_dataset(name="chi")
    for variable, (array, units) in tables.items():
        found[variable] = array.assign_attrs(units=units)
    return found.assign_attrs(calibration=name, reference=reference, statistic=statistic)


def check_reference(name: str, reference: str) -> None:
    """Refuse a reference that a calibration does not hold for.

    Raises
    ------
    ConfigError : the susceptibility is relative to something else.
    """
    held = calibration(name).references
    if reference not in held:
        raise ConfigError(
            f"the calibration {name} holds for susceptibility relative to {' or '.join(held)}, not to {reference}: its "
            "intercept would be wrong by the difference"
        )


def obstacle(region: str) -> str:
    """Why the iron of a region cannot be told; empty if it can.

    Parameters
    ----------
    region : its name, as the label table has it.
    """
    words = set(re.split(r"[^a-z]+", split_side(region)[0]))
    if words & set(_WHITE):
        return "white matter: myelin is diamagnetic and outweighs iron, so susceptibility does not tell iron there"
    if words & set(_NO_TISSUE):
        return "fluid, vessels or mineral: susceptibility there is not that of iron stored in tissue"
    if not words & set(_DEEP_GREY):
        return "its name is that of no deep grey matter, for which the calibrations were made"
    return ""


def _names(given: Any) -> tuple[str, ...]:
    """One name, or a list of them."""
    return (given,) if isinstance(given, str) else tuple(map(str, given))
