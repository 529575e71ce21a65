"""Pods of Kubernetes, through the Dask operator, with TLS: the operator's own client speaks plain TCP only.

The command runs inside the Kubernetes cluster (`cluster/kubernetes/driver.yaml`), makes a Secret with
this run's certificates and a `DaskCluster`, and deletes both at the end. Both belong to the command's own pod, so
that Kubernetes deletes them with it when the command could not.
"""

# mypy: disable-error-code="no-untyped-call,attr-defined"
# distributed is typed in part only

import base64
import importlib.util
import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from qsm_dask.engine.base import Engine
from qsm_dask.engine.certificates import temporary_security
from qsm_dask.engine.recycling import Recycling
from qsm_dask.engine.settings import ENCRYPTED, LOOPBACK, PRELOAD, SETTINGS, as_environment, quiet, thread_environment
from qsm_dask.engine.sizing import job_memory, seconds, task_limit, whole
from qsm_dask.engine.suited import suited_workers
from qsm_dask.errors import ConfigError, EngineError

if TYPE_CHECKING:
    from distributed import Security

_INSTALL = "pip install 'qsm-dask[kubernetes]'"
_FOLDER = "/run/qsm-dask-tls"
_PORT, _PORT_NAME = 8786, "tcp-comm"
_POD_NAME, _POD_UID, _POD_NAMESPACE = "QSM_DASK_POD_NAME", "QSM_DASK_POD_UID", "QSM_DASK_POD_NAMESPACE"
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,40}[a-z0-9])?")


