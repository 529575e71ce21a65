"""A pipeline as a file says it: ordered steps, what must come out, what is kept."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any

from qsm_dask import resources
from qsm_dask.atlas import Part, Pin
from qsm_dask.errors import ConfigError
from qsm_dask.pipeline.choice import make_plan
from qsm_dask.pipeline.parameters import resolve
from qsm_dask.pipeline.plan import Plan
from qsm_dask.pipeline.steps import Step
from qsm_dask.quantities import BESIDE, RAW, base_name, quantity
from qsm_dask.scan import Geometry
from qsm_dask.stages import STAGES, Stage

Pins = Mapping[tuple[str, str], Pin]
"""By the name of an atlas and the part of it."""

_KEYS = ("name", "summary", "goal", "keep", "steps", "atlases")
_FULL = Geometry((64, 64, 64), (1.0, 1.0, 1.0), (0.005, 0.010, 0.015, 0.020))
"""A scan that lacks nothing: a pipeline must be able to run whole on it."""


@dataclass(frozen=True)
class Pipeline:
    """Validated steps in the order in which they run.

    Attributes
    ----------
    name, summary : for people.
    slots : one entry a step; an entry of several steps is a choice: the first that
        applies to a scan runs (`any:` in the file).
    goal : quantities without which a scan has failed.
    keep : quantities stored beside those that are always stored.
    """

    name: str
    slots: tuple[tuple[Step, ...], ...]
    goal: tuple[str, ...] = ("chi",)
    keep: tuple[str, ...] = ()
    summary: str = ""
    source: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def __repr__(self) -> str:
        """Its steps, as a file would list them."""
        steps = " > ".join(" or ".join(step.stage for step in slot) for slot in self.slots)
        return f"Pipeline({self.name!r}: {steps})"

    @classmethod
    def from_yaml(cls, name: str | Path, stages: Mapping[str, Stage] = STAGES) -> "Pipeline":
        """Read a shipped pipeline by its name, or a file by its path, and validate it.

        Raises
        ------
        ConfigError : no such file, or anything in it that could not run.
        """
        return cls.from_mapping(resources.load("pipelines", name), stages)

    @classmethod
    def from_mapping(cls, content: Mapping[str, Any], stages: Mapping[str, Stage] = STAGES) -> "Pipeline":
        """Build a pipeline from the plain values of a YAML file and validate it.

        Raises
        ------
        ConfigError : misspelt stages or parameters, values of the wrong type, unknown
            quantities, steps whose inputs no earlier step makes.
        """
        name = str(content.get("name", "pipeline"))
        for key in content:
            if key not in _KEYS:
                close = get_close_matches(key, _KEYS, 1)
                raise ConfigError(f"pipeline {name}: unknown key {key!r}; {_hint(close, _KEYS)}")
        entries = content.get("steps")
        if not isinstance(entries, list) or not entries:
            raise ConfigError(f"pipeline {name}: 'steps' must be a list of at least one stage")
        pins = _read_pins(name, content.get("atlases", {}))
        pipeline = cls(
            name=name,
            slots=tuple(_read_slot(name, entry, stages, pins) for entry in entries),
            goal=_names(name, "goal", content.get("goal", ["chi"])),
            keep=_names(name, "keep", content.get("keep", [])),
            summary=str(content.get("summary", "")),
            source=dict(content),
        )
        pipeline.validate()
        return pipeline

    def makes(self, name: str) -> bool:
        """Whether one of its steps writes a quantity."""
        return any(name in step.outputs for slot in self.slots for step in slot)

    def with_atlas(self, name: str, stages: Mapping[str, Stage] = STAGES) -> "Pipeline":
        """The same pipeline with another atlas in all its steps that name one.

        Raises
        ------
        ConfigError : it has no such step.
        """
        entries = [_with_atlas(entry, name, stages) for entry in self.source["steps"]]
        if not any(step.method.atlases for slot in self.slots for step in slot):
            raise ConfigError(f"pipeline {self.name} has no step that takes an atlas: choose another, such as regions")
        return self.from_mapping({**self.source, "steps": entries}, stages)

    def settled(self, pin: Callable[[str, Part], Pin], stages: Mapping[str, Stage] = STAGES) -> "Pipeline":
        """The same pipeline with every atlas that it names told by its content, which digests depend on.

        Parameters
        ----------
        pin : tells what part of which atlas a name stands for now; it may raise a `ConfigError`.
        stages : as for `from_mapping`.
        """
        atlases: dict[str, dict[str, Any]] = {}
        for step in (step for slot in self.slots for step in slot):
            for parameter, part in step.method.atlases.items():
                name = str(step.parameters[parameter])
                atlases.setdefault(name, {})[part] = asdict(pin(name, part))
        if not atlases:
            return self
        return self.from_mapping({**self.source, "atlases": atlases}, stages)

    def validate(self, available: Collection[str] = RAW) -> None:
        """Check that the pipeline runs whole where nothing is lacking.

        Raises
        ------
        ConfigError : a step reads what neither a scan nor an earlier step gives, or
            `goal` or `keep` name what no step makes.
        """
        have = {*available, *BESIDE}
        made: set[str] = set()
        for slot in self.slots:
            for step in slot:
                for name in step.required:
                    if quantity(name).streamed:
                        raise ConfigError(
                            f"pipeline {self.name}: {step.stage} runs while scans are ingested, before any pipeline: "
                            "leave it out"
                        )
                    if name not in have:
                        close = get_close_matches(name, have, 1)
                        raise ConfigError(
                            f"pipeline {self.name}: {step.stage} reads {name!r}, which no step before it makes; "
                            f"{_hint(close, sorted(have))}"
                        )
                for name in step.outputs[1:]:
                    if step.writes and name in made and name not in step.inputs:
                        raise ConfigError(
                            f"pipeline {self.name}: {step.stage} writes {step.outputs[0]!r} beside an earlier one, but "
                            f"would overwrite {name!r}: rename it too, under writes"
                        )
            made.update(name for step in slot for name in step.outputs)
            have |= made
        for name in (*self.goal, *self.keep):
            if name not in have:
                raise ConfigError(f"pipeline {self.name}: no step makes {name!r}, which goal or keep names")
        self.plan(_FULL, available)

    def plan(self, geometry: Geometry, available: Collection[str]) -> Plan:
        """What to run on one scan, given its geometry and the quantities ingested with it.

        Raises
        ------
        ConfigError : a quantity of `goal` cannot be had; the message says why.
        """
        return make_plan(self.slots, self.goal, self.keep, geometry, available)


def _hint(close: list[str], options: Collection[str]) -> str:
    return f"did you mean {close[0]!r}?" if close else f"known are: {', '.join(options)}"


def _names(pipeline: str, key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ConfigError(f"pipeline {pipeline}: {key!r} must be a list of quantities")
    for item in value:
        _known(f"pipeline {pipeline}: {key}", item)
    return tuple(value)


def _known(where: str, name: str) -> None:
    try:
        base_name(name)
    except KeyError:
        raise ConfigError(
            f"{where}: {name!r} is no quantity; a branch is named after its quantity, as mask_strong"
        ) from None


def _with_atlas(entry: Any, atlas: str, stages: Mapping[str, Stage]) -> Any:
    """One step of a file, or one choice of steps, with another atlas."""
    if isinstance(entry, str):
        return entry
    ((name, given),) = entry.items()
    if name == "any":
        return {"any": [_with_atlas(option, atlas, stages) for option in given]}
    return {name: {**(given or {}), **dict.fromkeys(stages[name].atlases, atlas)}}


def _read_pins(pipeline: str, given: Any) -> dict[tuple[str, str], Pin]:
    try:
        return {
            (str(name), str(part)): Pin(str(pin["digest"]), int(pin["voxels"]), int(pin["probabilities"]))
            for name, parts in given.items()
            for part, pin in parts.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"pipeline {pipeline}: 'atlases' is written by the program: leave it out") from error


def _read_slot(pipeline: str, entry: Any, stages: Mapping[str, Stage], pins: Pins) -> tuple[Step, ...]:
    if isinstance(entry, dict) and set(entry) == {"any"} and isinstance(entry["any"], list) and entry["any"]:
        return tuple(read_step(pipeline, option, stages, pins) for option in entry["any"])
    return (read_step(pipeline, entry, stages, pins),)


def read_step(
    pipeline: str, entry: Any, stages: Mapping[str, Stage] = STAGES, pins: Pins = MappingProxyType({})
) -> Step:
    """One step of a file: `stage` or `{stage: {parameter: value, reads: {...}, writes: {...}}}`.

    Raises
    ------
    ConfigError : it is misspelt or mistyped; the message names the nearest name.
    """
    if isinstance(entry, str):
        entry = {entry: {}}
    if not isinstance(entry, dict) or len(entry) != 1:
        raise ConfigError(f"pipeline {pipeline}: a step is 'stage' or 'stage: {{parameter: value}}', got {entry!r}")
    ((name, given),) = entry.items()
    if name not in stages:
        close = [one for one in stages if one.endswith(f".{name}")] or get_close_matches(str(name), stages, 1)
        raise ConfigError(f"pipeline {pipeline}: no stage {name!r}; {_hint(close, sorted(stages))}")
    given = dict(given or {})
    stage = stages[name]
    reads = _renames(f"{pipeline}: {name}: reads", given.pop("reads", {}), stage.inputs)
    writes = _renames(f"{pipeline}: {name}: writes", given.pop("writes", {}), stage.outputs)
    parameters = resolve(f"pipeline {pipeline}", name, stage, given)
    used = {one: (parameters[one], part) for one, part in stage.atlases.items()}
    mine = {one: pins[key] for one, key in used.items() if key in pins}
    return Step(name, stage, parameters, reads, writes, mine)


def _renames(where: str, given: Any, allowed: Collection[str]) -> dict[str, str]:
    if not isinstance(given, dict):
        raise ConfigError(f"pipeline {where} must be a mapping such as {{mask: mask_strong}}")
    for name, branch in given.items():
        if name not in allowed:
            raise ConfigError(f"pipeline {where}: {name!r} is none of {', '.join(allowed)}")
        _known(f"pipeline {where}", branch)
        if base_name(branch) != base_name(name):
            raise ConfigError(f"pipeline {where}: {branch!r} is not a branch of {name!r}; units would be mixed up")
    return dict(given)
