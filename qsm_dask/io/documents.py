"""Small files of a BIDS dataset: JSON documents, tables and texts, written whole or not at all."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from qsm_dask.io.tables import tsv_bytes

BIDS_VERSION = "1.11.1"


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file that appears under its name only when it is complete; its folder is made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)


def json_bytes(content: Mapping[str, Any] | Sequence[Any]) -> bytes:
    """JSON for people: indented, order kept, NaN refused.

    Raises
    ------
    ValueError : a number is not finite, which JSON cannot say.
    """
    return (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a JSON document, see `json_bytes`."""
    write_bytes(path, json_bytes(content))


def write_tsv(path: str | Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table with a header line, see `tables.tsv_bytes`."""
    write_bytes(path, tsv_bytes(columns, rows))


def derivative_description(name: str, version: str, description: str, links: Mapping[str, str]) -> dict[str, Any]:
    """A `dataset_description.json` of derivatives.

    Parameters
    ----------
    name : of the dataset.
    version, description : of the package that made it, and what it did.
    links : `DatasetLinks`: paths or addresses of other datasets by the names that `Sources` use.
    """
    generated = {"Name": "qsm_dask", "Version": version, "Description": description}
    return {
        "Name": name,
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [generated],
        "SourceDatasets": [{"URL": target} for target in links.values()],
        "DatasetLinks": dict(links),
    }
