"""Workers on machines that are reached by SSH: a few workstations of a group, without a batch system.

The scheduler lives in the driver. Each worker is started in an SSH connection of its own and ends with
it; a nanny beside it starts it again when it dies.
"""

# mypy: disable-error-code="no-untyped-call"
# distributed is typed in part only

import importlib.util
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from qsm_dask.engine.base import Engine, gibibytes
from qsm_dask.engine.certificates import FILES, private_folder, put_in_folder, temporary_security
from qsm_dask.engine.recycling import Recycling
from qsm_dask.engine.settings import ENCRYPTED, LOOPBACK, PRELOAD, SETTINGS, quiet, thread_environment
from qsm_dask.engine.sizing import job_memory, seconds, task_limit, whole
from qsm_dask.errors import ConfigError, EngineError

_INSTALL = "pip install 'qsm-dask[ssh]'"
_SETTINGS = {
    **SETTINGS,
    # Nannies restart their workers; dask would close for good the nanny of one that died.
    "distributed.deploy.lost-worker-timeout": "1000 hours",
}


@dataclass(frozen=True, kw_only=True)
class Ssh(Recycling):
    """Machines by name. The options are told in `cluster/ssh.yaml`."""

    hosts: Sequence[str] = ()
    workers_per_host: int = 1
    threads_per_worker: int = 1
    memory: str | int = "8 GiB"
    connect: Mapping[str, Any] = field(default_factory=dict)
    python: str | None = None
    interface: str | None = None
    scheduler_port: int = 0
    scratch: str | None = None
    shared_folder: str = "~"
    tls: bool = True
    dashboard: str = LOOPBACK
    patience: str | int = "10 minutes"

    def __post_init__(self) -> None:
        """Refuse what cannot be meant, before anything is started."""
        super().__post_init__()
        if isinstance(self.hosts, str) or not self.hosts:
            raise ConfigError("cluster: hosts is a list of at least one machine's name, such as `[node1, node2]`")
        if "password" in self.connect or "passphrase" in self.connect:
            raise ConfigError("cluster: connect holds a secret: use a key with an agent, and leave it out of the file")
        whole("workers_per_host", self.workers_per_host)
        whole("threads_per_worker", self.threads_per_worker)
        seconds("patience", self.patience)
        task_limit(self._worker_memory)

    @property
    def _worker_memory(self) -> int:
        return job_memory(self.memory)[1]

    def describe(self) -> str:
        """Where workers would be started, and how."""
        how = "encrypted" if self.tls else "NOT encrypted, and anyone who reaches it may run code there"
        count = len(self.hosts) * self.workers_per_host
        size, threads = gibibytes(self._worker_memory), self.threads_per_worker
        lines = [f"{count} workers, each with {size} of memory and {threads} threads ({how}):"]
        lines += [f"  ssh {shlex.quote(host)} {self._python} -m distributed.cli.dask_spec ..." for host in self.hosts]
        return "\n".join(lines)

    @property
    def _python(self) -> str:
        return self.python or sys.executable

    @contextmanager
    def open(self) -> Iterator[Engine]:
        """Start the scheduler here and the workers there; end them at exit.

        Raises
        ------
        ConfigError : a package is not installed, or the shared folder cannot be written.
        EngineError : a machine does not answer, or starts no worker.
        """
        import dask
        from distributed import Client, SpecCluster

        from qsm_dask.engine.dask import DaskEngine

        if importlib.util.find_spec("asyncssh") is None:
            raise ConfigError(f"cluster of kind ssh needs asyncssh: {_INSTALL}")
        with quiet(), private_folder(self.shared_folder) as folder:
            security = put_in_folder(temporary_security(_INSTALL), folder) if self.tls else None
            paths = (
                {f"distributed.comm.tls.{name}": getattr(security, f) for f, name in _TLS.items()} if security else {}
            )
            with dask.config.set({**_SETTINGS, **(ENCRYPTED if self.tls else {}), **paths}):
                try:
                    cluster = SpecCluster(
                        scheduler={"cls": "distributed.Scheduler", "options": self._scheduler(security)},
                        workers=self._workers(),
                        security=security,
                        name="qsm-dask-ssh",
                    )
                except Exception as error:
                    raise EngineError(
                        f"a worker did not start on one of {', '.join(self.hosts)} ({error}): can you `ssh` there "
                        f"without a password, and is {self._python} with qsm_dask there?"
                    ) from error
                with cluster, Client(cluster, set_as_default=False) as client:
                    yield DaskEngine(
                        client,
                        slots=len(self.hosts) * self.workers_per_host,
                        limit=task_limit(self._worker_memory),
                        threads=self.threads_per_worker,
                        patience_s=seconds("patience", self.patience),
                        wear=self.wear(),
                    )

    def _scheduler(self, security: object) -> dict[str, Any]:
        return {
            "interface": self.interface,
            "port": self.scheduler_port,
            "protocol": "tls://" if self.tls else "tcp://",
            "dashboard_address": self.dashboard,
            "security": security,
        }

    def _workers(self) -> dict[str, Any]:
        from distributed.deploy.ssh import Worker

        options = {
            "connect_options": dict(self.connect),
            "remote_python": self._remote_command(),
            "kwargs": {
                "interface": self.interface,
                "nthreads": 1,
                "memory_limit": self._worker_memory,
                "dashboard_address": LOOPBACK,
                "preload": [PRELOAD],
                "local_directory": self.scratch,
                "protocol": "tls://" if self.tls else "tcp://",
            },
        }
        return {
            f"{host}-{number}": {"cls": Worker, "options": {**options, "address": host}}
            for host in self.hosts
            for number in range(self.workers_per_host)
        }

    def _remote_command(self) -> str:
        """The remote Python, told how many threads its libraries may start."""
        environment = " ".join(f"{name}={value}" for name, value in thread_environment(self.threads_per_worker).items())
        return f"env {environment} {self._python}"


_TLS = dict(zip(FILES, ("ca-file", "worker.cert", "worker.key"), strict=True))
"""Dask's names for the settings of a worker's certificates."""
