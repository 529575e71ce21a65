"""Finding, in the derivatives folders that the user names, the maps that belong to each scan."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from qsm_dask.errors import ConfigError, InputError
from qsm_dask.io.acquisition import Acquisition, FileRef, Map
from qsm_dask.io.filters import Filters
from qsm_dask.io.maps import UNITS
from qsm_dask.io.names import DERIVED, Name, canonical
from qsm_dask.io.tree import Found, walk
from qsm_dask.scan import ScanKey

DEFAULT = ("dseg", "mask")
_SUFFIXES: Mapping[str, str] = {
    "dseg": "dseg",
    "mask": "mask",
    "Chimap": "chi",
    "fieldmap": "local_field",
    "R2map": "r2",
    "T2map": "r2",
}
_ITEM = re.compile(r"^([a-z_0-9]+)(?:=([^,:]+))?$")
_SEPARATED = ("paramagnetic", "diamagnetic")

_Rank = tuple[int, ...]


@dataclass(frozen=True)
class Derivatives:
    """A derivatives folder and what to take from it.

    Attributes
    ----------
    root : the folder.
    quantities : names of what to take, with the units that the user states (or None).
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

    Raises
    ------
    ConfigError : no such folder, or a quantity or unit that cannot be ingested.
    """
    found: list[Derivatives] = []
    for spec in specs:
        folder, items = _split(spec)
        root = Path(folder).absolute()
        if not root.is_dir():
            raise ConfigError(f"--derivatives {spec}: there is no folder {folder}")
        quantities = dict(_parse_item(spec, item) for item in items) if items else dict.fromkeys(DEFAULT)
        prefix = _prefix(root, bids)
        while any(other.prefix == prefix and other.root != root for other in found):
            prefix += "'"
        found.append(Derivatives(root, quantities, bool(items), prefix))
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
    allowed = {units.lower(): units for units in UNITS[name]}
    if stated.strip().lower() not in allowed:
        choice = f"any of {', '.join(UNITS[name])}" if UNITS[name] else "none"
        raise ConfigError(f"--derivatives {spec}: {name} cannot have the units {stated!r}; state {choice}")
    return name, allowed[stated.strip().lower()]


def _prefix(root: Path, bids: Path) -> str:
    here, base = root.resolve(), bids.resolve()
    return here.relative_to(base).as_posix() if here.is_relative_to(base) else here.name


@dataclass(frozen=True)
class _Candidate:
    quantity: str
    name: Name
    map: Map


def attach(
    acquisitions: Iterable[Acquisition], sources: Sequence[Derivatives], filters: Filters | None = None
) -> tuple[Acquisition, ...]:
    """Give each acquisition the maps that belong to it.

    A file belongs to a scan when it has the scan's subject, and every other entity that
    says which scan it was is absent from the file or equal; of several the one that
    shares most entities is taken. Files in another `space-` are taken only where there is
    none without. The folder named first wins.

    Raises
    ------
    InputError : nothing of what a folder was named for belongs to any scan.
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
                + "); check the names' entities"
            )
    return found


def _candidates(source: Derivatives, subjects: Sequence[str], filters: Filters) -> dict[str, list[_Candidate]]:
    wanted = {suffix: name for suffix, name in _SUFFIXES.items() if name in source.quantities}
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

    tables = image.metadata_files(".tsv") if quantity == "dseg" else ()
    return Map(
        quantity,
        reference(image.entry.relative),
        tuple(reference(entry.relative) for entry in image.metadata_files()),
        reference(tables[-1].relative) if tables else None,
        source.quantities[quantity],
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
        if any(item.quantity == quantity for item in acquisition.maps):
            acquisition = _note(acquisition, f"{quantity} of {source.prefix} left aside (a folder named before has it)")
        elif len(chosen) > 1:
            files = " and ".join(item.file.label for item in chosen[:2])
            problem = f"two files claim {quantity}: {files}; choose one with a filter file"
            acquisition = replace(acquisition, problem=acquisition.problem or problem)
        else:
            acquisition = replace(acquisition, maps=(*acquisition.maps, chosen[0]))
    return acquisition, matched


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
