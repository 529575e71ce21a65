"""Finding, in the derivatives folders that the user names, the maps that belong to each scan."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from qsm_dask.errors import ConfigError, InputError
from qsm_dask.io import patterns
from qsm_dask.io.acquisition import Acquisition, FileRef, Map
from qsm_dask.io.filters import Filters
from qsm_dask.io.maps import UNITS
from qsm_dask.io.names import DERIVED, Name, canonical
from qsm_dask.io.patterns import Transforms
from qsm_dask.io.tree import Found, walk
from qsm_dask.scan import ScanKey

DEFAULT = ("dseg", "mask")
_SUFFIXES: Mapping[str, str] = {
    "dseg": "dseg",
    "probseg": "probseg",
    "mask": "mask",
    "Chimap": "chi",
    "fieldmap": "local_field",
    "R2map": "r2",
    "T2map": "r2",
}
_ITEM = re.compile(r"^([a-z_0-9]+)(?:=([^,:]+))?$")
_SEPARATED = ("paramagnetic", "diamagnetic")
_UNITLESS = ("dseg", "probseg", "mask")

_Rank = tuple[int, ...]


@dataclass(frozen=True)
class Derivatives:
    """A derivatives folder and what to take from it.

    Attributes
    ----------
    root : the folder.
    quantities : names of what to take, with what the user states: units, or a pattern of files (or None).
    named : whether the user named them; the default is taken where it exists.
    prefix : how records call the folder.
    """

    root: Path
    quantities: Mapping[str, str | None]
    named: bool
    prefix: str

    def __str__(self) -> str:
        """The folder and its quantities, without where the folder lies."""
        items = [name if units is None else f"{name}={units}" for name, units in self.quantities.items()]
        return f"{self.prefix}:{','.join(items)}"


def parse(specs: Sequence[str], bids: Path) -> tuple[Derivatives, ...]:
    """Read `DIR` or `DIR:quantity[=units],…`, as the command line gives them.

    For label images, probabilities and masks a pattern of files stands where the units of maps do.

    Raises
    ------
    ConfigError : no such folder, or a quantity, unit or pattern that cannot be ingested.
    """
    found: list[Derivatives] = []
    for spec in specs:
        folder, items = _split(spec)
        root = Path(folder).absolute()
        if not root.is_dir():
            raise ConfigError(f"--derivatives {spec}: there is no folder {folder}")
        quantities = dict(_parse_item(spec, item) for item in items) if items else dict.fromkeys(DEFAULT)
        called = patterns.prefix(root, bids)
        while any(other.prefix == called and other.root != root for other in found):
            called += "'"
        found.append(Derivatives(root, quantities, bool(items), called))
    return tuple(found)


def _split(spec: str) -> tuple[str, list[str]]:
    folder, colon, tail = spec.rpartition(":")
    if not colon or Path(spec).is_dir():
        return spec, []
    return folder, [item.strip() for item in tail.split(",")]


def _parse_item(spec: str, item: str) -> tuple[str, str | None]:
    match = _ITEM.match(item)
    if match is None or match[1] not in UNITS:
        raise ConfigError(f"--derivatives {spec}: {item!r} cannot be ingested; take any of {', '.join(UNITS)}")
    name, stated = match[1], match[2]
    if stated is None:
        return name, None
    if name in _UNITLESS and re.search(r"[./{*]", stated):
        return name, patterns.check(f"--derivatives {spec}", stated.strip())
    allowed = {units.lower(): units for units in UNITS[name]}
    if stated.strip().lower() not in allowed:
        choice = f"any of {', '.join(UNITS[name])}" if UNITS[name] else "none"
        raise ConfigError(f"--derivatives {spec}: {name} cannot have the units {stated!r}; state {choice}")
    return name, allowed[stated.strip().lower()]


@dataclass(frozen=True)
class _Candidate:
    quantity: str
    name: Name
    map: Map


def attach(
    acquisitions: Iterable[Acquisition],
    sources: Sequence[Derivatives],
    filters: Filters | None = None,
    transforms: Sequence[Transforms] = (),
) -> tuple[Acquisition, ...]:
    """Give each acquisition the maps that belong to it.

    A file belongs to a scan when it has the scan's subject, and every other entity that
    says which scan it was is absent from the file or equal; of several the one that
    shares most entities is taken. Files in another `space-` are taken only where there is
    none without. The folder named first wins. Where a folder has no `dseg` by BIDS, those of
    FreeSurfer, FastSurfer, SynthSeg and FIRST are looked for. A map that shall be transformed
    and has no transform is left out.

    Raises
    ------
    InputError : nothing of what a folder was named for, or no transform, belongs to any scan.
    """
    found = tuple(acquisitions)
    subjects = sorted({acquisition.key.subject for acquisition in found})
    for source in sources:
        candidates = _candidates(source, subjects, filters or Filters())
        matched: set[str] = set()
        given = []
        for acquisition in found:
            mine = candidates.get(acquisition.key.subject, [])
            attached, quantities = _attach(acquisition, source, mine)
            attached, more = _attach_patterns(attached, source, quantities)
            quantities |= more
            matched |= quantities
            given.append((attached, quantities))
        expected = [name for name in source.quantities if source.named or name in matched]
        found = tuple(_note_absent(one, source, [q for q in expected if q not in has]) for one, has in given)
        missing = set(source.quantities) - matched
        if missing and (source.named or not matched):
            looked = ", ".join(f"*_{suffix}.nii[.gz]" for suffix, name in _SUFFIXES.items() if name in missing)
            raise InputError(
                f"--derivatives {source.root}: no {' or '.join(sorted(missing))} in it belongs to any scan "
                f"(looked for sub-*/[ses-*/]*/{looked}"
                + (", with desc-local" if "local_field" in missing else "")
                + "".join(f", {source.quantities[name]}" for name in missing if _pattern(source, name))
                + "); check the names' entities"
            )
    sessions = {(one.key.subject, one.key.session) for one in found}
    several = {subject for subject in subjects if sum(subject == one for one, _ in sessions) > 1}
    return _transformed(tuple(_told_of_sessions(one, several) for one in found), transforms, subjects)


def _told_of_sessions(acquisition: Acquisition, several: Collection[str]) -> Acquisition:
    if acquisition.key.subject not in several:
        return acquisition
    session = str(acquisition.key.session)
    maps = [replace(item, any_session=session not in item.file.label) for item in acquisition.maps]
    return replace(acquisition, maps=tuple(maps))


def _transformed(
    acquisitions: tuple[Acquisition, ...], transforms: Sequence[Transforms], subjects: Sequence[str]
) -> tuple[Acquisition, ...]:
    """Each scan's maps with the transforms that they shall get; those that lack theirs are left out and noted."""
    for one in transforms:
        given, used = [], 0
        for acquisition in acquisitions:
            movable = [item for item in acquisition.maps if item.quantity in one.quantities]
            file = one.of(acquisition, subjects) if movable else None
            used += file is not None
            others = [item for item in acquisition.maps if item not in movable]
            if file is not None:
                others += [replace(item, transform=file) for item in movable]
            left = replace(acquisition, maps=tuple(others))
            for item in movable if file is None else ():
                left = _note(left, f"{item.quantity} left out: no transform {one.pattern.text}")
            given.append(left)
        if not used:
            raise InputError(
                f"--transform {one}: no file of that name for any scan that has {' or '.join(one.quantities)} in "
                "--derivatives"
            )
        acquisitions = tuple(given)
    return acquisitions


