"""Tell what it would cost to process a cohort on a cluster, before any of it is spent.

The seconds of every step, the bytes and the objects are those that commits of other scans tell
(`costs`); how many scans share a node follows from the memory that stages declare.
"""

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qsm_dask.cohort.costs import OVERHEAD_S, Costs, NodeCost, Work, coils_of
from qsm_dask.cohort.standing import standings_under
from qsm_dask.engine.base import gibibytes
from qsm_dask.engine.fleet import Fleet
from qsm_dask.errors import ConfigError
from qsm_dask.io import atlas
from qsm_dask.pipeline import Pipeline
from qsm_dask.quantities import RAW
from qsm_dask.scan import Geometry
from qsm_dask.store import CohortStore, Commit

DRIVER_S = 0.007
"""What the one driver takes for a scan, however many slots there are [s]."""
START_S = 5.0
"""From the command until workers have begun: they start and load compiled kernels [s]."""

Works = Sequence[tuple[Work, int]]
"""What is to be done, and on how many scans."""


@dataclass(frozen=True)
class Pending:
    """What a cohort has still to do.

    Attributes
    ----------
    works : kinds of scans and how many there are of each.
    examples : an ingest commit of each kind, in the same order: what a calibration may copy.
    done, refused : scans that need nothing more, and those that cannot be processed.
    """

    works: Works
    examples: Sequence[Commit]
    done: int
    refused: int


@dataclass(frozen=True)
class Phase:
    """A part of a run in which scans are independent: `ingest` or `process`.

    Attributes
    ----------
    name : of the command.
    slot_hours : of all its scans together.
    wall_hours : on the cluster.
    """

    name: str
    slot_hours: float
    wall_hours: float


@dataclass(frozen=True)
class Forecast:
    """What a run would cost.

    Attributes
    ----------
    scans, too_large : to be computed, and those of them that no worker can hold: they are counted in nothing else.
    nodes, slots_per_node : of the cluster.
    worker_bytes, needed_bytes : memory of a worker, and the least with which it holds the largest scan.
    phases : one after the other.
    wall_hours : of all phases, with the start.
    node_hours, busy_node_hours : for which nodes are held, and in which they compute.
    cost : of the held node-hours; None without a price.
    store_bytes, store_objects : that the store grows by.
    read_bytes, written_bytes : that workers move over the network, if the store and the dataset are remote. What is
        written is read back once.
    seconds : of one slot for one scan on average, by stage and for storing.
    measured_scans : that the costs come from.
    """

    scans: int
    too_large: int
    nodes: int
    slots_per_node: int
    worker_bytes: int
    needed_bytes: int
    phases: tuple[Phase, ...]
    wall_hours: float
    node_hours: float
    busy_node_hours: float
    cost: float | None
    store_bytes: int
    store_objects: int
    read_bytes: int
    written_bytes: int
    seconds: Mapping[str, float]
    measured_scans: int


def settled(pipeline: Pipeline) -> Pipeline:
    """The pipeline as a run would settle it, with every atlas told by its content: keys and memory depend on it.

    Raises
    ------
    ConfigError : an atlas is not there.
    """
    return pipeline.settled(atlas.pin)


def pending(cohort: CohortStore, pipeline: Pipeline) -> Pending:
    """What a pipeline, once settled, has still to do on the scans of a cohort; one small GET a scan.

    Raises
    ------
    ConfigError : no scan was ingested.
    """
    counts: Counter[str] = Counter()
    works: dict[str, Work] = {}
    examples: dict[str, Commit] = {}
    done = refused = 0
    for standing in standings_under(cohort, pipeline):
        if standing.plan is None or standing.ingest is None:
            refused += standing.state in ("failed", "pending")
            done += standing.state == "skipped"
            continue
        nodes = tuple(node.node for node in standing.nodes if node.state != "done")
        if not nodes:
            done += 1
            continue
        work = Work(standing.plan, nodes, coils_of(standing.ingest), tuple(standing.ingest.arrays))
        kind = repr(work)
        counts[kind] += 1
        works.setdefault(kind, work)
        examples.setdefault(kind, standing.ingest)
    if not (works or done or refused):
        raise ConfigError(f"{cohort.place} holds no scan yet: run `qsm-dask ingest BIDS {cohort.place}` first")
    return Pending([(work, counts[kind]) for kind, work in works.items()], list(examples.values()), done, refused)


def described(geometry: Geometry, coils: int, scans: int, pipeline: Pipeline) -> Works:
    """The work of a study that does not exist yet: scans to be ingested and processed.

    They have label images, unless the pipeline makes them.

    Parameters
    ----------
    geometry : of every scan.
    coils : receive coils kept apart; 1 where they are combined.
    scans : how many.
    pipeline : what runs on each, settled.

    Raises
    ------
    ConfigError : the pipeline cannot run on such scans.
    """
    labels = () if pipeline.makes("dseg") else ("dseg",)
    plan = pipeline.plan(geometry, (*RAW, *labels))
    nodes = ("ingest", *(node.name for node in plan.nodes))
    return [(Work(plan, nodes, coils, ("phase", "magnitude", *labels)), scans)]


