"""What one acquisition is: its key and its geometry."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_ENTITY = re.compile(r"([a-z]+)-([0-9A-Za-z+]+)")
_SUFFIX = re.compile(r"[0-9A-Za-z]+")
DEFAULT_SUFFIX = "MEGRE"


@dataclass(frozen=True, order=True)
class ScanKey:
    """The name of one acquisition: its BIDS entities but `echo`, `part` and `coil`, and its suffix.

    `str(key)` is `sub-01_ses-1_run-1`; a suffix other than `MEGRE` is appended
    (`sub-01_T2starw`). Labels are alphanumeric, so a key is safe as a path.
    """

    entities: tuple[tuple[str, str], ...]
    suffix: str = DEFAULT_SUFFIX

    def __post_init__(self) -> None:
        if not self.entities or self.entities[0][0] != "sub":
            raise ValueError(f"a scan key starts with sub-<label>, got {self.entities!r}")
        for name, label in self.entities:
            if not _ENTITY.fullmatch(f"{name}-{label}"):
                raise ValueError(f"{name}-{label} is not a BIDS entity with an alphanumeric label")
        if not _SUFFIX.fullmatch(self.suffix):
            raise ValueError(f"{self.suffix!r} is not a BIDS suffix")

    @classmethod
    def parse(cls, text: str) -> "ScanKey":
        """Read back `str(key)`.

        Raises
        ------
        ValueError : `text` is not the name of a scan.
        """
        parts = text.split("_")
        suffix = DEFAULT_SUFFIX
        if len(parts) > 1 and not _ENTITY.fullmatch(parts[-1]):
            suffix = parts.pop()
        entities = []
        for part in parts:
            match = _ENTITY.fullmatch(part)
            if match is None:
                raise ValueError(f"{text!r} is not the name of a scan: {part!r} is not <entity>-<label>")
            entities.append((match[1], match[2]))
        return cls(tuple(entities), suffix)

    def __str__(self) -> str:
        parts = [f"{name}-{label}" for name, label in self.entities]
        return "_".join(parts if self.suffix == DEFAULT_SUFFIX else [*parts, self.suffix])

    def get(self, entity: str) -> str | None:
        """The label of an entity such as `ses`, or None."""
        return dict(self.entities).get(entity)

    @property
    def subject(self) -> str:
        """The participant, as `sub-01`."""
        return f"sub-{self.entities[0][1]}"

    @property
    def session(self) -> str | None:
        """The session, as `ses-1`, or None."""
        label = self.get("ses")
        return None if label is None else f"ses-{label}"


@dataclass(frozen=True)
class Geometry:
    """What is known of a scan before its voxels are read: enough to plan and to project memory.

    Attributes
    ----------
    shape : matrix (x, y, z).
    voxel_size : spacing [mm].
    te : echo times [s], ascending.
    probabilities : volumes of `probseg` that were ingested with it.
    """

    shape: tuple[int, int, int]
    voxel_size: tuple[float, float, float]
    te: tuple[float, ...]
    probabilities: int = 0

    @property
    def voxels(self) -> int:
        """Number of voxels of one volume."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    @property
    def echoes(self) -> int:
        """Number of echoes."""
        return len(self.te)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "shape": list(self.shape),
            "voxel_size": list(self.voxel_size),
            "te": list(self.te),
            "probabilities": self.probabilities,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Geometry":
        """The inverse of `to_dict`."""
        x, y, z = (int(n) for n in values["shape"])
        dx, dy, dz = (float(v) for v in values["voxel_size"])
        te = tuple(float(t) for t in values["te"])
        return cls((x, y, z), (dx, dy, dz), te, int(values["probabilities"]))
