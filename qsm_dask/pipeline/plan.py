"""What a pipeline does on one scan: the steps that apply, grouped into commits, and their run.

Order, resumption and invalidation follow from the names that steps read and write, so
nobody maintains a table of dependencies. The last producer of a name wins.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from qsm_dask import maskfigures
from qsm_dask.atlas import Atlas, Part
from qsm_dask.digests import digest_of
from qsm_dask.errors import StageError
from qsm_dask.kernels.solved import Solved
from qsm_dask.pipeline.steps import Step
from qsm_dask.quantities import MOST_T1W_VOXELS, base_name, quantity
from qsm_dask.scan import Geometry
from qsm_dask.told import Told

OpenAtlas = Callable[[str, Part, str], Atlas]
"""Reads a part of an atlas by its name, and refuses it where its content has not the digest that is given too."""

_HEADROOM = 1.1


@dataclass(frozen=True)
class PlanNode:
    """A run of steps that is committed together.

    Attributes
    ----------
    name : one of `quantities.NODES`.
    steps : in order.
    reads : what it needs from the commits before it.
    stores : what its commit holds.
    """

    name: str
    steps: tuple[Step, ...]
    reads: tuple[str, ...]
    stores: tuple[str, ...]


@dataclass(frozen=True)
class NodeResult:
    """The outcome of one node, ready to be committed.

    Attributes
    ----------
    node : its name.
    outputs : the arrays that its commit stores.
    seconds : time spent in its kernels.
    steps : the provenance of each step: stage, version, parameters, citation, seconds
        and what it reported, such as how its iteration ended.
    """

    node: str
    outputs: Mapping[str, Any]
    seconds: float
    steps: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Plan:
    """The steps of a pipeline that run on one scan.

    Attributes
    ----------
    geometry : the scan's.
    nodes : in order; a node in which nothing runs is absent.
    left_out : steps that do not run, each with the reason.
    lacking : what steps could take in that the scan has not and no step makes.
    """

    geometry: Geometry
    nodes: tuple[PlanNode, ...]
    left_out: tuple[str, ...]
    lacking: frozenset[str] = frozenset()

    @property
    def packages(self) -> dict[str, str]:
        """Modules of others that its steps import, with the extra of qsm-dask that brings each."""
        steps = (step for node in self.nodes for step in node.steps)
        return {name: extra for step in steps for name, extra in step.method.needs(step.parameters).items()}

    def digests(self, sources: Mapping[str, str]) -> dict[str, str]:
        """The key of each node's commit, from the digests of the ingested quantities."""
        known = dict(sources)
        keys = {}
        for node in self.nodes:
            for step in node.steps:
                digest = step.digest(known)
                known.update({name: digest_of([digest, name]) for name in step.outputs})
            keys[node.name] = digest_of([node.name, [[name, known[name]] for name in node.stores]])
        return keys

    def peak_bytes(self) -> int:
        """Projected peak memory [bytes] of the arrays of a run, without the process itself."""
        live: dict[str, int] = {}
        peak = 0
        for node, step, released in self._schedule({node.name for node in self.nodes}):
            for name in set(step.inputs) - self.lacking:
                live.setdefault(name, array_bytes(name, self.geometry))
            peak = max(peak, sum(live.values()) + step.memory(self.geometry))
            live.update({name: array_bytes(name, self.geometry) for name in step.outputs})
            if step is node.steps[-1]:  # while it is committed, one array at a time is held twice
                peak = max(peak, sum(live.values()) + max(live[name] for name in node.stores))
            for name in released:
                live.pop(name, None)
        return peak

    def task_bytes(self) -> int:
        """Memory that the task of a scan may take [bytes]: its arrays, and what allocators waste between them."""
        return int(_HEADROOM * self.peak_bytes())

    def lineage(self, name: str) -> list[Step]:
        """The steps that a quantity came from, in order."""
        needed, found = {name}, list[Step]()
        for step in reversed([step for node in self.nodes for step in node.steps]):
            if needed & set(step.outputs):
                needed = (needed - set(step.outputs)) | set(step.inputs)
                found.insert(0, step)
        return found

    def reference_of(self, name: str) -> Step | None:
        """The step that made a susceptibility map relative to what it is relative to now, if any did."""
        return next((step for step in reversed(self.lineage(name)) if step.stage.startswith("reference.")), None)

    def run(
        self, load: Callable[[str, str], Any], nodes: Collection[str], open_atlas: OpenAtlas | None = None
    ) -> Iterator[NodeResult]:
        """Run the named nodes in order; the caller commits each result as it comes.

        Parameters
        ----------
        load : called with the name of a node (or `ingest`) and of a quantity, for what that
            node has committed; None for an optional quantity that the scan lacks. A name
            may be written in several nodes: a step is given that of the last before it.
        nodes : names of the nodes to run.
        open_atlas : reads the atlases that steps use.

        Raises
        ------
        StageError : a kernel refused or failed, or returned what its quantities forbid.
        """
        live: dict[str, Any] = {}
        origin: dict[str, str] = {}
        records: list[Mapping[str, Any]] = []
        for node, step, released in self._schedule(nodes):
            started = time.perf_counter()
            for name in step.inputs:
                provider = self._provider(step, name)
                if origin.get(name) != provider:  # not held, or held from before a node that was not run
                    live[name], origin[name] = load(provider, name), provider
            outputs, said = call(step, [live[name] for name in step.inputs], open_atlas)
            figures = {} if isinstance(said, Told) else self._mask_figures(outputs, live)
            live.update(outputs)
            origin.update(dict.fromkeys(outputs, node.name))
            records.append(record(step, time.perf_counter() - started, said, figures))
            if step is node.steps[-1]:
                _check_stored(node, live)
                seconds = sum(record["seconds"] for record in records)
                yield NodeResult(node.name, {name: live[name] for name in node.stores}, seconds, records)
                records = []
            for name in released:
                live.pop(name, None)
                origin.pop(name, None)

    def _mask_figures(self, outputs: Mapping[str, Any], before: Mapping[str, Any]) -> Mapping[str, float]:
        """Figures of the mask that a step made, against the one of the same name that it replaces."""
        made = {name: array for name, array in outputs.items() if base_name(name) == "mask"}
        if not made:
            return {}
        ((name, mask),) = made.items()
        return maskfigures.figures(mask, self.geometry.voxel_size, before.get(name))

    def _provider(self, reader: Step, name: str) -> str:
        """The node whose version of a quantity a step reads: that of the last step before it that writes it."""
        provider = "ingest"
        for node in self.nodes:
            for step in node.steps:
                if step is reader:
                    return provider
                if name in step.outputs:
                    provider = node.name
        return provider

    def _schedule(self, nodes: Collection[str]) -> Iterator[tuple[PlanNode, Step, list[str]]]:
        """Each step of the named nodes, with the names that nobody needs after it."""
        chosen = [(node, step) for node in self.nodes if node.name in nodes for step in node.steps]
        last: dict[str, int] = {}
        for index, (node, step) in enumerate(chosen):
            last.update(dict.fromkeys((*step.inputs, *step.outputs), index))
            if step is node.steps[-1]:
                last.update(dict.fromkeys(node.stores, index))
        for index, (node, step) in enumerate(chosen):
            yield node, step, [name for name, final in last.items() if final == index]


