"""Workers that a cloud or a service starts on request: each is one machine or container, and runs one scan at a time.

These kinds only hand over: what to start is said in the words of the library that starts it, under `options`.
"""

# mypy: disable-error-code="no-untyped-call"
# distributed is typed in part only

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import yaml

from qsm_dask.engine.base import Engine
from qsm_dask.engine.recycling import Recycling
from qsm_dask.engine.settings import LOOPBACK, PRELOAD, SETTINGS, as_environment, quiet, thread_environment
from qsm_dask.engine.sizing import job_memory, seconds, task_limit, whole
from qsm_dask.engine.suited import least_memory, suited_workers
from qsm_dask.errors import ConfigError, EngineError


@dataclass(frozen=True, kw_only=True)
class Hosted(Recycling, ABC):
    """What all of them are told.

    Attributes
    ----------
    workers : most workers at once.
    least_workers : None keeps `workers` workers; a number lets their count fall to it when less is to do.
    options : keyword arguments of the library's own class, named by `check`.
    start : how long the first worker may take to come.
    patience : the run is given up when there was no worker for so long.
    threads_per_worker : threads that the kernels of one scan use.
    """

    maker: ClassVar[str]
    """The library's class, as `module:class`."""
    install: ClassVar[str]

    workers: int = 4
    least_workers: int | None = None
    threads_per_worker: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    start: str | int = "15 minutes"
    patience: str | int = "30 minutes"

    def __post_init__(self) -> None:
        """Refuse what cannot be meant, before anything is started."""
        super().__post_init__()
        whole("workers", self.workers)
        whole("threads_per_worker", self.threads_per_worker)
        if self.least_workers is not None and not 0 <= self.least_workers <= self.workers:
            raise ConfigError(
                f"cluster: least_workers is from 0 to `workers` ({self.workers}), not {self.least_workers!r}"
            )
        if not isinstance(self.options, Mapping):
            raise ConfigError("cluster: options is a mapping of names to values")
        for name in sorted(set(self.options) & set(self.own())):
            raise ConfigError(f"cluster: {name!r} under options is set by this kind already: leave it out")
        seconds("start", self.start)
        seconds("patience", self.patience)

    @abstractmethod
    def own(self) -> dict[str, Any]:
        """Keyword arguments that this kind sets by itself."""

    def calls(self) -> dict[str, Any]:
        """What is called, with which keyword arguments."""
        return {self.maker.replace(":", "."): {**self.own(), **self.options}}

    def describe(self) -> str:
        """The call that would be made; nothing is started, and nothing is charged."""
        many = f"{self.workers} workers" if self.least_workers is None else f"{self.least_workers} to {self.workers}"
        return f"# {many}\n" + yaml.safe_dump(self.calls(), sort_keys=False, allow_unicode=True).rstrip()

    @contextmanager
    def open(self) -> Iterator[Engine]:
        """Start the workers; end them, and what they cost, at exit.

        Raises
        ------
        ConfigError : the library is not installed, or the workers do not suit.
        EngineError : the cluster did not start.
        """
        import dask

        from qsm_dask.engine.dask import DaskEngine

        made = self._class()
        with quiet(), dask.config.set(dict(SETTINGS)):
            try:
                cluster = self.make(made)
            except Exception as error:  # whatever the library and the service behind it may raise
                raise EngineError(f"{self.maker} did not start: {type(error).__name__}: {error}") from error
            try:
                if self.least_workers is None:
                    cluster.scale(self.workers)
                else:
                    cluster.adapt(minimum=self.least_workers, maximum=self.workers)
                with cluster.get_client() as client:
                    found = suited_workers(client, f"the cluster of {self.maker}", seconds("start", self.start))
                    yield DaskEngine(
                        client,
                        slots=self.workers,
                        limit=task_limit(least_memory(found)),
                        threads=self.threads_per_worker,
                        patience_s=seconds("patience", self.patience),
                        wear=self.wear(),
                    )
            finally:
                cluster.close()

    def _class(self) -> Any:
        module, name = self.maker.split(":")
        try:
            return getattr(importlib.import_module(module), name)
        except ImportError as error:
            raise ConfigError(
                f"cluster: {module} is not installed, or lacks a part ({error}): {self.install}"
            ) from error

    def make(self, made: Any) -> Any:
        """The started cluster, from the library's class."""
        return made(**self.own(), **self.options)


