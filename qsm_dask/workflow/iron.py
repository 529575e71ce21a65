"""The iron of deep grey matter as a table: a row a scan and region, those that are refused with the reason."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from qsm_dask.cohort import iron
from qsm_dask.io.documents import json_bytes
from qsm_dask.io.tables import tsv_bytes
from qsm_dask.references import WHOLE
from qsm_dask.regions import split_side
from qsm_dask.store import CohortStore
from qsm_dask.store.documents import IRON, IRON_DICTIONARY

_VALUES = ("iron", "iron_se", "chi", "chi_se")
_COLUMNS = {
    "scan": "The scan",
    "participant_id": "The participant, as in participants.tsv",
    "session_id": "The session",
    "region": "Name of the region, as in its label table",
    "structure": "The region without its side",
    "hemisphere": "left, right, or missing where the name tells no side",
    "iron": "Iron of wet tissue",
    "iron_se": "Standard error of iron: of slope, intercept, mean and reference; voxels taken for independent",
    "chi": "Mean susceptibility, relative to the reference",
    "chi_se": "Standard error of the mean susceptibility and of its reference; voxels taken for independent",
    "reason": "Why there is no iron",
}
_UNITS = {"iron": "ug/g", "iron_se": "ug/g", "chi": "ppm", "chi_se": "ppm"}
_LACKING = "the scan lacks the region, its core (take another --statistic) or the reference"


@dataclass(frozen=True)
class Summary:
    """What a run came to.

    Attributes
    ----------
    scans : those with region values.
    regions : those whose iron was told, in any scan.
    refused : reason by region, of the others.
    without : scans without iron: they lack the reference, or the statistic in every region.
    table : the document written.
    """

    scans: int
    regions: tuple[str, ...]
    refused: dict[str, str]
    without: tuple[str, ...]
    table: str


def run(cohort: CohortStore, calibration: str, reference: str = "csf", statistic: str = "core_mean") -> Summary:
    """Write the iron table of a cohort.

    Parameters
    ----------
    cohort : the store, with region values.
    calibration : name of one, or a YAML file; see `iron.calibration`.
    reference : what susceptibility is made relative to.
    statistic : one of `iron.MEANS`.

    Raises
    ------
    ConfigError : no such calibration or statistic, or the line does not hold for the reference.
    StoreError : there is no such reference, or the table cannot be written.
    """
    found = iron.content(cohort, calibration, reference, statistic).compute()
    told = found["region"].values.tolist()
    everywhere = cohort.dataset()["region"].values.tolist()
    refused = {region: iron.obstacle(region) for region in everywhere if region not in told and region != WHOLE}
    table = np.stack([found[name].values for name in _VALUES], axis=-1)
    rows = []
    for scan, subject, session, values in zip(
        *(found[name].values.tolist() for name in ("scan", "subject", "session")), table, strict=True
    ):
        lead = (scan, subject, session or None)
        for region, numbers in zip(told, values.tolist(), strict=True):
            rows.append((*lead, *_named(region), *numbers, None if np.isfinite(numbers[0]) else _LACKING))
        rows += [(*lead, *_named(region), *[None] * 4, reason) for region, reason in refused.items()]
    dictionary: dict[str, Any] = {
        name: {"Description": text} | ({"Units": _UNITS[name]} if name in _UNITS else {})
        for name, text in _COLUMNS.items()
    }
    line = asdict(iron.calibration(calibration))
    unknown = {name for name, value in line.items() if isinstance(value, float) and math.isnan(value)}
    line |= dict.fromkeys(unknown)  # JSON has no NaN
    cohort.write_document(IRON, tsv_bytes(tuple(_COLUMNS), rows))
    cohort.write_document(
        IRON_DICTIONARY,
        json_bytes(
            {**dictionary, "Calibration": {"name": calibration, **line}, "Reference": reference, "Statistic": statistic}
        ),
    )
    empty = ~np.isfinite(found["iron"].values).any(axis=1)
    return Summary(len(table), tuple(told), refused, tuple(found["scan"].values[empty].tolist()), IRON)


def _named(region: str) -> tuple[str, str, str | None]:
    structure, side = split_side(region)
    return region, structure, side or None
