"""What scans cost, from what the commits of others say: seconds of each step, of storing, bytes and objects.

A step costs in proportion to its work, which the geometry of a scan gives: voxels, echoes, or
the transforms of the padded matrix. So what was measured on some scans is told of others.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qsm_dask.digests import digest_of
from qsm_dask.kernels.fourier import MARGIN_MM, padded_shape
from qsm_dask.pipeline import Plan, Step
from qsm_dask.pipeline.plan import array_bytes
from qsm_dask.quantities import HEADER, quantity
from qsm_dask.scan import Geometry, ScanKey
from qsm_dask.store import CohortStore, Commit

MOST_SAMPLES = 64
OVERHEAD_S = 0.03
"""What a task takes beside its steps and its storing: finding commits, planning, going to a worker and back [s]."""

_INGEST = "ingest"
_TRANSFORMING = ("background", "inversion", "separation")
_GROUP_BYTES = 150
"""Size of the metadata of a commit's group, which no commit notes."""


@dataclass(frozen=True)
class Sample:
    """One scan that was measured: its geometry, receive coils (1: combined) and commits by node."""

    geometry: Geometry
    coils: int
    commits: dict[str, Commit]


@dataclass(frozen=True)
class Work:
    """What is to be done on a scan.

    Attributes
    ----------
    plan : what the pipeline runs on it.
    nodes : those to be computed; `ingest` among them if it is to be read from files.
    coils : receive coils kept apart in its files; 1 where they are combined.
    stored : names of the arrays that ingest stores.
    """

    plan: Plan
    nodes: tuple[str, ...]
    coils: int = 1
    stored: tuple[str, ...] = ("phase", "magnitude")


@dataclass(frozen=True)
class NodeCost:
    """What one node of one scan costs.

    Attributes
    ----------
    steps : seconds by stage.
    storing : seconds.
    read, written : bytes that come from and go to the store or, of an ingest, come from the dataset's files.
    objects : of the store.
    """

    steps: Mapping[str, float]
    storing: float
    read: float
    written: float
    objects: int

    @property
    def seconds(self) -> float:
        """All that one slot is busy for."""
        return sum(self.steps.values()) + self.storing


