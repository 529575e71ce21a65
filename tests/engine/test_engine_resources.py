"""Limits read from trees of system files made by hand; peaks of arrays of known size."""

import os
import resource
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from qsm_dask.engine import PeakMemory, resources
from qsm_dask.engine.resources import Machine, cpu_count, memory_limit, resident

MIB = 2**20
UNLIMITED_V1 = "9223372036854771712"
HERE = len(os.sched_getaffinity(0))


@pytest.fixture(autouse=True)
def many_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(16)))


def tree(root: Path, files: Mapping[str, str], *, total_kib: int = 64 * 1024 * 1024) -> Path:
    for name, text in {"proc/meminfo": f"MemTotal:  {total_kib} kB\nMemFree: 1 kB\n", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_without_groups_the_machine_is_the_limit(tmp_path: Path) -> None:
    root = tree(tmp_path, {})
    assert memory_limit(root, {}) == 64 * 1024 * MIB
    assert cpu_count(root, {}) == 16


def test_version_2_the_tightest_group_of_all_above_counts(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/user.slice/job\n",
            "sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
            "sys/fs/cgroup/user.slice/memory.max": f"{3000 * MIB}\n",
            "sys/fs/cgroup/user.slice/cpu.max": "400000 100000\n",
            "sys/fs/cgroup/user.slice/job/memory.max": "max\n",
            "sys/fs/cgroup/user.slice/job/memory.high": f"{5000 * MIB}\n",
            "sys/fs/cgroup/user.slice/job/cpu.max": "max 100000\n",
        },
    )
    assert memory_limit(root, {}) == 3000 * MIB
    assert cpu_count(root, {}) == 4


def test_version_2_in_a_container_only_the_mount_exists(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/../../docker/0123abcd\n",
            "sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
            "sys/fs/cgroup/memory.max": f"{2048 * MIB}\n",
            "sys/fs/cgroup/cpu.max": "250000 100000\n",
        },
    )
    assert memory_limit(root, {}) == 2048 * MIB
    assert cpu_count(root, {}) == 2  # two and a half processors hold two slots


def test_version_1_names_each_controller(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "5:cpu,cpuacct:/slurm/job_7\n4:memory:/slurm/job_7\n9:name=systemd:/\n0::/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": UNLIMITED_V1,
            "sys/fs/cgroup/memory/slurm/job_7/memory.limit_in_bytes": str(1500 * MIB),
            "sys/fs/cgroup/cpu,cpuacct/slurm/job_7/cpu.cfs_quota_us": "300000",
            "sys/fs/cgroup/cpu,cpuacct/slurm/job_7/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
        },
    )
    assert memory_limit(root, {}) == 1500 * MIB
    assert cpu_count(root, {}) == 3


def test_a_share_of_one_processor_is_still_a_slot(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/cgroup.controllers": "cpu\n",
            "sys/fs/cgroup/cpu.max": "50000 100000\n",
        },
    )
    assert cpu_count(root, {}) == 1


@pytest.mark.parametrize(
    ("environ", "megabytes", "cpus"),
    [
        ({"SLURM_MEM_PER_NODE": "8000", "SLURM_CPUS_ON_NODE": "8"}, 8000, 8),
        ({"SLURM_MEM_PER_CPU": "2000", "SLURM_CPUS_ON_NODE": "6"}, 12000, 6),
        ({"SLURM_MEM_PER_NODE": "0", "SLURM_CPUS_ON_NODE": "4"}, 64 * 1024, 4),
        ({"SLURM_MEM_PER_CPU": "2000"}, 64 * 1024, 16),
    ],
)
def test_slurm(tmp_path: Path, environ: Mapping[str, str], megabytes: int, cpus: int) -> None:
    root = tree(tmp_path, {})
    assert memory_limit(root, environ) == megabytes * MIB
    assert cpu_count(root, environ) == cpus


def test_this_machine_has_limits() -> None:
    machine = Machine.here()
    assert 1 <= machine.cpus <= 16
    assert 0 < machine.memory <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_the_peak_is_of_the_block_alone() -> None:
    hoard = np.ones(200 * MIB // 8)
    del hoard
    with PeakMemory() as quiet:
        before = resident()
    if not quiet.exact:
        pytest.skip("this system does not let a process reset its peak")
    assert quiet.bytes < before + 50 * MIB
    with PeakMemory() as busy:
        hoard = np.ones(100 * MIB // 8)
        del hoard
    assert before + 95 * MIB < busy.bytes < before + 150 * MIB


def test_where_the_peak_cannot_be_reset_it_is_of_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(resources, "_CLEAR_REFS", tmp_path / "absent" / "clear_refs")
    with PeakMemory() as peak:
        pass
    assert not peak.exact
    assert peak.bytes == resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_a_failing_block_is_measured_too() -> None:
    peak = PeakMemory()
    with pytest.raises(ValueError, match="no"), peak:
        raise ValueError("no")
    assert peak.bytes > 0
