"""Reading atlases: folders of NIfTI images and tables, found by a path, by a TemplateFlow name or in a package.

Images are told by their BIDS suffix: `T2starw` and `T1w` are magnitudes to register to, `Chimap` a susceptibility,
`mask` (with `desc-brain`) the brain, `dseg` and `probseg` the regions. A folder that holds one label image and one
table under any other names is an atlas without a template.
"""

import csv
import importlib.util
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from qsm_dask.atlas import Atlas, Grid, Image, Part, Pin
from qsm_dask.digests import DIGEST_SIZE, digest_of
from qsm_dask.errors import ConfigError, InputError, StageError
from qsm_dask.io.names import IMAGES, Name, parse
from qsm_dask.io.nifti import read_header, read_labels, read_volume
from qsm_dask.wording import some

_SUFFIXES: Mapping[str, str] = MappingProxyType(
    {"T2starw": "magnitude", "MEGRE": "magnitude", "T1w": "T1w", "Chimap": "chi"}
)
_TABLES = (".tsv", ".csv", ".txt")
_PIECE = 1 << 20
_NUMBER, _NAME = ("index", "region_index", "label", "id"), ("name", "region_name", "region")

_Files = dict[str, list[Path]]
"""Files by role: `magnitude`, `T1w`, `chi`, `mask`, `dseg`, `probseg`, `table`."""


def pin(name: str, part: Part) -> Pin:
    """Which content a name stands for now.

    Raises
    ------
    ConfigError : there is no such atlas, it lacks the part, or files of it cannot be told apart.
    """
    if part == "grid":
        _, grid = _grid(name)
        return Pin(digest_of([list(grid.shape), grid.affine.tolist()]), math.prod(grid.shape))
    files = _files(name, part)
    voxels, probabilities = 0, 0
    for role, paths in files.items():
        if role != "table":
            headers = [read_header(path, standard=True) for path in paths]
            voxels += sum(header.voxels * header.volumes for header in headers)
            probabilities += sum(header.volumes for header in headers) if role == "probseg" else 0
    content: list[Any] = [
        [role, [_checksum(str(path), *_state(path)) for path in files[role]]] for role in sorted(files)
    ]
    if "probseg" in files:  # whose names may stand in no file that was summed up
        content.append(["names", sorted(_names_of(files["probseg"], files.get("table", [])).items())])
    return Pin(digest_of(content), voxels, probabilities)


def read(name: str, part: Part, digest: str = "") -> Atlas:
    """Read a part of an atlas.

    Parameters
    ----------
    name : a folder; `templateflow:NAME` of TemplateFlow's folder, which is never downloaded to by itself;
        `package:NAME/FOLDER` of an installed Python package. `#atlas-NAME` or other entities may follow, to choose
        among several atlases of a folder.
    part : the images to register to, the regions, or which voxels the images have.
    digest : of the content that is meant; anything will do if it is empty.

    Raises
    ------
    ConfigError : see `pin`.
    StageError : the content is another.
    InputError : a file cannot be read.
    """
    if digest and pin(name, part).digest != digest:
        raise StageError(f"the atlas {name} is not what it was when the run began: run `qsm-dask process` again")
    if part == "grid":
        path, grid = _grid(name)
        return Atlas(_space(path), grid=grid)
    files = _files(name, part)
    space = next((found for path in _images(files) if (found := _space(path))), "")
    if part == "template":
        contrasts = {role: _image(paths[0]) for role, paths in files.items() if role != "mask"}
        masks = [_image(path) for path in files.get("mask", ())]
        return Atlas(space, contrasts, Image(masks[0].values != 0, masks[0].affine) if masks else None)
    if "dseg" in files:
        return _labelled(space, files["dseg"][0], files.get("table", []))
    return _probable(space, files["probseg"], files.get("table", []))


def folder_of(name: str) -> Path:
    """The folder that a name stands for.

    Raises
    ------
    ConfigError : there is none; the message says how to come by it.
    """
    place = name.partition("#")[0]
    scheme, _, rest = place.partition(":")
    if scheme == "templateflow":
        home = Path(os.environ.get("TEMPLATEFLOW_HOME", Path.home() / ".cache" / "templateflow"))
        found = home / f"tpl-{rest.removeprefix('tpl-')}"
        hint = f"fetch it first: `pip install templateflow`, then `templateflow get {rest}`"
    elif scheme == "package":
        package, _, inside = rest.partition("/")
        spec = importlib.util.find_spec(package) if re.fullmatch(r"[A-Za-z_]\w*", package) else None
        roots = list(spec.submodule_search_locations or ()) if spec else []
        if not roots:
            raise ConfigError(f"atlas {name}: no Python package {package!r} is installed")
        found, hint = Path(roots[0], inside), f"the package lies in {roots[0]}"
    else:
        found, hint = Path(place).expanduser(), "give a folder, templateflow:NAME or package:NAME/FOLDER"
    if not found.is_dir():
        raise ConfigError(f"atlas {name}: there is no folder {found}; {hint}")
    return found


