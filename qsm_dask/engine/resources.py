"""What this process may use of its machine, and how much memory it used.

The machine's own figures are too large in a container or a batch job, so the limits of control
groups (versions 1 and 2, with those of every group above) and of SLURM are read as well.
"""

import os
import resource
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

_HERE = Path("/")
_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5): "reset the peak resident set size to the current one"


@dataclass(frozen=True)
class Machine:
    """What this process may use: `cpus` processors and `memory` bytes."""

    cpus: int
    memory: int

    @classmethod
    def here(cls) -> "Machine":
        """The machine that this process runs on, as far as it may use it."""
        return cls(cpu_count(), memory_limit())


def cpu_count(root: Path = _HERE, environ: Mapping[str, str] = os.environ) -> int:
    """Processors that this process may use, at least 1.

    The least of its affinity, the quotas of its control groups (rounded down: a fraction of a
    processor is not a slot) and SLURM's allocation on this node.
    """
    counts = [float(len(os.sched_getaffinity(0)))]
    for folder in _groups(root, "cpu"):
        quota, period = _quota(folder)
        if quota > 0 and period > 0:
            counts.append(quota / period)
    counts.append(_number(environ.get("SLURM_CPUS_ON_NODE")) or counts[0])
    return max(1, int(min(counts)))


def memory_limit(root: Path = _HERE, environ: Mapping[str, str] = os.environ) -> int:
    """Memory that this process and its children may use [bytes].

    The least of the machine's memory, the limits of its control groups and SLURM's allocation.
    """
    limits = [_total(root)]
    for folder in _groups(root, "memory"):
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            limit = _number(_text(folder / name))
            if limit > 0:
                limits.append(limit)
    megabytes = _number(environ.get("SLURM_MEM_PER_NODE"))
    if not megabytes:
        megabytes = _number(environ.get("SLURM_MEM_PER_CPU")) * _number(environ.get("SLURM_CPUS_ON_NODE"))
    if megabytes > 0:  # SLURM says 0 for "all of the node"
        limits.append(megabytes * 2**20)
    return int(min(limits))


class PeakMemory:
    """Measures the peak resident memory of this process over a `with` block.

    Linux resets its peak on request; where it does not (a locked-down container), `bytes` is
    the peak since the process started, and `exact` is False. One measurement at a time: the
    peak belongs to the process.

    Attributes
    ----------
    bytes : peak resident memory, the process's own included [bytes]; 0 before the block ends.
    exact : whether the peak is of the block alone.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self.exact = False

    def __enter__(self) -> Self:
        try:
            _CLEAR_REFS.write_text(_RESET_PEAK)
            self.exact = True
        except OSError:
            self.exact = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        peak = _status("VmHWM") if self.exact else 0
        self.bytes = peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def resident() -> int:
    """Resident memory of this process now [bytes]; 0 where the system does not say."""
    return _status("VmRSS")


def _status(field: str) -> int:
    for line in _text(_STATUS).splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    return 0


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of this process's control groups that may limit `controller`, innermost first."""
    mounts = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mount = mounts if (mounts / "cgroup.controllers").exists() else mounts / "unified"
        elif controller in controllers.split(","):
            mount = mounts / controllers if (mounts / controllers).exists() else mounts / controller
        else:
            continue
        inner = path.strip("/").split("/")
        # A container sees its host's path here but not the folders: then only the mount exists.
        folders = [mount.joinpath(*inner[:n]) for n in range(len(inner), -1, -1)]
        yield from (folder for folder in folders if ".." not in folder.parts and folder.is_dir())


def _quota(folder: Path) -> tuple[float, float]:
    """Processor time that a group may use, and in which period; 0 where there is no limit."""
    quota, _, period = _text(folder / "cpu.max").strip().partition(" ")
    if quota:
        return _number(quota), _number(period)
    return _number(_text(folder / "cpu.cfs_quota_us")), _number(_text(folder / "cpu.cfs_period_us"))


def _total(root: Path) -> float:
    for line in _text(root / "proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return _number(line.split()[1]) * 1024
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _number(text: str | None) -> float:
    """A figure as the system prints it; 0 for absent, `max` and anything else."""
    try:
        return float((text or "").strip())
    except ValueError:
        return 0.0
