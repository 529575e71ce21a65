"""Derivative files: their names, what they say they were made from, and the folder they lie in."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from qsm_dask.errors import ConfigError
from qsm_dask.io.documents import json_bytes, write_bytes
from qsm_dask.scan import ScanKey

_ENTITIES = {
    "anat": ("sub", "ses", "task", "acq", "ce", "rec", "run", "chunk"),
    "fmap": ("sub", "ses", "acq", "run", "chunk"),
}
"""Entities that BIDS 1.11 lets a derivative map carry, in its order; `desc` follows them."""

_OURS = re.compile(
    r"^sub-.*_(Chimap|R2starmap|R2primemap|T2starmap|desc-swi_T2starw|desc-swimip_T2starw|desc-brain_mask|dseg|"
    r"desc-local_fieldmap|desc-local_magnitude|from-(template|T1w)_to-scan_mode-image_xfm)"
    r"\.(nii\.gz|json|tsv|txt)$"
)


def file_path(key: ScanKey, datatype: str, suffix: str, *, apart: bool = False) -> Path:
    """The path of a scan's derivative without its ending: `sub-01/anat/sub-01_acq-a_desc-csf_Chimap`.

    Parameters
    ----------
    key : the scan.
    datatype : `anat` or `fmap`.
    suffix : what follows the entities of the scan, such as `desc-csf_Chimap`.
    apart : whether another scan differs in nothing but its suffix, which then goes into `acq`.

    Notes
    -----
    Entities that BIDS does not let such a file carry go into `acq` as well, so that no two
    scans share a name.
    """
    allowed = _ENTITIES[datatype]
    labels = dict(key.entities)
    foreign = [f"{entity}{label}" for entity, label in key.entities if entity not in allowed]
    extra = "".join([*foreign, key.suffix if apart else ""])
    if extra:
        labels["acq"] = labels.get("acq", "") + extra
    entities = [f"{entity}-{labels[entity]}" for entity in allowed if entity in labels]
    folders = [entity for entity in entities if entity.startswith(("sub-", "ses-"))]
    return Path(*folders, datatype, "_".join([*entities, suffix]))


def links(about: Mapping[str, Any], out: Path, neighbour: Path | None) -> dict[str, str]:
    """`DatasetLinks` of an export: where the datasets lie that it was made from, as seen from it.

    Parameters
    ----------
    about : the cohort's `dataset.json`: name, folder and derivatives of the BIDS dataset.
    out : folder of the export.
    neighbour : a folder beside which the dataset may lie: the cohort, unless it lies in an object store.

    Returns
    -------
    dict : `raw`, as a relative path where the dataset is found and else by its folder's name, and every folder of
        derivatives outside of it by its name.
    """
    folder = str(about.get("folder") or "raw")
    places = [out.parent.parent, out.parent / folder, *([neighbour.parent / folder] if neighbour else [])]
    raw = next((os.path.relpath(place, out) for place in places if _is_raw(place, folder)), folder)
    foreign = [str(spec).partition(":")[0] for spec in about.get("derivatives", ())]
    return {"raw": raw, **{_dataset_name(name): name for name in foreign if not _inside_raw(name)}}


def uris(sources: Iterable[Mapping[str, Any]]) -> list[str]:
    """BIDS URIs of the images among the files of ingested quantities, each once.

    Parameters
    ----------
    sources : records of ingested quantities: `from` and `files`.
    """
    found: dict[str, None] = {}
    for source in sources:
        for file in (name for name in source.get("files", ()) if ".nii" in name):
            top, _, rest = str(file).partition("/")
            raw = source["from"] == "raw" or _inside_raw(file)
            found[f"bids:raw:{file}" if raw else f"bids:{_dataset_name(top)}:{rest}"] = None
    return list(found)


def _is_raw(place: Path, folder: str) -> bool:
    return place.resolve().name == folder and (place / "dataset_description.json").is_file()


def _inside_raw(name: str) -> bool:
    return name.startswith("derivatives/")


def _dataset_name(folder: str) -> str:
    return "".join(character for character in folder if character.isalnum()) or "derivatives"


def label_table(labels: Mapping[str, str]) -> Sequence[tuple[int, str]]:
    """Rows (index, name) of a `dseg.tsv`, by index; 0 is the background and has none."""
    return sorted((int(label), name) for label, name in labels.items() if int(label))


def claim_folder(out: Path, description: Mapping[str, Any]) -> None:
    """Make a folder a derivatives dataset of this package, or take it over from an earlier export.

    Raises
    ------
    ConfigError : the folder holds something else.
    """
    about = out / "dataset_description.json"
    if out.exists() and any(out.iterdir()) and not (about.is_file() and b'"qsm_dask"' in about.read_bytes()):
        raise ConfigError(f"{out} is not empty and was not written by `qsm-dask export`: give another folder")
    write_bytes(about, json_bytes(description))
    write_bytes(out / ".bidsignore", b"*_R2primemap.*\n*_xfm.*\n")  # BIDS 1.11 has no suffix for either


def remove_leftovers(out: Path, written: Iterable[Path]) -> int:
    """Remove what an earlier export wrote and this one did not; other files are left alone.

    Returns
    -------
    int : how many files were removed.
    """
    kept = set(written)
    found = [path for path in out.glob("sub-*/**/*") if _OURS.match(path.name) and path not in kept]
    for path in found:
        path.unlink()
    return len(found)