def _grid(name: str) -> tuple[Path, Grid]:
    """The image to register to, and which voxels it has."""
    path = next(iter(_files(name, "template").values()))[0]
    header = read_header(path, standard=True)
    return path, Grid(header.shape, header.affine)


def _files(name: str, part: Part) -> _Files:
    folder, wanted = folder_of(name), _wanted(name)
    found: _Files = {}
    strange: list[Path] = []
    for path in sorted(folder.iterdir()):
        if not path.name.endswith(IMAGES) or path.name.startswith("."):
            continue
        known = parse(path.name)
        if known is None or not known.entities:
            strange.append(path)
        elif all(known.get(entity) in (None, label) for entity, label in wanted.items()):
            role = _role(known)
            if role:
                found.setdefault(role, []).append(path)
    if part == "template":
        return _template_files(name, found)
    return _region_files(name, folder, found, strange)


def _wanted(name: str) -> dict[str, str]:
    """The entities by which one atlas of a folder is chosen."""
    chosen = name.partition("#")[2]
    pairs = [pair.partition("-") for pair in chosen.split("_")] if chosen else []
    if not all(entity and label for entity, _, label in pairs):
        raise ConfigError(f"atlas {name}: what follows # are entities, such as #atlas-CIT168_res-01")
    return {entity: label for entity, _, label in pairs}


def _role(name: Name) -> str | None:
    if name.suffix == "mask":
        return "mask" if name.get("desc") == "brain" or name.get("label") == "brain" else None
    if name.suffix in ("dseg", "probseg"):
        return name.suffix
    return _SUFFIXES.get(name.suffix)


def _template_files(name: str, found: _Files) -> _Files:
    roles = [role for role in ("magnitude", "T1w", "chi", "mask") if role in found]
    if not {"magnitude", "T1w"} & set(roles):
        raise ConfigError(f"atlas {name}: has no image to register to (looked for *_T2starw.nii[.gz], *_T1w.nii[.gz])")
    return {role: [_plainest(found[role])] for role in roles}


def _plainest(paths: Sequence[Path]) -> Path:
    """Of several versions of an image the one with the fewest entities, of several resolutions the first."""
    return min(paths, key=lambda path: (len(_entities(path)), path.name))


def _region_files(name: str, folder: Path, found: _Files, strange: Sequence[Path]) -> _Files:
    if "dseg" in found:
        files: _Files = {"dseg": [_only(name, found["dseg"])]}
    elif "probseg" in found:
        parts = {_without(path, "res", "label") for path in found["probseg"]}
        if len(parts) > 1:
            raise ConfigError(_ambiguous(name, found["probseg"]))
        lowest = min(dict(_entities(path)).get("res", "") for path in found["probseg"])
        files = {"probseg": [p for p in found["probseg"] if dict(_entities(p)).get("res", "") == lowest]}
    elif len(strange) == 1:
        files = {"dseg": [strange[0]]}
    else:
        raise ConfigError(
            f"atlas {name}: has no regions (looked for *_dseg.nii[.gz], *_probseg.nii[.gz], or a single image)"
        )
    tables = _tables(folder, next(iter(files.values()))[0])
    return {**files, "table": tables} if tables else files


def _only(name: str, paths: Sequence[Path]) -> Path:
    if len({_without(path, "res") for path in paths}) > 1:
        raise ConfigError(_ambiguous(name, paths))
    return min(paths, key=lambda path: path.name)


def _ambiguous(name: str, paths: Sequence[Path]) -> str:
    listed = some([path.name for path in paths])
    return f"atlas {name}: holds several: {listed}; choose one by its entities, as in FOLDER#atlas-NAME"


def _tables(folder: Path, image: Path) -> list[Path]:
    """The table of a label image: of its own name, or of all its entities but the resolution, or the only one."""
    stem = image.name.removesuffix(".gz").removesuffix(".nii")
    candidates = [path for path in sorted(folder.iterdir()) if path.suffix in _TABLES]
    own = [path for path in candidates if path.stem == stem]
    wanted = set(_without(image, "res", "label"))
    fitting = [
        path
        for path in candidates
        if (known := parse(path.name)) is not None
        and known.suffix in ("dseg", "probseg")
        and set(known.entities) <= wanted
    ]
    fitting.sort(key=lambda path: -len(_entities(path)))
    return (own or fitting or (candidates if not _entities(image) else []))[:1]