def array_bytes(name: str, geometry: Geometry) -> int:
    """Size of an array of voxels [bytes]; 0 of others, which are small."""
    known = quantity(name)
    if known.dims[-1:] == ("t1w_z",):
        return MOST_T1W_VOXELS * np.dtype(known.dtype).itemsize
    if known.dims[-1:] != ("z",):
        return 0
    lead = {"echo": geometry.echoes, "axis": 3, "label": geometry.probabilities}
    volumes = lead.get(known.dims[0], 1)
    return volumes * geometry.voxels * np.dtype(known.dtype).itemsize


def call(
    step: Step, values: Sequence[Any], open_atlas: OpenAtlas | None = None
) -> tuple[dict[str, Any], Solved | Told | None]:
    """Run the kernel; check that it returned what the table says.

    Raises
    ------
    StageError : the kernel refused, or returned something else, or there is nothing to read atlases with.
    """
    atlases = {}
    for name, part in step.method.atlases.items():
        if open_atlas is None:
            raise StageError(f"{step.stage}: the {name} {step.parameters[name]} cannot be read here")
        pin = step.pins.get(name)
        atlases[name] = open_atlas(str(step.parameters[name]), part, pin.digest if pin else "")
    try:
        result = step.method.kernel(*values, **{**step.parameters, **atlases})
    except ValueError as error:
        raise StageError(f"{step.stage}: {error}") from error
    arrays = list(result) if isinstance(result, tuple) else [result]
    said = arrays.pop() if isinstance(arrays[-1], Solved | Told) else None
    if len(arrays) != len(step.outputs):
        raise StageError(f"{step.stage} returned {len(arrays)} arrays, its table line names {len(step.outputs)}")
    for name, array in zip(step.outputs, arrays, strict=True):
        known = quantity(name)
        if array.ndim != len(known.dims) or array.dtype != known.dtype:
            raise StageError(
                f"{step.stage} returned {name} as {array.dtype} with {array.ndim} dims; "
                f"it must be {known.dtype} with dims {', '.join(known.dims)}"
            )
    return dict(zip(step.outputs, arrays, strict=True)), said


def record(
    step: Step, seconds: float, said: Solved | Told | None, figures: Mapping[str, float] = MappingProxyType({})
) -> dict[str, Any]:
    """The provenance of a step: stage, version, parameters, citation, seconds, what it reported, and of its mask."""
    about: dict[str, Any] = {
        "stage": step.stage,
        "version": step.method.version,
        "parameters": dict(step.parameters),
        "cite": step.method.cite,
        "seconds": round(seconds, 6),
    }
    if step.pins:
        about["atlases"] = {name: pin.digest for name, pin in step.pins.items()}
    if figures:
        about["figures"] = dict(figures)
    if isinstance(said, Solved):
        about["solved"] = asdict(said)
    if isinstance(said, Told):
        about |= {
            "figures": dict(said.figures),
            "labels": {str(label): name for label, name in said.labels.items()},
            "warnings": list(said.warnings),
        }
    return about


def _check_stored(node: PlanNode, live: Mapping[str, Any]) -> None:
    """A map with holes is never stored: better no result than a silently wrong one."""
    for name in node.stores:
        array = live[name]
        if quantity(name).dims[-1:] == ("z",) and array.dtype.kind == "f":
            bad = array.size - int(np.count_nonzero(np.isfinite(array)))
            if bad:
                raise StageError(f"{node.name}: {name} has {bad} voxels that are NaN or infinite")
