"""The table of methods: one line a method, and what its signature says of it.

A kernel's signature is the schema. Positional-only arguments are quantities, matched
by name (with a default of None: optional); keyword-only arguments are parameters, and
their names, types and defaults are the YAML.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_type_hints

from qsm_dask.scan import Geometry

Memory = Callable[[Geometry, Mapping[str, Any]], int]
"""Peak bytes a stage takes beside its inputs, from the geometry and the resolved parameters."""

Applies = Callable[[Geometry], str | None]
"""Why a stage cannot run on a scan of this geometry, or None if it can."""


@dataclass(frozen=True)
class Stage:
    """A method: a kernel, what it returns, what it costs and where it comes from.

    Attributes
    ----------
    kernel : pure function; its signature is the schema.
    outputs : names of the quantities it returns, the one it exists for first. A
        `Solved` may follow them and goes to the provenance.
    memory : peak bytes beside its inputs.
    cite : DOI of the method, empty where there is none to cite.
    version : bumped whenever results change, so that stored results are recomputed.
    applies : why it cannot run on a geometry, if it cannot.
    """

    kernel: Callable[..., Any]
    outputs: tuple[str, ...]
    memory: Memory
    cite: str = ""
    version: int = 1
    applies: Applies = lambda geometry: None  # noqa: E731

    @cached_property
    def _signature(self) -> inspect.Signature:
        return inspect.signature(self.kernel)

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Every quantity it reads, in order."""
        found = self._signature.parameters.values()
        return tuple(p.name for p in found if p.kind is p.POSITIONAL_ONLY)

    @cached_property
    def optional(self) -> frozenset[str]:
        """The quantities it can do without."""
        found = self._signature.parameters.values()
        return frozenset(p.name for p in found if p.kind is p.POSITIONAL_ONLY and p.default is not p.empty)

    @cached_property
    def parameters(self) -> Mapping[str, Any]:
        """Parameter names with their defaults."""
        found = self._signature.parameters.values()
        return {p.name: p.default for p in found if p.kind is p.KEYWORD_ONLY}

    @cached_property
    def types(self) -> Mapping[str, Any]:
        """Parameter names with their types."""
        hints = get_type_hints(self.kernel)
        return {name: hints[name] for name in self.parameters}

    @property
    def summary(self) -> str:
        """The first line of the kernel's docstring."""
        return (inspect.getdoc(self.kernel) or "").partition("\n")[0]


STAGES: Mapping[str, Stage] = {}