def _pattern(source: Derivatives, quantity: str) -> str | None:
    return source.quantities[quantity] if quantity in _UNITLESS else None


def _attach_patterns(
    acquisition: Acquisition, source: Derivatives, attached: Collection[str]
) -> tuple[Acquisition, set[str]]:
    """Give an acquisition the files that the user's patterns name, or that known programs leave."""
    matched: set[str] = set()
    for quantity in source.quantities:
        stated = _pattern(source, quantity)
        tried = (stated,) if stated else patterns.KNOWN if quantity == "dseg" and "dseg" not in attached else ()
        for text in tried:
            files = patterns.Pattern(source.root, text, source.prefix).of(acquisition.key)
            if not files:
                continue
            matched.add(quantity)
            several = len(files) > 1 and quantity != "probseg"
            if any(item.quantity == quantity for item in acquisition.maps):
                acquisition = _note(acquisition, _left_aside(quantity, source))
            elif several:
                problem = f"two files claim {quantity}: {files[0].label} and {files[1].label}; write another pattern"
                acquisition = replace(acquisition, problem=acquisition.problem or problem)
            else:
                acquisition = replace(acquisition, maps=(*acquisition.maps, _map_of_files(quantity, files)))
            break
    return acquisition, matched


def _map_of_files(quantity: str, files: Sequence[FileRef]) -> Map:
    """A map that a pattern found, with the sidecar and the table of the same name beside it."""
    sidecar, table = (_beside(files[0], ending) for ending in (".json", ".tsv"))
    return Map(quantity, files[0], (sidecar,) if sidecar else (), table, others=tuple(files[1:]))


def _beside(file: FileRef, ending: str) -> FileRef | None:
    stem = re.compile(r"\.(nii|nii\.gz|mgh|mgz)$")
    path = stem.sub(ending, file.path)
    return FileRef(stem.sub(ending, file.label), path) if Path(path).is_file() else None