def unmeasured(works: Works, costs: Costs) -> list[int]:
    """Which kinds of scans have steps that were never measured, each kind for the first such set of steps."""
    seen: set[tuple[str, ...]] = set()
    found = []
    for index, (work, _) in enumerate(works):
        lacking = costs.unmeasured(work.plan, work.nodes)
        if lacking and lacking not in seen:
            seen.add(lacking)
            found.append(index)
    return found


def largest_task(works: Works) -> int:
    """What the task of the largest scan may take [bytes]."""
    return max((work.plan.task_bytes() for work, _ in works), default=0)


def run(works: Works, costs: Costs, fleet: Fleet, *, needed_bytes: int) -> Forecast:
    """What the work costs on a cluster.

    Parameters
    ----------
    works : what is to be done.
    costs : what was measured.
    fleet : the cluster; `needed_bytes` the least memory of a worker that holds the largest scan.

    Raises
    ------
    ConfigError : no scan fits a worker.
    ValueError : a step was never measured.
    """
    fitting = [(work, count) for work, count in works if work.plan.task_bytes() <= fleet.limit]
    too_large = sum(count for _, count in works) - sum(count for _, count in fitting)
    if too_large and not fitting:
        raise ConfigError(
            f"no scan fits a worker of {gibibytes(fleet.worker_memory)}: the cluster file needs `memory` of at least "
            f"{gibibytes(needed_bytes)}"
        )
    priced = [(costs.of_scan(work), count) for work, count in fitting]
    ingest = [({"ingest": cost["ingest"]}, count) for cost, count in priced if "ingest" in cost]
    rest = [({node: one for node, one in cost.items() if node != "ingest"}, count) for cost, count in priced]
    phases = tuple(
        _phase(name, of_phase, fleet) for name, of_phase in (("ingest", ingest), ("process", rest)) if of_phase
    )
    wall = sum(phase.wall_hours for phase in phases) + (START_S / 3600 if phases else 0.0)
    node_hours = wall * fleet.nodes
    every = [(one, count) for cost, count in priced for one in cost.values()]
    written = _total((one.written, count) for one, count in every)
    return Forecast(
        scans=sum(count for _, count in fitting),
        too_large=too_large,
        nodes=fleet.nodes,
        slots_per_node=fleet.slots_per_node,
        worker_bytes=fleet.worker_memory,
        needed_bytes=needed_bytes,
        phases=phases,
        wall_hours=wall,
        node_hours=node_hours,
        busy_node_hours=sum(phase.slot_hours for phase in phases) / fleet.slots_per_node,
        cost=None if fleet.price is None else node_hours * fleet.price,
        store_bytes=written,
        store_objects=_total((one.objects, count) for one, count in every),
        read_bytes=written + _total((one.read, count) for one, count in every),
        written_bytes=written,
        seconds=_seconds(every, sum(count for _, count in fitting), fleet.speed),
        measured_scans=costs.scans,
    )


def _phase(name: str, costs: Sequence[tuple[Mapping[str, NodeCost], int]], fleet: Fleet) -> Phase:
    durations = [(sum(one.seconds for one in cost.values()) / fleet.speed + OVERHEAD_S, count) for cost, count in costs]
    total = sum(seconds * count for seconds, count in durations)
    tasks = [seconds for seconds, count in durations for _ in range(count)]
    return Phase(name, total / 3600, makespan(tasks, fleet.slots, DRIVER_S) / 3600)


def makespan(durations: Iterable[float], slots: int, pace: float = 0.0) -> float:
    """When the last of many tasks ends, each given to the first slot that falls free.

    Parameters
    ----------
    durations : of the tasks, in the order in which they start [s].
    slots : tasks that run at once.
    pace : no two tasks start closer together: the one driver takes so long for each [s].
    """
    free: list[float] = []
    end = 0.0
    for number, seconds in enumerate(durations):
        sent = number * pace
        start = max(sent, heapq.heappop(free)) if len(free) == slots else sent
        heapq.heappush(free, start + seconds)
        end = max(end, start + seconds)
    return end


def _seconds(every: Sequence[tuple[NodeCost, int]], scans: int, speed: float) -> dict[str, float]:
    """Seconds a scan by stage, and of storing, averaged over scans."""
    found: dict[str, float] = defaultdict(float)
    for one, count in every:
        for stage, seconds in one.steps.items():
            found[stage] += seconds * count / scans / speed
    found["storing"] = sum(one.storing * count for one, count in every) / max(scans, 1) / speed
    return dict(found)


def _total(values: Iterable[tuple[float, int]]) -> int:
    return math.ceil(sum(value * count for value, count in values))


def as_dict(forecast: Forecast) -> dict[str, Any]:
    """Plain values for JSON."""
    return {**vars(forecast), "phases": [vars(phase) for phase in forecast.phases]}
