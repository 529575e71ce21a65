"""The data dictionary of the region tables: what each column is, in which unit, against which reference."""

from collections.abc import Mapping
from typing import Any

from qsm_dask.quantities import quantity
from qsm_dask.references import COUNTS

_INSIDE = "the voxels of the region inside the mask"

STATISTICS: Mapping[str, str] = {
    "n": "number of voxels of the region inside the mask",
    "volume_mm3": "volume of the region inside the mask",
    "mean": f"mean over {_INSIDE}",
    "sd": f"standard deviation (n - 1 below) over {_INSIDE}",
    "median": f"median over {_INSIDE}",
    "mad": f"median absolute deviation from the median (not scaled), over {_INSIDE}",
    "p05": f"5th percentile over {_INSIDE}",
    "p25": f"25th percentile over {_INSIDE}",
    "p75": f"75th percentile over {_INSIDE}",
    "p95": f"95th percentile over {_INSIDE}",
    "coverage": "share of the region's voxels that lies inside the mask",
    "trimmed_mean": f"mean over {_INSIDE} without the lowest and the highest tenth",
    "clipped_mean": f"mean over {_INSIDE} that lie within 3 standard deviations, estimated as 4.448 mad, of the median",
    "mass": f"sum over {_INSIDE}, times the volume of a voxel",
    "core_n": "number of voxels of the region whose six neighbours belong to it too",
    "core_mean": "mean over the voxels of the region whose six neighbours belong to it too",
    "core_median": "median over the voxels of the region whose six neighbours belong to it too",
    "weighted_volume_mm3": "sum of the region's probability over the mask, times the volume of a voxel",
    "weighted_mean": "mean over the mask, weighted by the region's probability",
    "pv_mean": "value of a voxel that the region fills: the regression of values on its probability, at 1",
}
"""What each of `quantities.COORDINATES["statistic"]` is."""

MOMENTS: Mapping[str, tuple[str, str]] = {
    "chi_reference_offset": ("ppm", "value subtracted from chi: its mean in the reference before referencing"),
    "chi_reference_sd": ("ppm", "standard deviation of chi in the reference"),
    "chi_reference_n": ("1", "number of voxels of the reference"),
}
"""The columns of `chi_reference`, in the order of `quantities.COORDINATES["moment"]`: unit and meaning."""

CSF_MOMENTS: Mapping[str, tuple[str, str]] = {
    "chi_csf_offset": (
        "ppm",
        "susceptibility of the fluid of the ventricles in this table: take it off to refer to it",
    ),
    "chi_csf_sd": ("ppm", "standard deviation of chi in the fluid of the ventricles"),
    "chi_csf_n": ("1", "number of voxels of the fluid of the ventricles, as its mixture counts them"),
}
"""The columns of `csf_reference`."""

CANDIDATE_COLUMNS: Mapping[str, dict[str, Any]] = {
    "kind": {"Description": "Paramagnetic (blood, iron) or diamagnetic (calcium)"},
    "n": {"Description": "Number of voxels", "Units": "1"},
    "volume_mm3": {"Description": "Volume of the voxels beyond the threshold", "Units": "mm3"},
    "mass": {"Description": "Susceptibility integrated over the candidate", "Units": "ppm mm3"},
    "peak": {"Description": "Strongest susceptibility", "Units": "ppm"},
    **{f"{axis}_mm": {"Description": f"Centre, scanner {axis}", "Units": "mm"} for axis in "xyz"},
    "elongation": {"Description": "Length over width: 1 of a ball; veins are long", "Units": "1"},
    "nearest_region": {"Description": "Name of the nearest region of the label image"},
    "distance_mm": {"Description": "Distance of the centre from that region", "Units": "mm"},
}
"""What the columns of the candidates table are, after those that name the scan."""

_FIXED = {
    "scan": "the scan: its BIDS entities but echo and part, and its suffix if it is not MEGRE",
    "participant_id": "the participant, as in participants.tsv",
    "session_id": "the session",
    "state": "done, or what the scan's processing came to: failed, pending, skipped",
    "regions": "number of regions with values",
    "participant": "whether participants.tsv has one row for the participant: matched, missing, ambiguous",
    "digest": "digest of the region values that this row was made from",
    "reason": "why the scan has no values",
    "map": "the map that the value was taken from",
    "region": "name of the region, as in its label table; whole_brain is the whole mask",
    "structure": "the region without its side",
    "hemisphere": "left, right, or missing where the name tells no side",
    "label": "number of the region in the label image; 0 is the whole mask",
    "statistic": "; ".join(f"{name}: {meaning}" for name, meaning in STATISTICS.items()),
    "value": "the value, in the unit of its row",
    "unit": "unit of the value",
    "reference": "what the values of chi are relative to",
    "chi_reference": "what the susceptibility of this scan is relative to",
}


def unit_of(map_name: str, statistic: str) -> str:
    """The unit of a statistic of a map."""
    own = quantity(map_name).units
    fixed = {"n": "1", "core_n": "1", "coverage": "1", "volume_mm3": "mm3", "weighted_volume_mm3": "mm3"}
    return fixed.get(statistic, f"{own} mm3" if statistic == "mass" else own)


def describe(column: str) -> dict[str, Any]:
    """The entry of a column that every cohort has.

    Raises
    ------
    KeyError : there is no such column.
    """
    if column in (*MOMENTS, *CSF_MOMENTS):
        unit, meaning = {**MOMENTS, **CSF_MOMENTS}[column]
        return {"Description": _sentence(meaning), "Units": unit}
    return {"Description": _sentence(_FIXED[column])}


def describe_value(map_name: str, statistic: str, region: str, label: str, reference: str) -> dict[str, Any]:
    """The entry of a column of region values.

    Parameters
    ----------
    map_name, statistic, region, label : what the column holds.
    reference : what chi is relative to, empty for other maps.
    """
    entry: dict[str, Any] = {
        "Description": f"{_sentence(quantity(map_name).meaning)}, {region.replace('_', ' ')}: {statistic}",
        "Units": unit_of(map_name, statistic),
        "Definition": _sentence(STATISTICS[statistic]),
        "Map": map_name,
        "Region": region,
        "Label": label,
        "Statistic": statistic,
    }
    if reference and statistic not in COUNTS:
        entry["Reference"] = reference
    return entry


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
