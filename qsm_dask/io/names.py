"""BIDS file names: parsing, the order of entities, and which of them make a scan's key."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

RAW_SUFFIXES = ("MEGRE", "T2starw")
PARTS = ("mag", "phase", "real", "imag")
EXTENSIONS = (".nii.gz", ".nii", ".json", ".tsv")
IMAGES = (".nii.gz", ".nii")

# fmt: off
ORDER = (
    "sub", "ses", "sample", "task", "acq", "nuc", "ce", "trc", "rec", "dir", "run", "mod", "echo", "flip", "inv", "mt",
    "part", "proc", "hemi", "space", "split", "recording", "chunk", "atlas", "seg", "scale", "res", "den", "label",
    "desc",
)
# fmt: on
"""Entities in the order in which the BIDS specification wants them in a name."""

DERIVED = frozenset(("hemi", "space", "atlas", "seg", "scale", "res", "den", "label", "desc"))
"""Entities that say what was made of a scan, not which scan it was."""

NUMBERED = frozenset(("run", "echo", "coil"))
"""Entities whose labels are numbers: `run-1` and `run-01` are the same run."""

WITHIN = ("echo", "part", "coil")
"""Entities that tell the images of one scan apart; every other one is part of its key."""

LONG_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "subject": "sub",
        "session": "ses",
        "acquisition": "acq",
        "ceagent": "ce",
        "reconstruction": "rec",
        "direction": "dir",
        "inversion": "inv",
        "segmentation": "seg",
        "resolution": "res",
        "density": "den",
        "description": "desc",
    }
)
"""The entities' long names, as filter files for PyBIDS spell them."""

_ENTITY = re.compile(r"^([a-z]+)-([0-9A-Za-z+]+)$")
_SUFFIX = re.compile(r"^[0-9A-Za-z]+$")


@dataclass(frozen=True)
class Name:
    """A BIDS file name taken apart.

    Attributes
    ----------
    entities : pairs of entity and label, as they stand in the name.
    suffix, extension : `MEGRE`, `.nii.gz`.
    """

    entities: tuple[tuple[str, str], ...]
    suffix: str
    extension: str

    @cached_property
    def labels(self) -> Mapping[str, str]:
        """Labels by entity."""
        return dict(self.entities)

    def get(self, entity: str) -> str | None:
        """The label of an entity, or None."""
        return self.labels.get(entity)

    def without(self, *dropped: str) -> tuple[tuple[str, str], ...]:
        """The entities but those dropped, in the order of the specification; unknown ones last."""
        kept = [(entity, label) for entity, label in self.entities if entity not in dropped]
        return tuple(sorted(kept, key=lambda pair: (ORDER.index(pair[0]) if pair[0] in ORDER else len(ORDER), pair)))


def parse(filename: str) -> Name | None:
    """Take a file name apart; None where it is not `<entity>-<label>_…_<suffix>.<extension>`."""
    extension = next((e for e in EXTENSIONS if filename.endswith(e)), None)
    if extension is None:
        return None
    *parts, suffix = filename.removesuffix(extension).split("_")
    matches = [_ENTITY.match(part) for part in parts]
    entities = tuple((match[1], match[2]) for match in matches if match)
    repeated = len({entity for entity, _ in entities}) < len(entities)
    if len(entities) < len(parts) or repeated or not _SUFFIX.match(suffix):
        return None
    return Name(entities, suffix, extension)


def suffix_of(filename: str) -> str | None:
    """The suffix that a file name ends in, even where the rest of the name is not BIDS."""
    extension = next((e for e in EXTENSIONS if filename.endswith(e)), None)
    return None if extension is None else filename.removesuffix(extension).rpartition("_")[2]


def canonical(entity: str, label: str) -> str:
    """A label as it is compared: numbers without leading zeros."""
    return str(int(label)) if entity in NUMBERED and label.isdecimal() else label
