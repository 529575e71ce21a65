"""Clusters behind a batch system: each worker is one job, which runs one scan at a time.

One worker a job, so that a job that is killed for its memory takes no neighbour with it. The
scheduler lives in the driver; workers reach it over TLS with certificates made for this run.
"""

# mypy: disable-error-code="no-untyped-call"
# distributed is typed in part only

import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import Any, ClassVar

from qsm_dask.engine.base import Engine
from qsm_dask.engine.certificates import FILES, file_name
from qsm_dask.engine.recycling import Recycling
from qsm_dask.engine.settings import ENCRYPTED, LOOPBACK, PRELOAD, SETTINGS, as_environment, thread_environment
from qsm_dask.engine.sizing import job_memory, seconds, task_limit, whole
from qsm_dask.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Batch(Recycling):
    """What all batch systems are told.

    Attributes
    ----------
    jobs : most jobs at once; each is one worker, hence one scan.
    least_jobs : None keeps `jobs` jobs; a number lets their count fall to it when less is to do.
    memory : of one job; the worker in it takes 256 MiB less.
    threads_per_worker : processors of one job, and threads that the kernels of its scan use.
    interface : network interface that the nodes share, such as `ib0`; None for the default one.
    scheduler_port : where the scheduler listens on this machine; 0 takes a free one.
    scratch : folder on the nodes' own disks for the workers' files.
    shared_folder : folder that this machine and every node see: the run's certificates lie in it.
    tls : whether all traffic is encrypted and both sides show a certificate.
    dashboard : where dask's page listens on this machine.
    python : the Python of the nodes; None is this one.
    prologue : lines of shell that run before the worker, such as `module load`.
    directives : more lines for the head of the job script, without their prefix.
    logs : folder for the jobs' output; None leaves it to the batch system.
    replace_after : a job whose worker was not seen for so long is cancelled and submitted anew.
    patience : the run is given up when there was no worker for so long.
    """

    system: ClassVar[str]

    jobs: int = 4
    least_jobs: int | None = None
    memory: str | int = "8 GiB"
    threads_per_worker: int = 1
    interface: str | None = None
    scheduler_port: int = 0
    scratch: str | None = None
    shared_folder: str = "~"
    tls: bool = True
    dashboard: str = LOOPBACK
    python: str | None = None
    prologue: Sequence[str] = ()
    directives: Sequence[str] = ()
    logs: str | None = None
    replace_after: str | int = "60 s"
    patience: str | int = "24 h"

    def __post_init__(self) -> None:
        """Refuse what cannot be meant, before anything is submitted."""
        super().__post_init__()
        whole("jobs", self.jobs)
        whole("threads_per_worker", self.threads_per_worker)
        if self.least_jobs is not None and not 0 <= self.least_jobs <= self.jobs:
            raise ConfigError(f"cluster: least_jobs is from 0 to `jobs` ({self.jobs}), not {self.least_jobs!r}")
        for name in ("prologue", "directives"):
            if isinstance(getattr(self, name), str):
                raise ConfigError(f"cluster: {name} is a list of lines, not one text: write `- ` before each")
        seconds("replace_after", self.replace_after)
        seconds("patience", self.patience)
        task_limit(self.worker_memory)  # refuses a job that is too small for any scan

    @property
    def limit(self) -> int:
        """Memory that one task may take [bytes]."""
        return task_limit(self.worker_memory)

    @property
    def worker_memory(self) -> int:
        """What is left of a job for its worker [bytes]."""
        return job_memory(self.memory)[1]

    def open(self) -> AbstractContextManager[Engine]:
        """Start the scheduler here, submit the jobs, and cancel them at the end."""
        from qsm_dask.engine.queue import batch_engine

        return batch_engine(self)

    def describe(self) -> str:
        """The job script that each worker would be submitted with."""
        from distributed import Security

        folder = PurePosixPath(self.shared_folder, ".qsm-dask-RUN")
        files = {field: str(folder / file_name(field)) for field in FILES}
        security = Security(require_encryption=True, **files) if self.tls else None
        address = f"{'tls' if self.tls else 'tcp'}://SCHEDULER:PORT"
        script: str = self.classes().job(address, name="qsm-dask-0", security=security, **self.job()).job_script()
        return script

    def classes(self) -> SimpleNamespace:
        """The `cluster` and `job` classes of dask-jobqueue.

        Raises
        ------
        ConfigError : it is not installed.
        """
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            import dask_jobqueue
        except ImportError as error:
            raise ConfigError(
                f"cluster of kind {self.system.lower()} needs dask-jobqueue: pip install 'qsm-dask[hpc]'"
            ) from error
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():  # its import puts one of its own in place of Ctrl-C's
                signal.signal(number, handler)
        cluster = getattr(dask_jobqueue, f"{self.system}Cluster")
        return SimpleNamespace(cluster=cluster, job=cluster.job_cls)

    def job(self) -> dict[str, Any]:
        """Keyword arguments of dask-jobqueue's job class."""
        settings = {**SETTINGS, **(ENCRYPTED if self.tls else {})}
        environment = as_environment(settings) | thread_environment(self.threads_per_worker)
        return {
            "cores": self.threads_per_worker,
            "processes": 1,
            "memory": job_memory(self.memory)[0],
            "interface": self.interface,
            "protocol": "tls://" if self.tls else None,
            "local_directory": self.scratch,
            "python": self.python or sys.executable,
            "job_name": "qsm-dask",
            "log_directory": self.logs,
            "job_script_prologue": [
                *self.prologue,
                *(f"export {name}={value}" for name, value in environment.items()),
            ],
            "job_extra_directives": list(self.directives),
            "worker_extra_args": self._worker_arguments(),
            **self.own(),
        }

    def _worker_arguments(self) -> list[str]:
        """What dask's worker command is told last, and therefore heeds: one task at once, nothing open to others."""
        return [
            "--nthreads", "1",
            "--memory-limit", str(self.worker_memory),
            "--dashboard-address", LOOPBACK,
            "--preload", PRELOAD,
            *self._lifetime(),
        ]  # fmt: skip

    def _lifetime(self) -> list[str]:
        return []

    def own(self) -> Mapping[str, Any]:
        """Keyword arguments of this batch system alone."""
        return {}