def _left_aside(quantity: str, source: Derivatives) -> str:
    return f"{quantity} of {source.prefix} left aside (a folder named before has it)"


def _candidates(source: Derivatives, subjects: Sequence[str], filters: Filters) -> dict[str, list[_Candidate]]:
    wanted = {
        suffix: name for suffix, name in _SUFFIXES.items() if name in source.quantities and not _pattern(source, name)
    }
    present = [subject for subject in subjects if (source.root / subject).is_dir()]
    found: dict[str, list[_Candidate]] = {}
    for image, _ in walk(source.root, wanted, present):
        if image is None:
            continue
        name = image.entry.name
        quantity = wanted[name.suffix]
        if _usable(quantity, name) and filters.keep(quantity, name, image.entry.datatype):
            candidate = _Candidate(quantity, name, _map(source, quantity, image))
            found.setdefault(f"sub-{name.get('sub')}", []).append(candidate)
    return found


def _usable(quantity: str, name: Name) -> bool:
    description = (name.get("desc") or "").lower()
    if name.get("sub") is None or name.get("echo") or name.get("part"):
        return False
    if quantity == "chi":
        return description not in _SEPARATED
    if quantity == "local_field":
        return "local" in description
    return quantity != "mask" or name.get("label") in (None, "brain")


def _map(source: Derivatives, quantity: str, image: Found) -> Map:
    def reference(relative: str) -> FileRef:
        return FileRef(f"{source.prefix}/{relative}", str(source.root / relative))

    tables = image.metadata_files(".tsv") if quantity in ("dseg", "probseg") else ()
    return Map(
        quantity,
        reference(image.entry.relative),
        tuple(reference(entry.relative) for entry in image.metadata_files()),
        reference(tables[-1].relative) if tables else None,
        None if quantity in _UNITLESS else source.quantities[quantity],
    )


def _attach(
    acquisition: Acquisition, source: Derivatives, candidates: Sequence[_Candidate]
) -> tuple[Acquisition, set[str]]:
    matched = set()
    for quantity in source.quantities:
        ranked = [
            (rank, candidate)
            for candidate in candidates
            if candidate.quantity == quantity and (rank := _rank(acquisition.key, candidate)) is not None
        ]
        if not ranked:
            continue
        matched.add(quantity)
        best = min(rank for rank, _ in ranked)
        chosen = [candidate.map for rank, candidate in ranked if rank == best]
        if quantity == "probseg":
            chosen = _one_a_label([candidate for rank, candidate in ranked if rank == best])
        if any(item.quantity == quantity for item in acquisition.maps):
            acquisition = _note(acquisition, _left_aside(quantity, source))
        elif len(chosen) > 1:
            files = " and ".join(item.file.label for item in chosen[:2])
            problem = f"two files claim {quantity}: {files}; choose one with a filter file"
            acquisition = replace(acquisition, problem=acquisition.problem or problem)
        else:
            acquisition = replace(acquisition, maps=(*acquisition.maps, chosen[0]))
    return acquisition, matched


def _one_a_label(candidates: Sequence[_Candidate]) -> list[Map]:
    """The files of a `probseg` that differ in their label only, as one map."""
    groups: dict[tuple[tuple[str, str], ...], list[_Candidate]] = {}
    for candidate in candidates:
        groups.setdefault(candidate.name.without("label"), []).append(candidate)
    found = []
    for group in groups.values():
        ordered = sorted(group, key=lambda candidate: candidate.map.file.label)
        found.append(replace(ordered[0].map, others=tuple(one.map.file for one in ordered[1:])))
    return found


def _note_absent(acquisition: Acquisition, source: Derivatives, absent: Sequence[str]) -> Acquisition:
    for quantity in absent:
        acquisition = _note(acquisition, f"no {quantity} in {source.prefix}")
    return acquisition


def _note(acquisition: Acquisition, note: str) -> Acquisition:
    return replace(acquisition, notes=(*acquisition.notes, note))


def _rank(key: ScanKey, candidate: _Candidate) -> _Rank | None:
    """How well a candidate fits a scan (smaller is better), or None if it belongs to another."""
    name = candidate.name
    shared = 0
    for entity, label in name.entities:
        if entity in DERIVED:
            continue
        wanted = key.get(entity)
        if wanted is None or canonical(entity, wanted) != canonical(entity, label):
            return None
        shared += 1
    described = name.get("desc")
    brain = candidate.quantity == "mask" and described == "brain"
    extra = sum(entity in DERIVED for entity, _ in name.entities)
    inverse = int(name.suffix == "T2map")  # where a folder has both, one is made of the other
    kind = 0 if brain else 1 if described is None else 2
    return (int(name.get("space") is not None), -shared, kind, extra, inverse)
