"""Files of a scan by a pattern: `{sub}/mri/aseg.mgz`, with the scan's entities put in."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from qsm_dask.errors import ConfigError, InputError
from qsm_dask.io.acquisition import Acquisition, FileRef
from qsm_dask.io.names import ORDER
from qsm_dask.scan import ScanKey

KNOWN = (
    *("mri/aseg.mgz", "mri/aparc.DKTatlas+aseg.deep.withCC.mgz", "mri/aparc.DKTatlas+aseg.deep.mgz"),
    *("mri/aseg.auto_noCCseg.mgz", "mri/synthseg.mgz", "mri/synthseg.rca.mgz"),
    *("*_synthseg.nii.gz", "*_synthseg.mgz", "anat/*_synthseg.nii.gz", "anat/*_synthseg.mgz"),
    *("*_all_fast_firstseg.nii.gz", "anat/*_all_fast_firstseg.nii.gz"),
)
"""Where FreeSurfer, FastSurfer, SynthSeg and FIRST leave label images below a subject's folder, the best first."""

TRANSFORMED = ("dseg", "probseg")
"""What a transform moves unless it says what."""

_MOVABLE = ("dseg", "probseg", "mask")
_PLACE = re.compile(r"\{([a-z]+)\}")
_NAMES = re.compile(r"^((?:[a-z]+,)*[a-z]+)=(.+)$")


@dataclass(frozen=True)
class Pattern:
    """A path below a folder, with `{sub}`, `{ses}` … where a scan's entities stand, `*` and `?`.

    Attributes
    ----------
    root : the folder.
    text : the path; one without `{` lies in the subject's folder.
    prefix : how records call the folder.
    """

    root: Path
    text: str
    prefix: str

    def of(self, key: ScanKey) -> tuple[FileRef, ...]:
        """The files of a scan, those of its session before those of its subject only; none where there are none."""
        for path in self._expanded(key):
            folder = self.root / path.rpartition("/")[0]
            if not folder.is_dir():
                continue
            found = sorted(one for one in self.root.glob(path) if one.is_file()) if re.search(r"[*?]", path) else [
                one for one in (self.root / path,) if one.is_file()
            ]  # fmt: skip
            if found:
                return tuple(self._reference(one) for one in found)
        return ()

    def _expanded(self, key: ScanKey) -> Iterator[str]:
        entities = {entity: f"{entity}-{label}" for entity, label in key.entities}
        if "{" not in self.text:
            session = entities.get("ses")
            homes = [f"{key.subject}_{session}", f"{key.subject}/{session}"] if session else []
            yield from (f"{home}/{self.text}" for home in (*homes, key.subject))
        elif all(name in entities for name in _PLACE.findall(self.text)):
            yield _PLACE.sub(lambda match: entities[match[1]], self.text)

    def _reference(self, path: Path) -> FileRef:
        return FileRef(f"{self.prefix}/{path.relative_to(self.root).as_posix()}", str(path))


def prefix(root: Path, bids: Path) -> str:
    """How records call a folder: by its path in the dataset, or by its name."""
    here, base = root.resolve(), bids.resolve()
    return here.relative_to(base).as_posix() if here.is_relative_to(base) else here.name


def check(where: str, text: str) -> str:
    """A pattern, if it can be one.

    Raises
    ------
    ConfigError : it leaves its folder, or names what is no BIDS entity.
    """
    wrong = [name for name in re.findall(r"\{([^}]*)\}?", text) if name not in ORDER]
    if wrong or text.count("{") != text.count("}"):
        raise ConfigError(
            f"{where}: {text!r} names {{{', '.join(wrong)}}}; entities are such as {{sub}}, {{ses}}, {{run}}"
        )
    if text.startswith("/") or ".." in text.split("/"):
        raise ConfigError(f"{where}: {text!r} must lie below the folder")
    return text


@dataclass(frozen=True)
class Transforms:
    """A pattern of transforms and what they are for.

    Attributes
    ----------
    pattern : of the files.
    quantities : what they bring onto the scan.
    """

    pattern: Pattern
    quantities: tuple[str, ...]

    @classmethod
    def parse(cls, text: str, bids: Path) -> "Transforms":
        """Read `[NAMES=]PATTERN`, as the command line gives it.

        Raises
        ------
        ConfigError : no such folder, names that cannot be transformed, or nitransforms is not installed.
        """
        if find_spec("nitransforms") is None:
            raise ConfigError(f"--transform {text}: to read transforms install qsm-dask[anatomy]")
        match = _NAMES.match(text)
        names = tuple(match[1].split(",")) if match else TRANSFORMED
        for name in names:
            if name not in _MOVABLE:
                raise ConfigError(f"--transform {text}: {name!r} cannot be moved; take any of {', '.join(_MOVABLE)}")
        path = match[2] if match else text
        parts = Path(path).expanduser().absolute().parts
        fixed = next((n for n, part in enumerate(parts) if re.search(r"[{*?]", part)), len(parts) - 1)
        root = Path(*parts[:fixed])
        if not root.is_dir():
            raise ConfigError(f"--transform {text}: there is no folder {root}")
        inside = check(f"--transform {text}", "/".join(parts[fixed:]))
        return cls(Pattern(root, inside, prefix(root, bids)), names)

    def __str__(self) -> str:
        """The pattern, without where its folder lies."""
        return f"{','.join(self.quantities)}={self.pattern.prefix}/{self.pattern.text}"

    def of(self, acquisition: Acquisition, subjects: Sequence[str]) -> FileRef | None:
        """The transform of a scan, or None.

        Raises
        ------
        InputError : there are several, or one file for several participants.
        """
        if "{sub}" not in self.pattern.text:
            if len(subjects) > 1:
                raise InputError(
                    f"--transform {self}: one file for {len(subjects)} participants; put {{sub}} where they differ"
                )
            path = self.pattern.root / self.pattern.text
            return FileRef(f"{self.pattern.prefix}/{self.pattern.text}", str(path)) if path.is_file() else None
        found = self.pattern.of(acquisition.key)
        if len(found) > 1:
            raise InputError(
                f"--transform {self}: {found[0].label} and {found[1].label} are both of {acquisition.key}; write the "
                "pattern so that one of them fits"
            )
        return found[0] if found else None