@dataclass(frozen=True, kw_only=True)
class Kubernetes(Recycling):
    """Pods by the Dask operator. The options are told in `cluster/kubernetes.yaml`."""

    image: str | None = None
    workers: int = 4
    memory: str | int = "8 GiB"
    threads_per_worker: int = 1
    namespace: str = "default"
    worker_pod: Mapping[str, Any] = field(default_factory=dict)
    environment_secret: str | None = None
    cohort_claim: str | None = None
    cohort_folder: str = "/cohort"
    start: str | int = "15 minutes"
    patience: str | int = "30 minutes"

    def __post_init__(self) -> None:
        """Refuse what cannot be meant, before anything is created."""
        super().__post_init__()
        whole("workers", self.workers)
        whole("threads_per_worker", self.threads_per_worker)
        if not _NAME.fullmatch(self.namespace):
            raise ConfigError(f"cluster: namespace {self.namespace!r} is no name of Kubernetes")
        for name in sorted({"containers", "volumes"} & set(self.worker_pod)):
            raise ConfigError(f"cluster: {name!r} under worker_pod is set by this kind already: leave it out")
        seconds("start", self.start)
        seconds("patience", self.patience)
        task_limit(self._worker_memory)

    @property
    def _worker_memory(self) -> int:
        return job_memory(self.memory)[1]

    def describe(self) -> str:
        """The manifests that would be created, the certificates left out."""
        return yaml.safe_dump_all(self.manifests("qsm-dask-RUN", None), sort_keys=False).rstrip()

    @contextmanager
    def open(self) -> Iterator[Engine]:
        """Create the certificates and the pods, connect, and delete them at exit.

        Raises
        ------
        ConfigError : the client of Kubernetes is not installed, or no image is named.
        EngineError : Kubernetes refuses a manifest, or no worker came in time.
        """
        from distributed import Client

        from qsm_dask.engine.dask import DaskEngine

        if importlib.util.find_spec("kr8s") is None:
            raise ConfigError(f"cluster of kind kubernetes needs kr8s: {_INSTALL}")
        if not self.image:
            raise ConfigError("cluster: name an image with qsm_dask in it (`image`); see cluster/Dockerfile")
        name = f"qsm-dask-{uuid.uuid4().hex[:8]}"
        security, wait = temporary_security(_INSTALL), seconds("start", self.start)
        address = self._address(name)
        with quiet(), ExitStack() as made:
            for manifest in self.manifests(name, security, self.owners(os.environ)):
                made.enter_context(_created(manifest, self.namespace))
            try:
                client = Client(address, timeout=wait, security=security, set_as_default=False)
            except (OSError, ValueError, RuntimeError) as error:
                raise EngineError(
                    f"no scheduler answers at {address} ({error}): is the Dask operator installed, and does this "
                    f"command run inside the cluster? See `kubectl -n {self.namespace} get daskclusters,pods`"
                ) from error
            with client:
                suited_workers(client, f"the DaskCluster {name}", wait)
                yield DaskEngine(
                    client,
                    slots=self.workers,
                    limit=task_limit(self._worker_memory),
                    threads=self.threads_per_worker,
                    patience_s=seconds("patience", self.patience),
                    wear=self.wear(),
                )

    def _address(self, name: str) -> str:
        return f"tls://{name}-scheduler.{self.namespace}.svc:{_PORT}"

    def owners(self, environment: Mapping[str, str]) -> list[dict[str, Any]]:
        """The pod that this command runs in, if `cluster/kubernetes/driver.yaml` tells which.

        Kubernetes takes an owner in another namespace for one that is gone, and deletes at once: then there is none.
        """
        name, uid = environment.get(_POD_NAME), environment.get(_POD_UID)
        if not (name and uid) or environment.get(_POD_NAMESPACE) != self.namespace:
            return []
        return [{"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid}]

    def manifests(
        self, name: str, security: "Security | None", owners: Sequence[Mapping[str, Any]] = ()
    ) -> list[dict[str, Any]]:
        """The Secret with the run's certificates and the DaskCluster.

        Parameters
        ----------
        name : of both.
        security : whose certificates the Secret carries; None leaves its data out.
        owners : with which Kubernetes deletes them.
        """
        found = [_secret(name, security), self._dask_cluster(name)]
        for manifest in found:
            if owners:
                manifest["metadata"]["ownerReferences"] = [dict(owner) for owner in owners]
        return found

    def _dask_cluster(self, name: str) -> dict[str, Any]:
        return {
            "apiVersion": "kubernetes.dask.org/v1",
            "kind": "DaskCluster",
            "metadata": {"name": name},
            "spec": {
                "scheduler": {"spec": self._pod(name, self._scheduler()), "service": _service(name)},
                "worker": {
                    "replicas": self.workers,
                    "spec": {**self._pod(name, self._worker(name)), **self.worker_pod},
                },
            },
        }

    def _scheduler(self) -> dict[str, Any]:
        arguments = ["--port", str(_PORT), "--protocol", "tls", "--dashboard-address", LOOPBACK]
        return {
            **self._container("scheduler", ["dask", "scheduler", *arguments], {"memory": "2Gi", "cpu": "1"}),
            "ports": [{"name": _PORT_NAME, "protocol": "TCP", "containerPort": _PORT}],
            "readinessProbe": _probe(),
            "livenessProbe": {**_probe(), "failureThreshold": 12},
        }

    def _worker(self, name: str) -> dict[str, Any]:
        arguments = [
            self._address(name),
            "--name", "$(DASK_WORKER_NAME)",
            "--nthreads", "1",
            "--memory-limit", str(self._worker_memory),
            "--dashboard-address", LOOPBACK,
            "--preload", PRELOAD,
        ]  # fmt: skip
        need = {"memory": str(job_memory(self.memory)[0]), "cpu": str(self.threads_per_worker)}
        made = self._container("worker", ["dask", "worker", *arguments], need)
        # The operator would name the address without TLS.
        made["env"].append({"name": "DASK_SCHEDULER_ADDRESS", "value": self._address(name)})
        return made

    def _container(self, role: str, arguments: list[str], need: Mapping[str, str]) -> dict[str, Any]:
        files = {
            "distributed.comm.tls.ca-file": f"{_FOLDER}/ca.pem",
            f"distributed.comm.tls.{role}.cert": f"{_FOLDER}/{role}-cert.pem",
            f"distributed.comm.tls.{role}.key": f"{_FOLDER}/{role}-key.pem",
        }
        environment = as_environment({**SETTINGS, **ENCRYPTED, **files}) | thread_environment(self.threads_per_worker)
        container: dict[str, Any] = {
            "name": role,
            "image": self.image or "IMAGE",
            "args": arguments,
            "env": [{"name": key, "value": value} for key, value in environment.items()],
            "resources": {"requests": dict(need), "limits": {"memory": need["memory"]}},
            "securityContext": {"allowPrivilegeEscalation": False, "runAsNonRoot": True},
            "volumeMounts": [{"name": "tls", "mountPath": _FOLDER, "readOnly": True}],
        }
        if self.environment_secret:
            container["envFrom"] = [{"secretRef": {"name": self.environment_secret}}]
        if self.cohort_claim:
            container["volumeMounts"].append({"name": "cohort", "mountPath": self.cohort_folder})
        return container

    def _pod(self, name: str, container: Mapping[str, Any]) -> dict[str, Any]:
        volumes: list[dict[str, Any]] = [{"name": "tls", "secret": {"secretName": name}}]
        if self.cohort_claim:
            volumes.append({"name": "cohort", "persistentVolumeClaim": {"claimName": self.cohort_claim}})
        return {"containers": [container], "volumes": volumes}


def _probe() -> dict[str, Any]:
    return {"tcpSocket": {"port": _PORT_NAME}, "periodSeconds": 5}


def _service(name: str) -> dict[str, Any]:
    return {
        "type": "ClusterIP",
        "selector": {"dask.org/cluster-name": name, "dask.org/component": "scheduler"},
        "ports": [{"name": _PORT_NAME, "protocol": "TCP", "port": _PORT, "targetPort": _PORT_NAME}],
    }


def _secret(name: str, security: "Security | None") -> dict[str, Any]:
    manifest: dict[str, Any] = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "Opaque"}
    if security is not None:
        content = {"ca.pem": security.tls_ca_file}
        for role in ("scheduler", "worker"):
            content[f"{role}-cert.pem"] = getattr(security, f"tls_{role}_cert")
            content[f"{role}-key.pem"] = getattr(security, f"tls_{role}_key")
        manifest["data"] = {key: base64.b64encode(value.encode()).decode() for key, value in content.items()}
    return manifest


@contextmanager
def _created(manifest: Mapping[str, Any], namespace: str) -> Iterator[None]:
    """Create what a manifest says, and delete it at exit."""
    import kr8s.objects

    known: dict[str, Any] = {
        "Secret": kr8s.objects.Secret,
        "DaskCluster": kr8s.objects.new_class("DaskCluster", "kubernetes.dask.org/v1", asyncio=False),
    }
    resource = known[manifest["kind"]](dict(manifest), namespace=namespace)
    try:
        resource.create()
    except Exception as error:  # of the client, of the connection, of Kubernetes itself
        raise EngineError(
            f"Kubernetes did not take the {manifest['kind']} ({type(error).__name__}: {error}): may this command's "
            "service account create it, and is the Dask operator installed? See cluster/kubernetes"
        ) from error
    try:
        yield
    finally:
        resource.delete()
