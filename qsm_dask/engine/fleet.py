"""How many scans a cluster runs at once, and on how many nodes: what a plan needs to know before anything starts."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from qsm_dask.engine.base import gibibytes
from qsm_dask.engine.cluster import NODE, Local, Serial, parse
from qsm_dask.engine.hosted import Aws, Azure, Coiled, Gcp
from qsm_dask.engine.resources import Machine
from qsm_dask.engine.sizing import AUTO, NANNY, plan, size_of, task_limit, whole, worker_for
from qsm_dask.engine.ssh import Ssh
from qsm_dask.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Node:
    """One machine of a cluster, and how many there are: the mapping `node` of a cluster file.

    Attributes
    ----------
    count : machines that work at once; None takes as many as the file's jobs fill.
    cpus : processors of one.
    memory : of one, such as `128 GiB`.
    price : of one for an hour, in any currency.
    speed : of one of its processors, relative to those on which costs were measured.
    """

    count: int | None = None
    cpus: int | None = None
    memory: str | int | None = None
    price: float | None = None
    speed: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for name in ("count", "cpus"):
            if getattr(self, name) is not None:
                whole(f"node: {name}", getattr(self, name))
        for name, least in (("price", 0.0), ("speed", 1e-3)):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or value < least):
                raise ConfigError(f"cluster: node: {name} is a number of at least {least:g}, not {value!r}")

    @classmethod
    def of(cls, spec: Mapping[str, Any], **given: Any) -> "Node":
        """What a cluster file says under `node`, with what was given in its place.

        Raises
        ------
        ConfigError : it says something unknown, or a value cannot be meant.
        """
        said = spec.get(NODE) or {}
        known = [one.name for one in fields(cls)]
        if not isinstance(said, Mapping) or set(said) - set(known):
            raise ConfigError(f"cluster: node is a mapping of {', '.join(known)}, not {said!r}")
        return cls(**{**said, **{name: value for name, value in given.items() if value is not None}})


@dataclass(frozen=True)
class Fleet:
    """The workers of a cluster at its full size.

    Attributes
    ----------
    nodes, slots_per_node : machines, and scans that each runs at once.
    worker_memory, limit : of one worker, and what a task may take of it [bytes].
    price : of one node for an hour; None if it is not known.
    speed : of its processors, relative to those on which costs were measured.
    """

    nodes: int
    slots_per_node: int
    worker_memory: int
    limit: int
    price: float | None = None
    speed: float = 1.0

    @property
    def slots(self) -> int:
        """Scans that run at once."""
        return self.nodes * self.slots_per_node


def fleet(spec: Mapping[str, Any], node: Node, task_bytes: int) -> Fleet:
    """The workers that a cluster file describes; nothing is started or asked.

    Where the size of a node is known, as many workers run on it as its processors and memory
    hold (one, where a machine is a worker); each takes the file's `memory`, or as much as the largest scan needs
    where that is `auto`.
    Otherwise each job counts as a node of its own.

    Parameters
    ----------
    spec : the description, as `read_spec` gives it.
    node : see `Node.of`.
    task_bytes : what the task of the largest scan is projected to take.

    Raises
    ------
    ConfigError : the description is wrong, tells too little, or a node is too small for one worker.
    """
    cluster = parse(spec)
    threads = cluster.threads_per_worker
    own = 0 if isinstance(cluster, Local | Serial) else NANNY
    stated = getattr(cluster, "memory", AUTO)
    size = worker_for(task_bytes) + own if stated == AUTO else size_of(stated)
    if isinstance(cluster, Ssh):
        per_node, nodes = cluster.workers_per_host, node.count or len(cluster.hosts)
    elif isinstance(cluster, Aws | Azure | Coiled | Gcp):  # each of whose machines is one worker
        per_node, nodes = 1, node.count or cluster.workers
    elif node.cpus is not None and node.memory is not None:
        room = size_of(node.memory)
        per_node = min(node.cpus // threads, room // size)
        if per_node < 1:
            raise ConfigError(
                f"cluster: a node of {node.cpus} processors and {gibibytes(room)} holds no worker of {threads} threads "
                f"and {gibibytes(size)}"
            )
        nodes = node.count or -(-_jobs(cluster) // per_node)
    elif isinstance(cluster, Local):
        per_node, size = plan(Machine.here(), workers=cluster.workers, threads=threads, memory=cluster.memory)
        nodes = node.count or 1
    elif isinstance(cluster, Serial):
        per_node, size = plan(Machine.here(), workers=1, threads=threads, memory=cluster.memory)
        nodes = node.count or 1
    else:
        per_node, nodes = 1, node.count or _jobs(cluster)
    return Fleet(nodes, per_node, size, task_limit(size - own), node.price, node.speed)


def _jobs(cluster: object) -> int:
    """Workers of a cluster file at most."""
    for name in ("jobs", "workers"):
        count = getattr(cluster, name, None)
        if isinstance(count, int):
            return count
    raise ConfigError("cluster: how many workers it has is not known: say how many nodes, their processors and memory")