def _entities(path: Path) -> tuple[tuple[str, str], ...]:
    known = parse(path.name)
    return () if known is None else known.entities


def _without(path: Path, *dropped: str) -> tuple[tuple[str, str], ...]:
    return tuple(pair for pair in _entities(path) if pair[0] not in dropped)


def _images(files: _Files) -> list[Path]:
    return [path for role, paths in files.items() if role != "table" for path in paths]


def _space(path: Path) -> str:
    """The space that a name tells; in packages a folder above may tell it."""
    entities = dict(_entities(path))
    told = entities.get("tpl") or entities.get("space")
    return told or next((parent.name for parent in path.parents if parent.name.startswith("MNI")), "")


def _state(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=64)
def _checksum(path: str, size: int, mtime_ns: int) -> str:
    """Checksum of a file's bytes, once a process for each state of it."""
    del size, mtime_ns
    digest = blake2b(digest_size=DIGEST_SIZE)
    with Path(path).open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _image(path: Path) -> Image:
    header = read_header(path, standard=True)
    if header.volumes != 1:
        raise InputError(f"{path}: has {header.volumes} volumes; an image of a template has one")
    return Image(read_volume(path), header.affine)


def _labelled(space: str, path: Path, tables: Sequence[Path]) -> Atlas:
    header = read_header(path, standard=True)
    values = read_labels(header)
    present = [int(label) for label in np.unique(values) if label]
    if not present:
        raise InputError(f"{path}: the label image is empty")
    named = _names(tables[0]) if tables else {}
    return Atlas(
        space,
        labels=Image(values, header.affine),
        names={label: named.get(label, f"label_{label}") for label in present},
    )


def _probable(space: str, paths: Sequence[Path], tables: Sequence[Path]) -> Atlas:
    headers = [read_header(path, standard=True) for path in paths]
    volumes = [read_volume(path) for path in paths]
    stacked = np.concatenate([volume if volume.ndim == 4 else volume[np.newaxis] for volume in volumes])
    if not (stacked.min() >= 0.0 and stacked.max() <= 1.0 + 1e-5):
        raise InputError(f"{paths[0]}: probabilities lie between 0 and 1, these reach {stacked.max():g}")
    names = _names_of(paths, tables)
    if len(names) != stacked.shape[0]:
        raise InputError(
            f"{paths[0]}: has {stacked.shape[0]} volumes and {len(names)} names: give a dseg.tsv with a row a volume"
        )
    return Atlas(space, probabilities=Image(stacked, headers[0].affine), names=names)


def _names_of(paths: Sequence[Path], tables: Sequence[Path]) -> dict[int, str]:
    """Names of probabilities: those of their files, of a table, or of the sidecar of a single file."""
    if len(paths) > 1:
        return {number: dict(_entities(path)).get("label", path.stem) for number, path in enumerate(paths, 1)}
    return _names(tables[0]) if tables else _label_map(paths[0])


def _label_map(path: Path) -> dict[int, str]:
    sidecar = path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".json")
    try:
        listed: Any = json.loads(sidecar.read_text(encoding="utf-8-sig")).get("LabelMap", ())
    except (OSError, ValueError, AttributeError):
        listed = ()
    return {number: str(name) for number, name in enumerate(listed, 1)}


def _names(table: Path) -> dict[int, str]:
    """Names by label: a table with a header that tells index and name, or numbers and names without one."""
    try:
        text = table.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise InputError(f"{table}: cannot be read: {error}") from error
    first = text.partition("\n")[0]
    rows = [row for row in csv.reader(text.splitlines(), delimiter="\t" if "\t" in first else ",") if row]
    number, name = 0, 1
    if rows and not rows[0][0].strip().isdecimal():
        header = [cell.strip().lower() for cell in rows.pop(0)]
        number = next((header.index(one) for one in _NUMBER if one in header), -1)
        name = next((header.index(one) for one in _NAME if one in header), -1)
        if number < 0 or name < 0:
            raise InputError(f"{table}: expected the columns index and name, found {', '.join(header)}")
    names: dict[int, str] = {}
    for row in rows:
        if len(row) <= max(number, name) or not row[number].strip().isdecimal():
            raise InputError(f"{table}: no whole number and name in the row {' '.join(row)!r}")
        label = int(row[number])
        if label in names:
            raise InputError(f"{table}: index {label} stands there twice")
        names[label] = row[name].strip() or f"label_{label}"
    names.pop(0, None)
    return names
