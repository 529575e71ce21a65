"""Small cohorts written straight into the store: what ingest and process leave, with values chosen by hand."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from qsm_dask.pipeline import Pipeline
from qsm_dask.quantities import COORDINATES
from qsm_dask.scan import Geometry, ScanKey
from qsm_dask.store import INGEST_KEY, CohortStore, Commit

PIPELINE: dict[str, Any] = {
    "name": "by hand",
    "summary": "an inversion of a field that was ingested",
    "steps": [
        "mask.magnitude",
        "unwrap.laplacian",
        "field.weighted_mean",
        "background.vsharp",
        {"inversion.tkd": {"threshold": 0.2}},
        "reference.whole_brain",
        "relaxometry.loglinear",
        "roi.statistics",
    ],
}
SHAPE = (12, 14, 10)
TE = (0.004, 0.008)
LABELS = {"1": "Left-Putamen", "2": "Right-Putamen", "7": "red nucleus"}
STATISTICS = COORDINATES["statistic"]


def create(path: Path, pipeline: Mapping[str, Any] | None = PIPELINE) -> CohortStore:
    cohort = CohortStore.create(path)
    cohort.write_document("dataset.json", json.dumps({"name": "Cohort by hand"}).encode())
    if pipeline is not None:
        cohort.write_document("pipeline.json", json.dumps(pipeline).encode())
    return cohort


def add_participants(cohort: CohortStore, rows: Sequence[Mapping[str, Any]]) -> None:
    path = cohort.place.folder / "draft.parquet"
    pd.DataFrame(rows).to_parquet(path, index=False)
    cohort.write_document("participants.parquet", path.read_bytes())
    path.unlink()


def record(cohort: CohortStore, scan: str, node: str, state: str, reason: str, key: str = "") -> None:
    cohort.record([{"scan": scan, "node": node, "state": state, "reason": reason, "key": key}])


def head() -> NDArray[np.bool_]:
    x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    return np.asarray(x**2 + y**2 + z**2 < 0.9)


def ingest(
    cohort: CohortStore,
    scan: str,
    *,
    te: Sequence[float] = TE,
    labels: Mapping[str, str] = LABELS,
    warnings: Sequence[str] = (),
    seed: int = 0,
) -> Commit:
    """The ingest of a scan with magnitude, phase, and mask, local field and labels from derivatives."""
    rng = np.random.default_rng(seed)
    mask = head()
    arrays = {
        "magnitude": rng.uniform(0.5, 1.0, (len(te), *SHAPE)).astype(np.float32),
        "phase": rng.uniform(-3.0, 3.0, (len(te), *SHAPE)).astype(np.float32),
        "mask": mask,
        "local_field": (rng.normal(0.0, 0.02, SHAPE) * mask).astype(np.float32),
    }
    derived = ["mask", "local_field"]
    if labels:
        arrays["dseg"] = np.zeros(SHAPE, np.int32)
        derived.append("dseg")
    affine = np.diag([16.0, 16.0, 16.0, 1.0])
    header = {"te": list(te), "b0": 3.0, "b0_dir": [0.0, 0.0, 1.0], "voxel_size": [16.0] * 3, "affine": affine.tolist()}
    sources = {name: {"from": "raw", "files": [f"{scan}_{name}.nii.gz"]} for name in ("magnitude", "phase", *header)}
    sources |= {name: {"from": "derivatives", "files": [f"manual/{scan}_{name}.nii.gz"]} for name in derived}
    geometry = Geometry(SHAPE, (16.0, 16.0, 16.0), tuple(te)).to_dict()
    commit = cohort.write(
        ScanKey.parse(scan),
        "ingest",
        INGEST_KEY,
        arrays,
        attributes={
            "header": header,
            "digests": {name: f"{scan}{name}{seed}".encode().hex() for name in (*arrays, *header)},
            "sources": sources,
            "labels": dict(labels),
            "warnings": list(warnings),
            "geometry": geometry,
            "facts": {"geometry": geometry, "sources": sources, "warnings": list(warnings)},
        },
        provenance={"software": {"python": "3.11"}},
        seconds=1.0,
        peak_bytes=10_000_000,
    )
    cohort.record([commit.row()])
    return commit


def keys(ingested: Commit, pipeline: Mapping[str, Any] = PIPELINE) -> dict[str, str]:
    """The keys that a pipeline gives to the nodes of an ingested scan."""
    digests = ingested.attributes["digests"]
    geometry = Geometry.from_dict(ingested.attributes["geometry"])
    return Pipeline.from_mapping(pipeline).plan(geometry, digests).digests(digests)


def maps(cohort: CohortStore, ingested: Commit, key: str, *, warnings: Sequence[str] = ()) -> Commit:
    """The maps of a scan: chi of 0.05 ppm everywhere in the mask, and R2* if there are two echoes."""
    mask = head()
    arrays: dict[str, NDArray[Any]] = {
        "chi": np.where(mask, np.float32(0.05), np.float32(0.0)),
        "chi_reference": np.array([0.0125, 0.04, 900.0]),
    }
    if ingested.arrays["magnitude"]["shape"][0] > 1:
        arrays["r2star"] = np.where(mask, np.float32(20.0), np.float32(0.0))
    steps = [
        {"stage": "inversion.tkd", "version": 1, "parameters": {"threshold": 0.2}, "cite": "10.1002/mrm.22135"},
        {"stage": "reference.whole_brain", "version": 1, "parameters": {}, "cite": ""},
    ]
    commit = cohort.write(
        ingested.scan,
        "maps",
        key,
        arrays,
        attributes={"facts": {"left_out": [], "warnings": list(warnings)}},
        provenance={"steps": steps, "software": {"python": "3.11", "qsm-dask": "0.1.0"}},
        seconds=2.0,
        peak_bytes=30_000_000,
    )
    cohort.record([commit.row()])
    return commit


def values(chi: Mapping[int, float], r2star: Mapping[int, float] | None = None) -> NDArray[np.float64]:
    """Region values whose median is the number given, and whose other statistics count up from it by a thousandth."""
    steps = np.arange(len(STATISTICS)) - STATISTICS.index("median")
    array = np.full((len(COORDINATES["map"]), len(chi), len(STATISTICS)), np.nan)
    for number, given in enumerate((chi, r2star)):
        for row, median in enumerate((given or {}).values()):
            array[number, row] = median + 0.001 * steps
            array[number, row, STATISTICS.index("n")] = 40 + row
    return array


def regions(
    cohort: CohortStore,
    ingested: Commit,
    key: str,
    labels: Sequence[int],
    array: NDArray[Any],
    *,
    csf: NDArray[np.float64] | None = None,
    candidates: NDArray[np.float64] | None = None,
) -> Commit:
    given = {"region_values": array, "csf_reference": csf, "candidates": candidates}
    arrays = {name: one for name, one in given.items() if one is not None}
    commit = cohort.write(
        ingested.scan,
        "regions",
        key,
        {"region_labels": np.array(labels, np.int64), **arrays},
        attributes={"facts": {"left_out": [], "warnings": []}},
        provenance={"steps": [{"stage": "roi.statistics", "version": 1, "parameters": {}, "cite": ""}]},
        seconds=0.5,
        peak_bytes=20_000_000,
    )
    cohort.record([commit.row()])
    return commit


def add(
    cohort: CohortStore,
    scan: str,
    chi: Mapping[int, float],
    r2star: Mapping[int, float] | None = None,
    **options: Any,
) -> Commit:
    """A scan that is done, with the medians given by label; its ingest."""
    ingested = ingest(cohort, scan, **options)
    keyed = keys(ingested)
    maps(cohort, ingested, keyed["maps"])
    regions(cohort, ingested, keyed["regions"], list(chi), values(chi, r2star))
    return ingested
