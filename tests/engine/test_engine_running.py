"""A scheduler that others started: it is used, and left as it was."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import pytest
from distributed import LocalCluster, Security

from qsm_dask.engine import open_engine, read_spec
from qsm_dask.engine.dask import DaskEngine
from qsm_dask.errors import ConfigError, EngineError
from tests.engine.tasks import Script, no_memory

LOOPBACK = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "worker_dashboard_address": "127.0.0.1:0"}


def cluster(**options: Any) -> LocalCluster:
    return LocalCluster(**{"n_workers": 2, "threads_per_worker": 1, "memory_limit": "1 GiB", **LOOPBACK, **options})


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalCluster, dict[str, str]]]:
    """A cluster over TLS, and what its client is told."""
    security = Security.temporary()
    folder = tmp_path_factory.mktemp("tls")
    roles = {"ca_file": "tls_ca_file", "cert": "tls_client_cert", "key": "tls_client_key"}
    for name, role in roles.items():
        (folder / name).write_text(getattr(security, role))
    with cluster(security=security, protocol="tls://", host="tls://127.0.0.1") as made:
        yield made, {name: str(folder / name) for name in roles}


def test_work_over_tls_leaves_the_workers(certified: tuple[LocalCluster, dict[str, str]], script: Script) -> None:
    made, files = certified
    before = {worker.pid for worker in made.workers.values()}
    spec = {"kind": "running", "address": made.scheduler_address, **files}
    for _ in range(2):
        with open_engine(spec) as engine:
            assert isinstance(engine, DaskEngine)
            assert (engine.slots, engine.limit > 0) == (2, True)
            assert [o.value for o in engine.map(script, ["aa"], memory=no_memory)] == [4]
    assert {worker.pid for worker in made.workers.values()} == before


def test_another_certificate_does_not_open_the_door(
    certified: tuple[LocalCluster, dict[str, str]], tmp_path: Path
) -> None:
    made, _ = certified
    stranger = Security.temporary()
    files = {"ca_file": "tls_ca_file", "cert": "tls_client_cert", "key": "tls_client_key"}
    for name, role in files.items():
        (tmp_path / name).write_text(getattr(stranger, role))
    spec = {"kind": "running", "address": made.scheduler_address, "start": "1 s"}
    with (
        pytest.raises(EngineError, match="no scheduler answers at tls://"),
        open_engine({**spec, **{name: str(tmp_path / name) for name in files}}),
    ):
        pass


def test_workers_of_several_threads_are_refused() -> None:
    with (
        cluster(n_workers=1, threads_per_worker=2) as made,
        pytest.raises(ConfigError, match="has 2 threads"),
        open_engine(read_spec(made.scheduler_address)),
    ):
        pass


def test_nobody_there() -> None:
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(EngineError, match="no scheduler answers at tcp://127.0.0.1:9"),
        open_engine({"kind": "running", "address": "tcp://127.0.0.1:9", "start": "1 s"}),
    ):
        pass


def test_workers_of_another_version_are_refused(
    certified: tuple[LocalCluster, dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, files = certified
    monkeypatch.setattr("qsm_dask.engine.suited.software", lambda: {"qsm-dask": "99.9"})
    with (
        pytest.raises(ConfigError, match=r"has qsm_dask \d.*: install version 99\.9 there"),
        open_engine({"kind": "running", "address": made.scheduler_address, **files}),
    ):
        pass
