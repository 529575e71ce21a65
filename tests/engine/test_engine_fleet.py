"""How many scans a described cluster runs at once."""

import pytest

from qsm_dask.engine import parse
from qsm_dask.engine.fleet import Node, fleet
from qsm_dask.engine.resources import Machine
from qsm_dask.engine.sizing import BASELINE, HEADROOM, NANNY, task_limit, worker_for
from qsm_dask.errors import ConfigError

GIB = 2**30
SLURM = {"kind": "slurm", "jobs": 33, "memory": "8 GiB", "threads_per_worker": 1}


def test_a_node_holds_what_its_memory_and_processors_do():
    by_memory = fleet(SLURM, Node(cpus=32, memory="128 GiB"), GIB)
    assert (by_memory.slots_per_node, by_memory.nodes) == (16, 3)  # 33 jobs fill two nodes of 16 and one slot more
    by_processors = fleet(SLURM | {"threads_per_worker": 4}, Node(cpus=32, memory="128 GiB", count=100), GIB)
    assert (by_processors.slots_per_node, by_processors.slots) == (8, 800)
    assert by_processors.limit == task_limit(8 * GIB - NANNY)


def test_a_job_counts_as_a_node_where_nothing_is_known_of_nodes():
    assert (fleet(SLURM, Node(), GIB).nodes, fleet(SLURM, Node(), GIB).slots) == (33, 33)


def test_workers_of_auto_memory_are_as_large_as_the_largest_scan_needs(monkeypatch):
    monkeypatch.setattr(Machine, "here", lambda: Machine(4, 16 * GIB))
    found = fleet({"kind": "local"}, Node(cpus=64, memory="64 GiB", count=2), 3 * GIB)
    assert found.worker_memory == worker_for(3 * GIB) == int(HEADROOM * (3 * GIB + BASELINE)) + 2
    assert found.limit >= 3 * GIB > found.limit - 2**20
    assert found.slots_per_node == 64 * GIB // found.worker_memory


def test_this_machine_is_one_node(monkeypatch):
    monkeypatch.setattr(Machine, "here", lambda: Machine(4, 16 * GIB))
    assert (fleet({"kind": "local"}, Node(), GIB).nodes, fleet({"kind": "local"}, Node(), GIB).slots) == (1, 4)
    assert fleet({"kind": "serial"}, Node(), GIB).slots == 1


def test_machines_of_a_cloud_are_one_worker_each_and_hosts_hold_as_many_as_they_are_told():
    for kind in ("aws", "azure", "coiled", "gcp"):
        cloud = fleet({"kind": kind, "workers": 7}, Node(cpus=64, memory="256 GiB"), GIB)
        assert (cloud.nodes, cloud.slots_per_node) == (7, 1)
    hosts = fleet({"kind": "ssh", "hosts": ["a", "b", "c"], "workers_per_host": 5}, Node(), GIB)
    assert (hosts.nodes, hosts.slots_per_node) == (3, 5)


def test_the_file_may_describe_its_nodes_and_options_come_first():
    spec = SLURM | {"node": {"count": 10, "cpus": 32, "memory": "64 GiB", "price": 2}}
    parse(spec)  # which the engine itself passes over
    node = Node.of(spec, price=3.5, count=None)
    assert (node.count, node.cpus, node.price, node.speed) == (10, 32, 3.5, 1.0)
    assert fleet(spec, node, GIB).slots == 80


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"cores": 3}, "node is a mapping of count, cpus"),
        ([1], "node is a mapping"),
        ({"cpus": 0}, "node: cpus is a whole number"),
        ({"price": "dear"}, "node: price is a number"),
        ({"speed": 0}, "node: speed is a number"),
    ],
)
def test_what_cannot_be_meant_is_refused(node, message):
    with pytest.raises(ConfigError, match=message):
        Node.of(SLURM | {"node": node})


def test_a_node_that_is_too_small_or_a_cluster_of_unknown_size_is_told():
    with pytest.raises(ConfigError, match=r"holds no worker of 1 threads and 8\.00 GiB"):
        fleet(SLURM, Node(cpus=4, memory="4 GiB"), GIB)
    with pytest.raises(ConfigError, match="say how many nodes"):
        fleet({"kind": "running", "address": "tls://node:8786"}, Node(), GIB)
