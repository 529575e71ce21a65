"""A BIDS dataset as a list of acquisitions."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from qsm_dask.errors import InputError
from qsm_dask.io.acquisition import Acquisition, FileRef, Image
from qsm_dask.io.filters import Filters
from qsm_dask.io.names import PARTS, RAW_SUFFIXES, WITHIN, Name, canonical
from qsm_dask.io.tables import read_tsv
from qsm_dask.io.tree import Entry, Folder, Found, subjects, walk
from qsm_dask.scan import ScanKey
from qsm_dask.wording import some

_Group = tuple[tuple[tuple[str, str], ...], str]


@dataclass(frozen=True)
class Index:
    """The acquisitions of a dataset.

    Attributes
    ----------
    acquisitions : sorted by key.
    subjects : subject folders that were searched.
    warnings : files that look as if they were meant and could not be understood.
    """

    acquisitions: tuple[Acquisition, ...]
    subjects: tuple[str, ...]
    warnings: tuple[str, ...]


def index(
    root: Path, *, participants: Sequence[str] = (), sessions: Sequence[str] = (), filters: Filters | None = None
) -> Index:
    """Find the multi-echo and single-echo gradient-echo acquisitions of a BIDS dataset.

    `sub-*/[ses-*/]anat/*_{MEGRE,T2starw}.nii[.gz]` are grouped by every entity but `echo`,
    `part` and `coil`, and by suffix. Only names are looked at: no file is opened.

    Parameters
    ----------
    root : the dataset.
    participants : labels to keep, with or without `sub-`; empty keeps all.
    sessions : labels to keep, with or without `ses-`; empty keeps all.
    filters : a filter file.

    Raises
    ------
    InputError : no such folder, no BIDS dataset, a label that does not exist, or nothing found.
    """
    names = _chosen_subjects(root, participants)
    wanted = tuple(f"ses-{label.removeprefix('ses-')}" for label in sessions)
    _check_sessions(root, names, wanted)
    groups: dict[_Group, list[tuple[ScanKey, Found]]] = {}
    orphans: dict[_Group, list[str]] = {}
    strange: list[str] = []
    chosen = filters or Filters()
    seen = 0
    for found, folder in walk(root, RAW_SUFFIXES, names, sessions=wanted, datatypes=("anat",)):
        if found is None:
            strange += folder.strange
            _note_orphans(folder, orphans)
            continue
        seen += 1
        name = found.entry.name
        if name.get("sub") is None or name.get("part") not in (None, *PARTS):
            strange.append(found.entry.relative)
        elif chosen.keep(name.suffix, name, found.entry.datatype):
            groups.setdefault(_group(name), []).append((_key(name), found))
    if not groups:
        raise InputError(_nothing(root, seen, bool(filters), strange))
    acquisitions = [_acquisition(root, members, orphans.get(group, []), chosen) for group, members in groups.items()]
    warnings = tuple(f"{path}: not understood as a BIDS file name, left out" for path in sorted(strange))
    return Index(tuple(sorted(acquisitions, key=lambda a: str(a.key))), names, warnings)


def _chosen_subjects(root: Path, participants: Sequence[str]) -> tuple[str, ...]:
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give the root of a BIDS dataset")
    present = subjects(root)
    if not present:
        hint = " (it is one subject: give the folder above)" if root.name.startswith(("sub-", "ses-")) else ""
        raise InputError(f"{root}: not a BIDS dataset: it holds no folder sub-<label>{hint}")
    if not participants:
        return present
    wanted = sorted({f"sub-{label.removeprefix('sub-')}" for label in participants})
    absent = [name for name in wanted if name not in set(present)]
    if absent:
        raise InputError(f"{root}: no participant {', '.join(absent)}; there are {some(present)}")
    return tuple(wanted)


def _check_sessions(root: Path, names: Iterable[str], wanted: Sequence[str]) -> None:
    missing = set(wanted)
    for name in names:
        if not missing:
            return
        missing -= {session for session in missing if (root / name / session).is_dir()}
    if missing:
        raise InputError(f"{root}: no participant chosen has the session {', '.join(sorted(missing))}")


def _nothing(root: Path, seen: int, filtered: bool, strange: Sequence[str]) -> str:
    if seen and filtered:
        return f"{root}: the filter file keeps none of the {seen} images found; check its entities and labels"
    looked = "sub-*/[ses-*/]anat/*_{MEGRE,T2starw}.nii[.gz]"
    hint = f"; not understood: {some(strange, 3)}" if strange else ""
    return f"{root}: no gradient-echo images among the participants and sessions chosen (looked for {looked}){hint}"


def _key(name: Name) -> ScanKey:
    return ScanKey(name.without(*WITHIN), name.suffix)


def _group(name: Name) -> _Group:
    return tuple((e, canonical(e, label)) for e, label in name.without(*WITHIN)), name.suffix


def _note_orphans(folder: Folder, orphans: dict[_Group, list[str]]) -> None:
    """Note sidecars that name an echo and a part and apply to no image here: their image went missing."""
    stems = {_stem(entry) for entry in folder.images}
    for (_, extension, _), entries in folder.sidecars.items():
        for entry in entries:
            exact = extension == ".json" and entry.name.get("echo") and entry.name.get("part")
            if exact and _stem(entry) not in stems and not any(_applies(entry, image) for image in folder.images):
                orphans.setdefault(_group(entry.name), []).append(entry.relative)


def _stem(entry: Entry) -> str:
    return entry.relative.removesuffix(entry.name.extension)


def _applies(sidecar: Entry, image: Entry) -> bool:
    """Whether a sidecar beside an image is one for it, or for several as it."""
    same = sidecar.name.suffix == image.name.suffix
    return same and all(image.name.get(entity) == label for entity, label in sidecar.name.entities)


def _acquisition(root: Path, members: list[tuple[ScanKey, Found]], orphans: list[str], filters: Filters) -> Acquisition:
    key = min(key for key, _ in members)
    images = sorted((_image(root, found) for _, found in members), key=lambda i: (i.part, i.echo or 0, i.file.label))
    acquisition = Acquisition(key, tuple(images))
    problem = _misplaced(members) or _claimed_twice(acquisition)
    if (
        problem is None
        and (acquisition.has("phase") or acquisition.has("imag"))
        and not filters.restricts(key.suffix, "echo")
    ):
        problem = _missing_echo(acquisition, orphans)
    if problem is None and acquisition.coils != (None,) and not filters.restricts(key.suffix, "coil"):
        problem = _missing_coil(acquisition)
    return replace(acquisition, problem=problem)


def _image(root: Path, found: Found) -> Image:
    name = found.entry.name
    echo = name.get("echo")
    return Image(
        FileRef(found.entry.relative, str(root / found.entry.relative)),
        name.get("part") or "mag",
        int(echo) if echo is not None and echo.isdecimal() else None,
        tuple(FileRef(e.relative, str(root / e.relative)) for e in found.metadata_files()),
        None if name.get("coil") is None else canonical("coil", name.labels["coil"]),
    )


def _misplaced(members: list[tuple[ScanKey, Found]]) -> str | None:
    keys = sorted({str(key) for key, _ in members})
    if len(keys) > 1:
        return f"two scans claim one key: {' and '.join(keys)} are the same scan; rename one"
    for key, found in members:
        folders = found.entry.relative.split("/")[:-2]
        if folders != [part for part in (key.subject, key.session) if part]:
            meant = "/".join(filter(None, (key.subject, key.session)))
            return f"{found.entry.relative}: the name belongs in {meant}/anat; move or rename the file"
    return None


def _claimed_twice(acquisition: Acquisition) -> str | None:
    taken: dict[tuple[str, int | None, str | None], Image] = {}
    for image in acquisition.images:
        other = taken.setdefault((image.part, image.echo, image.coil), image)
        if other is not image:
            what = f"part-{image.part}" + (f" of echo-{image.echo}" if image.echo else "")
            what += f" of coil-{image.coil}" if image.coil else ""
            return f"two files claim {what}: {other.file.label} and {image.file.label}; remove or rename one"
    return None


def _missing_echo(acquisition: Acquisition, orphans: Sequence[str]) -> str | None:
    for path in sorted(orphans):
        return f"missing echo: {path} has no image beside it; restore the image or remove the sidecar"
    numbers = sorted({image.echo for image in acquisition.images if image.echo is not None})
    gaps = sorted(set(range(1, numbers[-1] + 1)) - set(numbers)) if numbers else []
    if gaps:
        names = ", ".join(f"echo-{n}" for n in gaps)
        remedy = "restore it, or renumber the echoes if it was left out on purpose"
        return f"missing echo: {names} of {numbers[-1]} is absent; {remedy}"
    return None


def _missing_coil(acquisition: Acquisition) -> str | None:
    """Why the images do not come from the same coils, numbered without a gap."""
    remedy = "restore it, or renumber the coils if it was left out on purpose"
    if None in acquisition.coils:
        return (
            "combined images (without coil-) and images of single coils claim one scan; tell them apart by rec-, "
            "or remove one"
        )
    present: dict[tuple[str, int | None], set[str | None]] = {}
    for image in acquisition.images:
        present.setdefault((image.part, image.echo), set()).add(image.coil)
    for (part, echo), coils in present.items():
        for coil in acquisition.coils:
            if coil not in coils:
                of_echo = f" of echo-{echo}" if echo else ""
                return f"missing coil: coil-{coil} has no part-{part} image{of_echo}; {remedy}"
    numbers = [int(coil) for coil in acquisition.coils if coil is not None and coil.isdecimal()]
    gaps = sorted(set(range(min(1, *numbers), max(numbers) + 1)) - set(numbers)) if numbers else []
    if gaps:
        return f"missing coil: {', '.join(f'coil-{n}' for n in gaps)} of {max(numbers)} is absent; {remedy}"
    return None


def description(root: Path) -> dict[str, Any]:
    """The dataset's `dataset_description.json`; empty where it is absent.

    Raises
    ------
    InputError : the file is not a JSON object.
    """
    return _object(root / "dataset_description.json")


def columns(root: Path) -> dict[str, Any]:
    """What the dataset's `participants.json` says of each column of its table; empty where it is absent.

    Raises
    ------
    InputError : the file is not a JSON object.
    """
    return _object(root / "participants.json")


def _object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object")
    return content


def participants(root: Path) -> pd.DataFrame | None:
    """The dataset's `participants.tsv`, or None where it is absent.

    `participant_id` is text beginning with `sub-`; other columns are numbers where every
    value is one, and text where one is not or begins with a zero, as the site `01` does;
    `n/a` is missing, and nothing else that could be a name.

    Raises
    ------
    InputError : the table has no `participant_id`, or is no table at all.
    """
    path = root / "participants.tsv"
    if not path.is_file():
        return None
    try:
        table = read_tsv(path.read_bytes())
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: cannot be read as a tab-separated table: {error}") from error
    if "participant_id" not in table.columns:
        raise InputError(f"{path}: has no column participant_id (columns are separated by tabs)")
    for name in table.columns.drop("participant_id"):
        table[name] = _numbers(table[name])
    identifiers = table["participant_id"].fillna("").str.strip()
    table["participant_id"] = identifiers.where(identifiers.str.startswith("sub-"), "sub-" + identifiers)
    return table


def _numbers(column: "pd.Series[str]") -> "pd.Series[Any]":
    """A column of text as numbers, if that loses nothing."""
    found = column.dropna().str.strip()
    if found.str.match(r"[+-]?0\d").any() or pd.to_numeric(found, errors="coerce").isna().any():
        return column
    return pd.to_numeric(column)