@dataclass(frozen=True, kw_only=True)
class _Sized(Hosted):
    """Hosts whose workers this kind describes itself.

    Attributes
    ----------
    memory : of one machine; the worker in it takes 256 MiB less.
    image : container with qsm_dask in the driver's version; see `cluster/Dockerfile`.
    """

    threads_per_worker: int = 2
    memory: str | int = "8 GiB"
    image: str | None = None

    def __post_init__(self) -> None:
        """A worker must be large enough for some scan."""
        super().__post_init__()
        task_limit(job_memory(self.memory)[1])

    def worker_options(self) -> dict[str, Any]:
        """What dask's worker is told: one task at once, within its memory, its page closed to others."""
        return {
            "nthreads": 1,
            "memory_limit": job_memory(self.memory)[1],
            "dashboard_address": LOOPBACK,
            "preload": [PRELOAD],
        }

    def environment(self) -> dict[str, str]:
        """Of the workers: dask's settings, and how many threads libraries may start."""
        return as_environment(SETTINGS) | thread_environment(self.threads_per_worker)


@dataclass(frozen=True, kw_only=True)
class _Machines(_Sized):
    """Virtual machines by dask-cloudprovider: TLS with certificates made for the run."""

    def own(self) -> dict[str, Any]:
        """Keyword arguments that this kind sets by itself."""
        given = {"docker_image": self.image} if self.image else {}
        return given | {
            "security": True,
            "env_vars": self.environment(),
            "worker_options": self.worker_options(),
            "scheduler_options": {"dashboard_address": LOOPBACK},
        }


@dataclass(frozen=True, kw_only=True)
class Aws(_Machines):
    """Machines of Amazon's EC2."""

    maker = "dask_cloudprovider.aws:EC2Cluster"
    install = "pip install 'dask-cloudprovider[aws]'"


@dataclass(frozen=True, kw_only=True)
class Gcp(_Machines):
    """Machines of Google's Compute Engine."""

    maker = "dask_cloudprovider.gcp:GCPCluster"
    install = "pip install 'dask-cloudprovider[gcp]'"


@dataclass(frozen=True, kw_only=True)
class Azure(_Machines):
    """Virtual machines of Azure."""

    maker = "dask_cloudprovider.azure:AzureVMCluster"
    install = "pip install 'dask-cloudprovider[azure]'"


@dataclass(frozen=True, kw_only=True)
class Coiled(_Sized):
    """Machines in the user's own cloud account, started by Coiled; TLS by that service."""

    maker = "coiled:Cluster"
    install = "pip install coiled"

    def own(self) -> dict[str, Any]:
        """Keyword arguments that this kind sets by itself."""
        given = {"container": self.image} if self.image else {}
        return given | {
            "n_workers": self.workers if self.least_workers is None else max(1, self.least_workers),
            "worker_memory": self.memory,
            "worker_options": self.worker_options(),
            "environ": self.environment(),
            "shutdown_on_close": True,
        }


@dataclass(frozen=True, kw_only=True)
class Gateway(Hosted):
    """A Dask Gateway of the site, which decides what its workers are; TLS by that gateway.

    Attributes
    ----------
    address : of the gateway, such as `https://gateway.example.org`.
    auth : `basic`, `kerberos` or `jupyterhub`; None takes it from dask's own configuration. What they
        ask for comes from the environment or that configuration, never from this file.
    """

    maker = "dask_gateway:Gateway"
    install = "pip install dask-gateway"
    address: str | None = None
    auth: str | None = None

    def own(self) -> dict[str, Any]:
        """Keyword arguments of the gateway itself."""
        return {name: value for name, value in (("address", self.address), ("auth", self.auth)) if value}

    def calls(self) -> dict[str, Any]:
        """What is called, with which keyword arguments."""
        return {"dask_gateway.Gateway": self.own(), "new_cluster": {"shutdown_on_close": True, **self.options}}

    def make(self, made: Any) -> Any:
        """A new cluster, with `options` in the words that the site's gateway offers."""
        return made(**self.own()).new_cluster(shutdown_on_close=True, **self.options)
