"""One bound step: a stage, its parameters, and the names it reads and writes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from qsm_dask.atlas import Pin
from qsm_dask.digests import digest_of
from qsm_dask.errors import ConfigError
from qsm_dask.scan import Geometry
from qsm_dask.stages import Stage


@dataclass(frozen=True)
class Step:
    """A stage in its place in a pipeline.

    Attributes
    ----------
    stage : its name in the table.
    method : the table's entry.
    parameters : every parameter with its value.
    reads, writes : the stage's names of quantities to the pipeline's, where they differ.
    pins : which atlas each parameter stands for that names one; empty before the run is prepared.
    """

    stage: str
    method: Stage
    parameters: Mapping[str, Any]
    reads: Mapping[str, str]
    writes: Mapping[str, str]
    pins: Mapping[str, Pin] = field(default_factory=dict)

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """The pipeline's names of what it reads, in the kernel's order."""
        return tuple(self.reads.get(name, name) for name in self.method.inputs)

    @cached_property
    def required(self) -> tuple[str, ...]:
        """The inputs it cannot do without."""
        return tuple(self.reads.get(name, name) for name in self.method.inputs if name not in self.method.optional)

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """The pipeline's names of what it writes, the one it exists for first."""
        return tuple(self.writes.get(name, name) for name in self.method.outputs)

    @property
    def refines(self) -> bool:
        """Whether it reads the very quantity that it exists to write."""
        return self.outputs[0] in self.inputs

    @property
    def probabilities(self) -> int:
        """How many volumes of probabilities it makes."""
        carries = "probseg" in self.method.outputs
        return max((pin.probabilities for pin in self.pins.values()), default=0) if carries else 0

    def digest(self, sources: Mapping[str, str]) -> str:
        """What the step's results depend on: method, version, parameters, inputs and the content of atlases.

        Raises
        ------
        ConfigError : the step uses an atlas and it is not told which.
        """
        inputs = {argument: sources.get(name) for argument, name in zip(self.method.inputs, self.inputs, strict=True)}
        parameters = {**self.parameters, **{name: self._pin(name).digest for name in self.method.atlases}}
        return digest_of([self.stage, self.method.version, parameters, inputs])

    def memory(self, geometry: Geometry) -> int:
        """Peak bytes of the step beside its inputs, those of the atlases that it reads included."""
        sizes = {name: self.pins[name].voxels if name in self.pins else 0 for name in self.method.atlases}
        return self.method.memory(geometry, {**self.parameters, **sizes})

    def _pin(self, name: str) -> Pin:
        if name not in self.pins:
            raise ConfigError(f"{self.stage}: which {name} {self.parameters[name]} is was not settled before the run")
        return self.pins[name]
