"""What there is to choose from, told for people and for scripts: every stage, parameter by parameter.

Names, types and defaults come from the kernels' signatures; what a parameter means and its
units from the section `Parameters` of the kernel's docstring. So nothing is written twice.
"""

import inspect
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args, get_origin

from qsm_dask.quantities import SPACE, quantity
from qsm_dask.scan import Geometry
from qsm_dask.stages import Stage

HEAD = Geometry((192, 224, 160), (1.0, 1.0, 1.0), (0.005, 0.010, 0.015, 0.020))
"""The scan for which the memory of a stage is told."""

UNITS = {
    "_per_s_ppm": "1/(s ppm)",
    "_ppm_mm": "ppm mm",
    "_per_s": "1/s",
    "_ppm": "ppm",
    "_rad": "rad",
    "_hz": "Hz",
    "_mm": "mm",
    "_s": "s",
}
"""What parameters' names end in and the units it stands for; an ending before those that it ends in itself."""

_ENTRY = re.compile(r"(\w+(?:, \w+)*) : (.*)")
_BRACKET = re.compile(r" ?\[([^\]]+)\]")


@dataclass(frozen=True)
class Parameter:
    """A parameter of a stage.

    Attributes
    ----------
    name, type : as YAML and `--set` take them; the type in words.
    default : its value unless given; None where there is no default and `required` is true.
    required : whether it must be given.
    units : empty for a pure number.
    meaning : what it does and why the default is what it is.
    """

    name: str
    type: str
    default: Any
    required: bool
    units: str
    meaning: str

    @property
    def written(self) -> str:
        """The default as YAML and `--set` take it."""
        return _written(self.default)

    @property
    def brief(self) -> str:
        """The first sentence of its meaning."""
        return re.split(r"\.(?:\s|$)", self.meaning, maxsplit=1)[0]


@dataclass(frozen=True)
class Argument:
    """A quantity that a stage reads or writes.

    Attributes
    ----------
    name, units, meaning : of the quantity; what is read means what the kernel's docstring says, where it has an entry
        of its own.
    image : whether it has a value in each voxel.
    optional : whether a stage that reads it can do without.
    """

    name: str
    units: str
    meaning: str
    image: bool
    optional: bool = False


@dataclass(frozen=True)
class Description:
    """All that there is to know of a stage before it is used.

    Attributes
    ----------
    stage, summary : its name, and what it does in one line.
    details : the rest of the kernel's docstring up to its first section.
    reads : what it reads, in order.
    writes : what it makes, the quantity it exists for first.
    parameters : in the order of the signature.
    memory_bytes : most that it takes beside its inputs on `HEAD` at default parameters.
    doi : of the method; empty where there is none to cite.
    version : of its results.
    """

    stage: str
    summary: str
    details: str
    reads: tuple[Argument, ...]
    writes: tuple[Argument, ...]
    parameters: tuple[Parameter, ...]
    memory_bytes: int
    doi: str
    version: int

    @property
    def memory_volumes(self) -> float:
        """The memory in float32 volumes of `HEAD`."""
        return round(self.memory_bytes / (4 * HEAD.voxels), 1)


def describe(name: str, stage: Stage) -> Description:
    """Everything about one stage of the table `stages.STAGES`."""
    told = meanings(stage.kernel)
    entries = Counter(told.get(one, "") for one in stage.inputs)
    # An entry of several quantities is written for who reads the code; what each of them is, its own meaning says.
    own = {one: told[one] for one in stage.inputs if entries[told.get(one, "")] == 1}
    text = inspect.getdoc(stage.kernel) or ""
    before = re.split(r"\n\w+\n-{3,}\n", text, maxsplit=1)[0]
    summary, _, details = before.partition("\n")
    return Description(
        name,
        summary,
        details.strip(),
        tuple(_argument(one, own.get(one, ""), optional=one in stage.optional) for one in stage.inputs),
        tuple(_argument(one) for one in stage.outputs),
        tuple(_parameter(one, default, stage.types[one], told) for one, default in stage.parameters.items()),
        stage.memory(HEAD, {**stage.parameters, **dict.fromkeys(stage.atlases, HEAD.voxels)}),
        stage.cite,
        stage.version,
    )


@cache
def meanings(kernel: Callable[..., Any]) -> dict[str, str]:
    """What each argument means, by name, from the section `Parameters` of a numpydoc docstring."""
    text = inspect.getdoc(kernel) or ""
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\w+\n-{3,}\n|\Z)", text, re.MULTILINE | re.DOTALL)
    found: dict[str, str] = {}
    names: list[str] = []
    for line in section[1].splitlines() if section else ():
        entry = _ENTRY.fullmatch(line)
        if entry is not None:
            names = entry[1].split(", ")
            found |= dict.fromkeys(names, entry[2])
        elif line.strip():
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def units_of(name: str, meaning: str) -> str:
    """Units of a parameter: those that its name carries, else the first in brackets in its meaning."""
    carried = next((units for ending, units in UNITS.items() if name.endswith(ending)), "")
    bracket = _BRACKET.search(meaning)
    return carried or (bracket[1] if bracket else "")


def type_in_words(kind: Any) -> str:
    """A parameter's type as people write it: `number`, `whole number`, `one of …`, `list of …`."""
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    if get_origin(kind) is tuple:
        return f"list of {'names' if get_args(kind)[0] is str else type_in_words(get_args(kind)[0]) + 's'}"
    if get_args(kind):
        return " or ".join("none" if option is type(None) else type_in_words(option) for option in get_args(kind))
    return {float: "number", int: "whole number", bool: "true or false", str: "text"}.get(kind, str(kind))


def _parameter(name: str, default: Any, kind: Any, told: dict[str, str]) -> Parameter:
    meaning = told.get(name, "")
    units = units_of(name, meaning)
    meaning = meaning.replace(f" [{units}]", "", 1)  # it stands beside the value
    required = default is inspect.Parameter.empty
    return Parameter(name, type_in_words(kind), None if required else default, required, units, meaning)


def _written(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_written, value)) or "[]"
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _argument(name: str, meaning: str = "", *, optional: bool = False) -> Argument:
    known = quantity(name)
    bare = _BRACKET.sub("", re.sub(r"^\([^)]*\) ?", "", meaning)).rstrip(".")  # without dims and units
    return Argument(name, known.units, bare or known.meaning, known.dims[-3:] == SPACE, optional)