def samples(cohort: CohortStore, most: int = MOST_SAMPLES) -> list[Sample]:
    """Scans that are done: half of them those that were done last, the others spread evenly; one small GET a node.

    Parameters
    ----------
    cohort : the store.
    most : how many, at most.
    """
    index = cohort.index()
    done = index[index["state"] == "done"]
    processed = done[done["node"] != _INGEST]
    of = done if processed.empty else processed
    names = list(of.groupby("scan")["time"].max().sort_values(ascending=False, kind="stable").index)
    newest, older = names[: most - most // 2], names[most - most // 2 :]
    stride = max(1, -(-len(older) // max(most // 2, 1)))
    chosen = {*newest, *(older[::stride] if most > 1 else ())}
    keys: dict[str, dict[str, str]] = defaultdict(dict)
    for row in done[done["scan"].isin(chosen)].itertuples():
        keys[str(row.scan)][str(row.node)] = str(row.key)
    found = []
    for scan, nodes in keys.items():
        read = {node: cohort.commit(ScanKey.parse(scan), node, key) for node, key in nodes.items()}
        commits = {node: commit for node, commit in read.items() if commit is not None}
        if _INGEST in commits:
            found.append(sample(commits))
    return found


def sample(commits: dict[str, Commit]) -> Sample:
    """A sample of the commits of one scan, its ingest among them."""
    about = commits[_INGEST].attributes
    return Sample(Geometry.from_dict(about["geometry"]), coils_of(commits[_INGEST]), commits)


def coils_of(ingest: Commit) -> int:
    """Receive coils whose images a scan's files keep apart; 1 where they are combined."""
    return int(ingest.attributes["sources"].get("magnitude", {}).get("coils", 1))


def work_of(step: Step, geometry: Geometry) -> float:
    """What the seconds of a step are in proportion to.

    N log2 N of the padded matrix for what transforms it; voxels, times echoes where it reads or
    makes a series, for all else.
    """
    if step.stage.partition(".")[0] in _TRANSFORMING:
        grid = math.prod(padded_shape(geometry.shape, geometry.voxel_size, MARGIN_MM))
        return grid * math.log2(grid)
    names = (*step.inputs, *step.outputs)
    series = any({"echo", "x"} <= set(quantity(name).dims) for name in names)
    return float(geometry.voxels * (geometry.echoes if series else 1))


def middle(values: Iterable[float]) -> float:
    """The mean of the middle third: the first scan of a worker and a machine that was busy count little.

    Raises
    ------
    ValueError : there is none.
    """
    ordered = sorted(values)
    if not ordered:
        raise ValueError("nothing was measured")
    cut = len(ordered) // 3
    kept = ordered[cut : len(ordered) - cut]
    return sum(kept) / len(kept)


@dataclass
class Costs:
    """What was measured, told per unit of work.

    Attributes
    ----------
    scans : how many scans it comes from.
    """

    scans: int = 0
    _steps: dict[str, list[tuple[Geometry, float]]] = field(default_factory=lambda: defaultdict(list))
    _storing: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _packing: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _plain: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _frames: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _reading: list[tuple[int, float]] = field(default_factory=list)
    _files: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, measured: Sequence[Sample]) -> "Costs":
        """The costs that samples tell."""
        costs = cls(len(measured))
        for one in measured:
            for node, commit in one.commits.items():
                costs._note(node, commit, one.geometry)
            costs._note_ingest(one)
        return costs

    def _note(self, node: str, commit: Commit, geometry: Geometry) -> None:
        for step in commit.provenance.get("steps", ()):
            identity = _identity(step["stage"], step["version"], step["parameters"])
            self._steps[identity].append((geometry, float(step["seconds"])))
        voxels, metadata = 0, 0
        for name, entry in commit.arrays.items():
            size, raw = sum(entry["chunks"].values()), array_bytes(name, geometry)
            if raw:
                self._packing[name].append(size / raw)
            else:
                self._plain[name].append(size)
            voxels += raw
            metadata += entry["metadata"]["size"]
        self._frames[node].append(len(commit.to_json()) + metadata + _GROUP_BYTES)
        if "store_seconds" in commit.provenance:
            self._storing[node].append(commit.provenance["store_seconds"] / max(voxels, 1))

    def _note_ingest(self, one: Sample) -> None:
        commit = one.commits[_INGEST]
        series = one.geometry.voxels * one.geometry.echoes
        self._reading.append((one.coils, commit.seconds / series))
        files = commit.attributes.get("files", {})
        self._files.append(sum(file["size"] for file in files.values()) / (series * one.coils))

    def step(self, step: Step, geometry: Geometry) -> float | None:
        """Seconds of a step; None where it was never measured with these parameters."""
        found = self._steps.get(_identity(step.stage, step.method.version, step.parameters))
        if not found:
            return None
        return work_of(step, geometry) * middle(seconds / work_of(step, like) for like, seconds in found)

    def unmeasured(self, plan: Plan, nodes: Iterable[str]) -> tuple[str, ...]:
        """Stages of these nodes of which nothing was measured, and `ingest` if that is one of them."""
        nodes = set(nodes)
        steps = [step for node in plan.nodes if node.name in nodes for step in node.steps]
        lacking = [step.stage for step in steps if self.step(step, plan.geometry) is None]
        if _INGEST in nodes and not self._reading:
            lacking.insert(0, _INGEST)
        return tuple(dict.fromkeys(lacking))

    def of_scan(self, work: Work) -> dict[str, NodeCost]:
        """What each node of a scan costs that is to be computed.

        Raises
        ------
        ValueError : a step of it was never measured; see `unmeasured`.
        """
        lacking = self.unmeasured(work.plan, work.nodes)
        if lacking:
            raise ValueError(f"never measured: {', '.join(lacking)}")
        geometry, todo = work.plan.geometry, set(work.nodes)
        found = {_INGEST: self._ingest(work)} if _INGEST in todo else {}
        held: set[str] = set()
        provider = dict.fromkeys(work.stored, _INGEST)
        for node in work.plan.nodes:
            if node.name in todo:
                steps: dict[str, float] = defaultdict(float)
                for step in node.steps:
                    steps[step.stage] += self.step(step, geometry) or 0.0
                outside = [name for name in node.reads if name not in held and name in provider]
                read = sum(self.packed(name, geometry) for name in outside)
                found[node.name] = self._cost(node.name, node.stores, geometry, steps, read)
                held.update(outside, *(step.outputs for step in node.steps))
            else:
                held.difference_update(*(step.outputs for step in node.steps))
            provider.update(dict.fromkeys(node.stores, node.name))
        return found

    def packed(self, name: str, geometry: Geometry) -> float:
        """Bytes of an array as the store packs it."""
        raw = array_bytes(name, geometry)
        if not raw:
            return middle(self._plain[name]) if self._plain[name] else 0.0
        return raw * (middle(self._packing[name]) if self._packing[name] else 1.0)

    def _cost(
        self, node: str, stores: Sequence[str], geometry: Geometry, steps: Mapping[str, float], read: float
    ) -> NodeCost:
        raw = sum(array_bytes(name, geometry) for name in stores)
        storing = middle(self._storing[node]) * max(raw, 1) if self._storing[node] else 0.0
        frame = middle(self._frames[node]) if self._frames[node] else 0.0
        written = frame + sum(self.packed(name, geometry) for name in stores)
        return NodeCost(dict(steps), storing, read, written, 2 + sum(1 + _chunks(name, geometry) for name in stores))

    def _ingest(self, work: Work) -> NodeCost:
        geometry = work.plan.geometry
        series = geometry.voxels * geometry.echoes
        seconds = series * _line(self._reading, work.coils)
        read = series * work.coils * middle(self._files)
        stored = [name for name in work.stored if name not in HEADER]
        return self._cost(_INGEST, stored, geometry, {"reading": seconds}, read)


def _line(points: Sequence[tuple[int, float]], coils: int) -> float:
    """The value at a number of coils, of a line through what was measured at others.

    Of one number of coils alone, in proportion: too much rather than too little.
    """
    by_coils: dict[int, list[float]] = defaultdict(list)
    for count, value in points:
        by_coils[count].append(value)
    known = {count: middle(values) for count, values in by_coils.items()}
    if coils in known:
        return known[coils]
    low, high = min(known), max(known)
    if low == high:
        return known[low] * coils / low
    slope = max(0.0, (known[high] - known[low]) / (high - low))
    return known[high] + slope * (coils - high)


def _chunks(name: str, geometry: Geometry) -> int:
    """Chunks of an array: one a volume."""
    dims = quantity(name).dims
    lead = {"echo": geometry.echoes, "label": geometry.probabilities}
    return lead.get(dims[0], 1) if "x" in dims else 1


def _identity(stage: str, version: int, parameters: Mapping[str, Any]) -> str:
    """What makes two runs of a stage cost alike; as a commit says it, in JSON."""
    return digest_of([stage, version, json.loads(json.dumps(dict(parameters)))])
