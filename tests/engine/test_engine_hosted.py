"""What clouds, services and Kubernetes would be asked for; nothing is started."""

import importlib.resources
import importlib.util
from typing import Any

import pytest
import yaml

from qsm_dask import resources
from qsm_dask.engine import parse
from qsm_dask.engine.kubernetes import Kubernetes
from qsm_dask.errors import ConfigError
from tests.real_parts import need

MACHINES = ("aws", "gcp", "azure")
NAMED = "keys"


def described(kind: str, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(parse({"kind": kind, **options}).describe())
    return found


@pytest.mark.parametrize("kind", [*MACHINES, "coiled"])
def test_every_worker_runs_one_task_within_its_memory(kind: str) -> None:
    (call,) = described(kind, memory="4 GiB", threads_per_worker=2, image="me/qsm:1").values()
    worker = call["worker_options"]
    assert worker["nthreads"] == 1
    assert worker["memory_limit"] == 4 * 2**30 - 256 * 2**20
    assert worker["dashboard_address"] == "127.0.0.1:0"
    environment = call["env_vars" if kind in MACHINES else "environ"]
    assert environment["OMP_NUM_THREADS"] == "2"
    assert environment["DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE"] == "False"
    assert "me/qsm:1" in call.values()


@pytest.mark.parametrize("kind", MACHINES)
def test_machines_are_reached_over_tls_and_show_no_page(kind: str) -> None:
    (call,) = described(kind).values()
    assert call["security"] is True
    assert call["scheduler_options"] == {"dashboard_address": "127.0.0.1:0"}


def test_options_go_to_the_library_as_they_are() -> None:
    (call,) = described("aws", options={"region": "eu-central-1", "spot": True}).values()
    assert (call["region"], call["spot"]) == ("eu-central-1", True)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "aws", "options": {"security": False}}, "'security' under options is set by this kind already"),
        ({"kind": "gcp", "workers": 0}, "workers is a whole number"),
        ({"kind": "azure", "workers": 2, "least_workers": 3}, r"from 0 to `workers` \(2\)"),
        ({"kind": "coiled", "memory": "300 MiB"}, "memory"),
        ({"kind": "gateway", "options": ["image"]}, "options is a mapping"),
        ({"kind": "kubernetes", "namespace": "a/b"}, "is no name of Kubernetes"),
        ({"kind": "kubernetes", "worker_pod": {"volumes": []}}, "'volumes' under worker_pod is set by this kind"),
    ],
)
def test_what_cannot_be_meant_is_refused(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(spec)


def manifests(**options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    secret, cluster = yaml.safe_load_all(parse({"kind": "kubernetes", "image": "me/qsm:1", **options}).describe())
    return secret, cluster


def containers(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    return [cluster["spec"][role]["spec"]["containers"][0] for role in ("scheduler", "worker")]


def test_pods_speak_tls_and_show_no_page() -> None:
    secret, cluster = manifests()
    for role, container in zip(("scheduler", "worker"), containers(cluster), strict=True):
        environment = {entry["name"]: entry["value"] for entry in container["env"]}
        assert environment["DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"] == "True"
        assert environment[f"DASK_DISTRIBUTED__COMM__TLS__{role.upper()}__KEY"] == f"/run/qsm-dask-tls/{role}-key.pem"
        assert container["args"][container["args"].index("--dashboard-address") + 1] == "127.0.0.1:0"
        assert container["volumeMounts"] == [{"name": "tls", "mountPath": "/run/qsm-dask-tls", "readOnly": True}]
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "runAsNonRoot": True}
    assert cluster["spec"]["worker"]["spec"]["volumes"][0]["secret"]["secretName"] == secret["metadata"]["name"]
    assert "data" not in secret  # a description shows no certificate


def test_a_worker_pod_gets_what_the_file_says() -> None:
    _, cluster = manifests(
        workers=7, memory="4 GiB", threads_per_worker=3, environment_secret=NAMED, cohort_claim="disk",
        worker_pod={"nodeSelector": {"pool": "spot"}},
    )  # fmt: skip
    worker = cluster["spec"]["worker"]
    assert (worker["replicas"], worker["spec"]["nodeSelector"]) == (7, {"pool": "spot"})
    container = worker["spec"]["containers"][0]
    assert container["resources"] == {
        "requests": {"memory": str(4 * 2**30), "cpu": "3"},
        "limits": {"memory": str(4 * 2**30)},
    }
    assert container["envFrom"] == [{"secretRef": {"name": NAMED}}]
    assert {"name": "cohort", "mountPath": "/cohort"} in container["volumeMounts"]
    assert {"name": "cohort", "persistentVolumeClaim": {"claimName": "disk"}} in worker["spec"]["volumes"]


POD = {"QSM_DASK_POD_NAME": "qsm-dask-x7", "QSM_DASK_POD_UID": "1-2-3", "QSM_DASK_POD_NAMESPACE": "mri"}


def test_what_a_run_creates_belongs_to_the_pod_of_its_driver() -> None:
    """Kubernetes deletes it then with that pod, whatever becomes of the driver."""
    kubernetes = parse({"kind": "kubernetes", "image": "me/qsm:1", "namespace": "mri"})
    assert isinstance(kubernetes, Kubernetes)
    for manifest in kubernetes.manifests("run", None, kubernetes.owners(POD)):
        assert manifest["metadata"]["ownerReferences"] == [
            {"apiVersion": "v1", "kind": "Pod", "name": "qsm-dask-x7", "uid": "1-2-3"}
        ]


@pytest.mark.parametrize("missing", [*POD, "all", "another namespace"])
def test_without_a_pod_in_the_same_namespace_nothing_belongs_to_anybody(missing: str) -> None:
    """An owner elsewhere counts as gone: all would be deleted at once."""
    kubernetes = parse({"kind": "kubernetes", "image": "me/qsm:1", "namespace": "mri"})
    assert isinstance(kubernetes, Kubernetes)
    known = {name: value for name, value in POD.items() if missing not in (name, "all")}
    if missing == "another namespace":
        known["QSM_DASK_POD_NAMESPACE"] = "default"
    assert kubernetes.owners(known) == []
    assert all("ownerReferences" not in one["metadata"] for one in kubernetes.manifests("run", None, []))


def test_the_job_of_the_driver_tells_its_pod_who_it_is() -> None:
    text = (resources.folder("cluster") / "kubernetes" / "driver.yaml").read_text()
    job = next(one for one in yaml.safe_load_all(text) if one["kind"] == "Job")
    (driver,) = job["spec"]["template"]["spec"]["containers"]
    told = {one["name"]: one["valueFrom"]["fieldRef"]["fieldPath"] for one in driver["env"]}
    assert told == dict(zip(POD, ("metadata.name", "metadata.uid", "metadata.namespace"), strict=True))
    assert job["spec"]["ttlSecondsAfterFinished"] > 0


def test_the_operator_knows_every_key_of_the_manifest() -> None:
    found = all(map(importlib.util.find_spec, ("jsonschema", "dask_kubernetes")))
    need("the Dask operator's schema", "run `make parts`", found=found)
    import jsonschema

    crds = "operator/deployment/helm/dask-kubernetes-operator/crds/daskcluster.yaml"
    text = importlib.resources.files("dask_kubernetes").joinpath(crds).read_text()
    definition = next(iter(yaml.safe_load_all(text)))
    _, cluster = manifests(environment_secret=NAMED, cohort_claim="disk")
    jsonschema.validate(cluster, definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
