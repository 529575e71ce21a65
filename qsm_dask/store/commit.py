"""The record that makes a node of a scan count: which attempt, which arrays, which bytes."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NotRequired, TypedDict

import numpy as np

from qsm_dask.digests import canonical, checksum, digest_of
from qsm_dask.quantities import STANDARD
from qsm_dask.scan import ScanKey
from qsm_dask.store.layout import FORMAT, node_folder


class MetadataEntry(TypedDict):
    """Size and digest of the `zarr.json` of an array."""

    size: int
    digest: str


class ArrayEntry(TypedDict):
    """One array of a commit.

    `digest` is of its decoded bytes; `chunks` gives every chunk file, relative to the
    attempt, with its size. Short integer vectors (region labels) stand in `values` too,
    so that they are known without reading an array.
    """

    shape: list[int]
    dtype: str
    dims: list[str]
    units: str
    digest: str
    metadata: MetadataEntry
    chunks: dict[str, int]
    values: NotRequired[list[int]]


@dataclass(frozen=True)
class Commit:
    """A finished node of a scan.

    Attributes
    ----------
    scan, node, key : what was computed, and from what (`key` is the digest of the inputs and parameters).
    attempt : the folder that holds the arrays, beside the commit.
    digest : of the decoded outputs only: names, dtypes, shapes and bytes.
    arrays : name -> `ArrayEntry`.
    attributes : what else belongs to the result: header, labels, sources, reasons.
    provenance : how it came about; never compared.
    seconds, peak_bytes : what it cost.
    """

    scan: ScanKey
    node: str
    key: str
    attempt: str
    digest: str
    arrays: Mapping[str, ArrayEntry]
    attributes: Mapping[str, Any]
    provenance: Mapping[str, Any]
    seconds: float
    peak_bytes: int

    @property
    def folder(self) -> str:
        """The store key of the attempt."""
        return f"{node_folder(self.scan, self.node, self.key)}/{self.attempt}"

    def row(self, state: str = "done") -> dict[str, Any]:
        """The row of the cohort index that says so; see `CohortStore.record`.

        Its facts are what tables need of ten thousand scans without opening them: the
        commit's attributes `labels` and `facts`, the region labels, and digest and shape of maps in standard space.
        """
        facts: dict[str, Any] = dict(self.attributes.get("facts", {}))
        if "labels" in self.attributes:
            facts["labels"] = self.attributes["labels"]
        if "values" in self.arrays.get("region_labels", {}):
            facts["region_labels"] = self.arrays["region_labels"]["values"]
        standard = {
            name: [entry["digest"], entry["shape"]]
            for name, entry in self.arrays.items()
            if entry["dims"] == list(STANDARD)
        }
        if standard:
            facts["standard"] = standard
        return {
            "scan": str(self.scan),
            "node": self.node,
            "state": state,
            "key": self.key,
            "digest": self.digest,
            "seconds": self.seconds,
            "peak_bytes": self.peak_bytes,
            "reason": "",
            "facts": facts,
        }

    def to_json(self) -> bytes:
        """The commit as the store keeps it, sealed with a checksum of its own.

        Raises
        ------
        TypeError : an attribute or the provenance holds what JSON cannot.
        """
        content: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        return sealed({**content, "scan": str(self.scan)})

    @classmethod
    def from_json(cls, data: bytes, place: tuple[str, str, str]) -> "Commit":
        """Read back `to_json`.

        Parameters
        ----------
        data : what `to_json` gave.
        place : scan, node and key under which it was found.

        Raises
        ------
        TypeError : it is JSON, and no commit.
        ValueError : it is torn, altered, of a newer format, or was moved from another place.
        """
        content = unsealed(data)
        if place != (own := (content["scan"], content["node"], content["key"])):
            raise ValueError(f"it belongs to {' '.join(own)}")
        values = {field.name: content[field.name] for field in fields(cls)}
        return cls(**{**values, "scan": ScanKey.parse(content["scan"])})


def sealed(content: Mapping[str, Any]) -> bytes:
    """Values as the store keeps them, with their format and a checksum of their own.

    Raises
    ------
    TypeError : a value is what JSON cannot hold.
    """
    kept = plain({**content, "format": FORMAT})
    return canonical({**kept, "checksum": checksum(canonical(kept))})


def unsealed(data: bytes) -> dict[str, Any]:
    """Read back `sealed`.

    Raises
    ------
    TypeError : it is JSON, and nothing that was sealed.
    ValueError : it is torn, altered or of a newer format.
    """
    content = json.loads(data)
    if not isinstance(content, dict):
        raise TypeError("it is no commit")
    if content.get("checksum") != checksum(canonical({k: v for k, v in content.items() if k != "checksum"})):
        raise ValueError("its checksum does not fit its content")
    if content["format"] > FORMAT:
        raise ValueError(f"it has format {content['format']}, newer than this qsm_dask reads ({FORMAT})")
    return content


def outputs_digest(arrays: Mapping[str, ArrayEntry]) -> str:
    """Digest of what was computed, whoever did it, when and where."""
    outputs = [[name, entry["dtype"], entry["shape"], entry["digest"]] for name, entry in sorted(arrays.items())]
    return digest_of(outputs)


def plain(value: Any) -> Any:
    """`value` with NumPy scalars and arrays, tuples and mappings as JSON knows them; NaN and infinities become null.

    Raises
    ------
    TypeError : something else is in it.
    """
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(
        f"{value!r} ({type(value).__name__}) cannot be kept as JSON; give numbers, texts, lists or mappings"
    )
