"""Where the data files lie that are shipped beside the code: `pipelines/` and `cluster/`."""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from qsm_dask.errors import ConfigError

_PACKAGE = Path(__file__).parent


def folder(name: str) -> Path:
    """The folder `name` of this installation.

    A wheel carries it inside the package; in a checkout it stands at the top level.

    Raises
    ------
    ConfigError : the installation lacks it.
    """
    for candidate in (_PACKAGE / name, _PACKAGE.parent / name):
        if candidate.is_dir():
            return candidate
    raise ConfigError(f"this installation of qsm_dask has no folder {name!r}: reinstall it")


def names(kind: str) -> tuple[str, ...]:
    """The YAML files of the folder `kind`, without their ending, sorted."""
    return tuple(sorted(path.stem for path in folder(kind).glob("*.yaml")))


def load(kind: str, name: str | Path) -> Mapping[str, Any]:
    """Read a YAML file: one shipped in the folder `kind` by its name, or the user's own by its path.

    Raises
    ------
    ConfigError : there is no such file, or it is not a YAML mapping.
    """
    shipped = names(kind)
    path = folder(kind) / f"{name}.yaml" if str(name) in shipped else Path(name)
    if not path.is_file():
        close = get_close_matches(str(name), shipped, 1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        what = kind.removesuffix("s")
        raise ConfigError(
            f"no {what} {str(name)!r}: it is neither a shipped one nor a file; {hint}shipped are: {', '.join(shipped)}"
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping of options, found {type(content).__name__}")
    return {"name": path.stem, **content}
