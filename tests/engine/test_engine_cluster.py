"""From a cluster's description to workers, and from any end of the driver to none."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import pytest
from distributed import Status

from qsm_dask import resources
from qsm_dask.engine import KINDS, Outcome, SerialEngine, local, open_engine
from qsm_dask.engine.dask import DaskEngine
from qsm_dask.engine.resources import Machine
from qsm_dask.engine.sizing import plan, task_limit
from qsm_dask.errors import ConfigError
from qsm_dask.kernels.fourier import CACHE_BYTES
from tests.engine.processes import children, eventually, running
from tests.engine.tasks import Script, no_memory

GIB = 2**30
LONE = {"kind": "local", "workers": 1, "memory": "1 GiB"}
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("machine", "options", "workers", "size"),
    [
        (Machine(8, 40 * GIB), {}, 8, 36 * GIB // 8),
        (Machine(64, 20 * GIB), {}, 9, 2 * GIB),  # 18 GiB hold nine workers of the least size
        (Machine(8, 40 * GIB), {"threads": 4}, 2, 18 * GIB),
        (Machine(8, 40 * GIB), {"workers": 3}, 3, 12 * GIB),
        (Machine(8, 40 * GIB), {"memory": "10 GiB"}, 3, 10 * GIB),
        (Machine(8, 40 * GIB), {"workers": 4, "memory": "10 GiB"}, 4, 10 * GIB),
        (Machine(2, 2 * GIB), {}, 1, 2 * GIB - GIB // 2),
    ],
)
def test_plan(machine: Machine, options: dict[str, object], workers: int, size: int) -> None:
    asked = {"workers": "auto", "threads": 1, "memory": "auto", **options}
    assert plan(machine, **asked) == (workers, size)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 5, "memory": "10 GiB"}, "5 workers of 10.00 GiB do not fit this machine's 40.00 GiB"),
        ({"memory": "50 GiB"}, "1 workers of 50.00 GiB do not fit"),
        ({"memory": "much"}, "'much' is not a size"),
        ({"workers": 0}, "workers is a whole number of at least 1, not 0"),
        ({"workers": "many"}, "workers is a whole number"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(options: dict[str, object], message: str) -> None:
    asked = {"workers": "auto", "threads": 1, "memory": "auto", **options}
    with pytest.raises(ConfigError, match=message):
        plan(Machine(8, 40 * GIB), **asked)  # type: ignore[arg-type]


def test_a_worker_must_have_room_for_a_scan() -> None:
    assert task_limit(13 * GIB) == 10 * GIB - 350 * 2**20 - CACHE_BYTES
    with pytest.raises(ConfigError, match=r"more than 0\.53 GiB"):
        task_limit(400 * 2**20)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "kind '' is unknown. Known are: serial, local"),
        ({"kind": "locl"}, "did you mean 'local'"),
        ({"kind": "local", "worker": 2}, "option 'worker' is unknown: did you mean 'workers'"),
        ({"kind": "serial", "workers": 2}, "option 'workers' is unknown"),
        ({"kind": "local", "threads_per_worker": "two"}, "threads_per_worker is a whole number"),
    ],
)
def test_a_wrong_description_is_refused(spec: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message), open_engine(spec):
        pass


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_shipped_files_say_every_option_with_its_default(kind: str) -> None:
    spec = dict(resources.load("cluster", kind))
    assert spec.pop("name") == kind
    assert spec.pop("kind") == kind
    said = {name: tuple(value) if isinstance(value, list) else value for name, value in spec.items()}
    defaults = {
        one.name: one.default if one.default_factory is MISSING else one.default_factory()
        for one in fields(KINDS[kind])
    }
    examples = {"hosts", "options"} & set(defaults)  # nobody's own machines can be a default
    assert {**said, **{name: defaults[name] for name in examples & set(said)}} == defaults


def test_serial_ignores_the_name_of_its_file() -> None:
    with open_engine({"name": "mine", "kind": "serial", "memory": "1 GiB", "threads_per_worker": 3}) as engine:
        assert isinstance(engine, SerialEngine)
        assert engine.threads == 3


def test_serial_outside_the_main_thread_ignores_timeouts(script: Script, caplog: pytest.LogCaptureFixture) -> None:
    outcomes: list[Outcome] = []

    def work() -> None:
        outcomes.extend(SerialEngine(1).map(script, ["a"], memory=no_memory, timeout_s=5.0))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert outcomes[0].ok
    assert "main thread" in caplog.text


def test_workers_use_the_threads_that_they_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")  # meant for the driver: sixteen workers of 7 threads are too many
    with open_engine({**LONE, "threads_per_worker": 2}) as engine:
        assert engine.threads == 2
        [outcome] = engine.map(os.getenv, ["OMP_NUM_THREADS"], memory=no_memory)
        assert outcome.value == "2"
    assert os.environ["OMP_NUM_THREADS"] == "7"


def test_an_interrupt_is_left_to_the_driver(dask_engine: DaskEngine, script: Script) -> None:
    patient = replace(script, pause_s=0.5)
    outcomes = dask_engine.map(patient, ["a", "b", "c"], memory=no_memory)
    assert next(outcomes).ok
    for pid in dask_engine.client.run(os.getpid).values():
        os.kill(pid, signal.SIGINT)
    assert [(o.ok, o.attempts) for o in outcomes] == [(True, 1), (True, 1)]


def test_a_closed_engine_leaves_nothing_of_a_running_scan(
    tmp_path: Path, script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    busy = replace(script, acts={"b": ("hang",)})
    with leaving_nothing(tmp_path, caplog), open_engine({**LONE, "scratch": str(tmp_path)}) as engine:
        outcomes = engine.map(busy, ["a", "b"], memory=no_memory)
        assert next(outcomes).ok
        eventually(lambda: script.count("b"))
        assert scratch_folders(tmp_path)
        outcomes.close()  # type: ignore[attr-defined]


def test_a_closed_engine_leaves_nothing_of_a_worker_that_restarts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with leaving_nothing(tmp_path, caplog), open_engine({**LONE, "scratch": str(tmp_path)}) as engine:
        assert isinstance(engine, DaskEngine)
        [nanny] = engine.client.cluster.workers.values()  # type: ignore[union-attr]
        os.kill(nanny.pid, signal.SIGKILL)
        eventually(lambda: nanny.process.status is Status.starting and nanny.pid)


@pytest.mark.parametrize(
    ("task", "said"), [("pass_by", ""), ("stumble", "the worker of 0 died; it will run again, alone\n")]
)
def test_an_engine_says_what_matters_and_no_more(tmp_path: Path, task: str, said: str) -> None:
    driver = start_driver(task, tmp_path)
    _, complaints = driver.communicate(timeout=60)
    assert driver.returncode == 0
    assert complaints == said


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, -2)])
def test_no_worker_outlives_its_driver(tmp_path: Path, number: signal.Signals, code: int) -> None:
    driver = start_driver("hang", tmp_path)
    assert driver.stdout is not None
    workers = [int(pid) for pid in driver.stdout.readline().split()]
    assert len(running(workers)) == 2
    time.sleep(0.5)  # in mid-task
    if number is signal.SIGINT:
        os.killpg(driver.pid, number)  # as a terminal does: to every process
    else:
        driver.send_signal(number)
    _, complaints = driver.communicate(timeout=60)
    assert driver.returncode == code
    assert "distributed" not in complaints.replace("site-packages", "")
    eventually(lambda: not running(workers))


def start_driver(task: str, folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "tests.engine.driver", task],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder), "STUMBLING_BLOCK": str(folder / "passed")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def scratch_folders(parent: Path) -> list[Path]:
    return [path for path in parent.iterdir() if path.name.startswith("qsm-dask-")]


@contextmanager
def leaving_nothing(scratch: Path, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    environment, before, handler = dict(os.environ), children(), signal.getsignal(signal.SIGTERM)
    yield
    assert os.environ == environment
    assert not scratch_folders(scratch)
    assert signal.getsignal(signal.SIGTERM) is handler
    eventually(lambda: not running(children() - before))
    assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_ctrl_c_while_workers_start_ends_a_whole_cluster(monkeypatch):
    """Interrupted half-way, dask's constructor leaves nannies that keep the process for most of a minute."""
    seen = []

    class Cluster:
        def __init__(self, **_options):
            self.workers = {}
            signal.raise_signal(signal.SIGINT)
            seen.append("started")

        def close(self):
            seen.append("closed")

    monkeypatch.setattr(local, "LocalCluster", Cluster)
    with (
        pytest.raises(KeyboardInterrupt),
        local.local_engine(workers=1, memory=2**31, limit=2**30, threads=1, scratch=None),
    ):
        pytest.fail("the interrupt was lost")
    assert seen == ["started", "closed"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_task_names_may_be_pseudonyms(tmp_path: Path) -> None:
    with open_engine({"kind": "local", "workers": 1, "memory": "1 GiB"}) as engine:
        assert isinstance(engine, DaskEngine)
        engine.name_of = lambda key: f"scan-{len(str(key))}"
        assert [o.key for o in engine.map(Script(tmp_path), ["sub-secret"], memory=no_memory)] == ["sub-secret"]
        told = str(engine.client.run_on_scheduler(_transitions))
    assert "scan-10" in told
    assert "secret" not in told


def _transitions(dask_scheduler: Any) -> list[Any]:
    return list(dask_scheduler.transition_log)