@dataclass(frozen=True, kw_only=True)
class Timed(Batch):
    """Batch systems that end a job after a time.

    Attributes
    ----------
    queue : queue or partition; None for the site's default.
    account : account or project that is charged; None for the user's default.
    walltime : how long one job may run.
    retire_before : a worker hands its scan back and leaves so long before its job's end, or up to
        half as long, by lot, so that not all leave at once.
    """

    queue: str | None = None
    account: str | None = None
    walltime: str | int = "04:00:00"
    retire_before: str | int = "10 minutes"

    def __post_init__(self) -> None:
        """A worker must live for a while before it retires."""
        super().__post_init__()
        if seconds("walltime", self.walltime) < 2 * seconds("retire_before", self.retire_before):
            raise ConfigError(
                f"cluster: walltime {self.walltime!r} is less than twice `retire_before` ({self.retire_before!r}): "
                "a worker would retire before it has done anything"
            )

    def _lifetime(self) -> list[str]:
        early = seconds("retire_before", self.retire_before)
        life = seconds("walltime", self.walltime) - 0.75 * early
        return ["--lifetime", f"{life:.0f}s", "--lifetime-stagger", f"{early / 4:.0f}s"]

    def clock(self) -> str:
        """The walltime as the batch system writes it."""
        minutes, left = divmod(int(seconds("walltime", self.walltime)), 60)
        return f"{minutes // 60:02d}:{minutes % 60:02d}:{left:02d}"

    def own(self) -> Mapping[str, Any]:
        """Keyword arguments of this batch system alone."""
        return {"queue": self.queue, "account": self.account, "walltime": self.clock()}


@dataclass(frozen=True, kw_only=True)
class Slurm(Timed):
    """SLURM: `sbatch`, `scancel`."""

    system = "SLURM"

    def own(self) -> Mapping[str, Any]:
        """Memory in MiB: dask-jobqueue would round it up to whole GiB."""
        return {**super().own(), "job_mem": f"{-(-job_memory(self.memory)[0] // 2**20)}M"}


@dataclass(frozen=True, kw_only=True)
class Pbs(Timed):
    """PBS Pro, OpenPBS and Torque: `qsub`, `qdel`.

    Attributes
    ----------
    resources : in place of `select=1:ncpus=...:mem=...` from the options above.
    """

    system = "PBS"
    resources: str | None = None

    def own(self) -> Mapping[str, Any]:
        """Keyword arguments of this batch system alone."""
        return {**super().own(), "resource_spec": self.resources}


@dataclass(frozen=True, kw_only=True)
class Sge(Timed):
    """Grid Engine: `qsub`, `qdel`.

    Attributes
    ----------
    resources : how this site asks for memory, such as `h_vmem=8G`; Grid Engine has no common name.
    """

    system = "SGE"
    resources: str | None = None

    def own(self) -> Mapping[str, Any]:
        """Grid Engine charges projects."""
        return {
            "queue": self.queue,
            "project": self.account,
            "walltime": self.clock(),
            "resource_spec": self.resources,
        }


@dataclass(frozen=True, kw_only=True)
class Lsf(Timed):
    """LSF: `bsub`, `bkill`.

    Attributes
    ----------
    memory_units : in which this site's LSF counts memory, as `LSF_UNIT_FOR_LIMITS` says.
    """

    system = "LSF"
    memory_units: str = "kb"

    def own(self) -> Mapping[str, Any]:
        """LSF writes hours and minutes, and charges projects."""
        return {
            "queue": self.queue,
            "project": self.account,
            "walltime": self.clock()[:-3],
            "lsf_units": self.memory_units,
        }


@dataclass(frozen=True, kw_only=True)
class HtCondor(Batch):
    """HTCondor: `condor_submit`, `condor_rm`. `directives` are `NAME = VALUE`.

    Attributes
    ----------
    disk : that one job may take.
    """

    system = "HTCondor"
    disk: str = "10 GB"

    def own(self) -> Mapping[str, Any]:
        """HTCondor's directives have names."""
        pairs = [line.partition("=") for line in self.directives]
        for name, equals, _ in pairs:
            if not equals:
                raise ConfigError(f"cluster: directive {name!r} of HTCondor is not of the form `NAME = VALUE`")
        directives = {name.strip(): value.strip() for name, _, value in pairs}
        return {"disk": self.disk, "job_extra_directives": directives}
