"""Workers behind a real SSH server on the loopback address."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qsm_dask.engine import open_engine, parse
from qsm_dask.engine.dask import DaskEngine
from qsm_dask.errors import ConfigError, EngineError
from tests.engine.tasks import Script, no_memory
from tests.real_parts import need
from tests.real_parts.sshd import SshServer, is_here

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    need("an SSH server", "run tests/real_parts/install.sh as root, and the tests too", found=is_here())
    with SshServer(tmp_path_factory.mktemp("ssh")) as started:
        yield started


def spec(server: SshServer, folder: Path, **options: Any) -> dict[str, Any]:
    common = {"hosts": ["127.0.0.1"], "workers_per_host": 2, "memory": "1500 MiB", "interface": "lo"}
    python = f"env PYTHONPATH={ROOT} {sys.executable}"
    return {
        "kind": "ssh",
        **common,
        "connect": server.connect,
        "shared_folder": str(folder),
        "python": python,
        **options,
    }


@pytest.mark.slow
def test_scans_run_over_tls_and_a_dead_worker_is_replaced(server: SshServer, tmp_path: Path) -> None:
    script = Script(tmp_path, {"bbb": ("die", "answer")})
    with open_engine(spec(server, tmp_path)) as engine:
        assert isinstance(engine, DaskEngine)
        workers = engine.client.scheduler_info(n_workers=-1)["workers"]
        assert all(address.startswith("tls://127.0.0.1") for address in workers)
        assert {(worker["nthreads"], worker["memory_limit"]) for worker in workers.values()} == {(1, 1244 * 2**20)}
        keys = list(tmp_path.glob(".qsm-dask-*/worker_key.pem"))
        assert [oct(key.stat().st_mode)[-3:] for key in keys] == ["600"]
        outcomes = {o.key: o for o in engine.map(script, ["a", "bbb", "cc"], memory=no_memory)}
    assert {key: outcome.value for key, outcome in outcomes.items()} == {"a": 1, "bbb": 9, "cc": 4}
    assert [script.count(key) for key in ("a", "bbb", "cc")] == [1, 2, 1]
    assert list(tmp_path.glob(".qsm-dask-*")) == []


@pytest.mark.slow
def test_a_host_without_an_answer_is_named(server: SshServer, tmp_path: Path) -> None:
    wrong = {**server.connect, "port": 1}
    with (
        pytest.raises(EngineError, match=r"did not start on one of 127\.0\.0\.1 .*without a password"),
        open_engine(spec(server, tmp_path, connect=wrong)),
    ):
        pass


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "hosts is a list"),
        ({"hosts": "node1"}, "hosts is a list"),
        ({"hosts": ["node1"], "connect": {"password": "x"}}, "connect holds a secret"),
        ({"hosts": ["node1"], "workers_per_host": 0}, "workers_per_host is a whole number"),
        ({"hosts": ["node1"], "memory": "300 MiB"}, "memory"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse({"kind": "ssh", **options})
