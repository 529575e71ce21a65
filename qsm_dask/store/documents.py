"""The documents of a cohort: small files beside its scans, each under one name."""

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qsm_dask.store.cohort import CohortStore

DATASET = "dataset.json"
"""Name, folder, BIDS version and derivatives of the dataset that was ingested last."""

PARTICIPANTS = "participants.parquet"
"""The participants of the cohort, as their dataset's `participants.tsv` has them."""

PIPELINE = "pipeline.json"
"""The pipeline that `process` ran last."""

REGIONS = "tables/regions.parquet"
"""A row a scan, map, region and statistic."""

WIDE = "tables/regions.tsv"
"""A row a scan, joined with the participants."""

WIDE_DICTIONARY = "tables/regions.json"
"""What the columns of `WIDE` are."""

IRON = "tables/iron.tsv"
"""A row a scan and region, by the calibration that `iron` ran with last."""

IRON_DICTIONARY = "tables/iron.json"
"""What the columns of `IRON` are, and the calibration."""

CANDIDATES = "tables/candidates.tsv"
"""A row a calcification or microbleed candidate, where the pipeline looks for them."""

CANDIDATES_DICTIONARY = "tables/candidates.json"
"""What the columns of `CANDIDATES` are."""

SCANS = "tables/scans.tsv"
"""Every scan, with the reason where it has no values."""

SCANS_DICTIONARY = "tables/scans.json"
"""What the columns of `SCANS` are."""

WARNINGS = "tables/warnings.json"
"""What did not match while the tables were made."""

REPORT = "report/index.html"
"""The page that shows the cohort."""

PICTURES = "report/pictures.json"
"""What each picture of the report shows, so that it is drawn again only when that changed."""


def picture(scan: str) -> str:
    """The picture of a scan in the report."""
    return f"report/scans/{scan}.png"


def read_json(cohort: "CohortStore", name: str) -> Any:
    """The content of a JSON document; None if there is none."""
    data = cohort.read_document(name)
    return None if data is None else json.loads(data)
