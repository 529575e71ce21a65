"""BIDS filter files: which files of a dataset enter, by their entities."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qsm_dask.errors import ConfigError
from qsm_dask.io.names import LONG_NAMES, ORDER, RAW_SUFFIXES, Name, canonical

QUERIES = (*(suffix.lower() for suffix in RAW_SUFFIXES), "dseg", "mask", "chi", "local_field", "r2", "t1w")
_LOG = logging.getLogger(__name__)
_SPECIAL = ("suffix", "extension", "datatype")
_NONE, _ANY = ("Query.NONE", None), ("Query.ANY", "*")


@dataclass(frozen=True)
class Filters:
    """The content of a filter file, as fMRIPrep users know it.

    A JSON object with one entry a kind of file (`megre`, `t2starw`, `dseg`, `mask`, `chi`,
    `local_field`, `r2`, `t1w`), each an object of entities, by short or long name, with the labels that
    may enter: one label, a list of labels, `null` (the entity must be absent) or `"*"` (it
    must be present). An entity that is not named may have any label. Kinds of file that
    only other programs read are passed over with a warning.
    """

    queries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> "Filters":
        """Read a filter file.

        Raises
        ------
        ConfigError : no such file, not JSON, or an entity that does not exist.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8-sig"))
        except OSError as error:
            raise ConfigError(f"filter file {path}: cannot be read: {error.strerror or error}") from error
        except ValueError as error:
            raise ConfigError(f"filter file {path}: not valid JSON: {error}") from error
        if not isinstance(content, dict) or not all(isinstance(query, dict) for query in content.values()):
            raise ConfigError(f'filter file {path}: expected {{"megre": {{"acquisition": "…"}}, …}}')
        queries = {}
        for kind, query in content.items():
            if kind.lower() not in QUERIES:
                _LOG.warning(
                    "filter file %s: %r is no kind of file that is read here (%s): it filters nothing",
                    path, kind, ", ".join(QUERIES),
                )  # fmt: skip
                continue
            queries[kind.lower()] = {_entity(path, kind, name): value for name, value in query.items()}
        return cls(queries)

    def keep(self, kind: str, name: Name, datatype: str) -> bool:
        """Whether a file of that kind may enter."""
        query = self.queries.get(kind.lower(), {})
        special = {"suffix": name.suffix, "extension": name.extension, "datatype": datatype}
        return all(_accepts(entity, wanted, special.get(entity, name.get(entity))) for entity, wanted in query.items())

    def restricts(self, kind: str, entity: str) -> bool:
        """Whether files of that kind are chosen by that entity."""
        return entity in self.queries.get(kind.lower(), {})


def _entity(path: Path, kind: str, name: str) -> str:
    entity = LONG_NAMES.get(name, name)
    if entity not in ORDER and entity not in _SPECIAL:
        raise ConfigError(
            f"filter file {path}: {kind}: {name!r} is not a BIDS entity (such as {', '.join(LONG_NAMES)})"
        )
    return entity


def _accepts(entity: str, wanted: Any, label: str | None) -> bool:
    if wanted in _NONE:
        return label is None
    if wanted in _ANY:
        return label is not None
    if wanted == "Query.OPTIONAL":
        return True
    if isinstance(wanted, list):
        return any(_accepts(entity, one, label) for one in wanted)
    if label is None:
        return False
    bare = str(wanted).removeprefix(f"{entity}-")
    if entity == "extension":
        bare = "." + bare.lstrip(".")
    return canonical(entity, bare) == canonical(entity, label)
