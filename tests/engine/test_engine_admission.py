"""Who may work: packages and versions are looked at before the first scan, and when a worker joins later."""

import logging
import os
import re
import subprocess
import sys

import pytest
from distributed import Client
from distributed.comm import CommClosedError

from qsm_dask.engine import Engine, open_engine
from qsm_dask.engine.dask import DaskEngine
from qsm_dask.engine.suited import suited_workers
from qsm_dask.errors import ConfigError, EngineError
from tests.engine.processes import eventually
from tests.engine.tasks import Script, no_memory
from tests.engine.test_engine_running import cluster


def test_a_package_that_is_not_there_is_told_before_any_scan_runs(engine: Engine) -> None:
    engine.require({"json": "anatomy"})
    with pytest.raises(ConfigError, match=r"no_such_package: pip install 'qsm-dask\[anatomy\]'"):
        engine.require({"json": "anatomy", "no_such_package": "anatomy"})


def test_a_worker_that_cannot_be_reached_lacks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have gone a moment ago; if it comes back, it is looked at as it joins."""
    with cluster(n_workers=1) as made, Client(made) as client:
        engine = DaskEngine(client, slots=1, limit=2**30)
        ask = client.run
        gone = {"tcp://127.0.0.1:9": CommClosedError("gone")}
        monkeypatch.setattr(client, "run", lambda *given, **options: {**ask(*given, **options), **gone})
        engine.require({"json": "anatomy"})
        assert len(suited_workers(client, "the scheduler", 10.0)) == 1
        with pytest.raises(ConfigError, match="no_such_package"):
            engine.require({"no_such_package": "anatomy"})


def joined(address: str, **environment: str) -> "subprocess.Popen[bytes]":
    """A worker that joins late."""
    options = ("--nthreads", "1", "--memory-limit", "1 GiB", "--host", "127.0.0.1", "--no-dashboard")
    command = [sys.executable, "-m", "distributed.cli.dask_worker", address, *options]
    command += ["--preload", "tests.engine.stranger", "--death-timeout", "30"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, env={**os.environ, **environment}, **quiet)


@pytest.mark.parametrize(
    ("environment", "fault"),
    [
        ({"STRANGER_VERSION": "99.9"}, r"has qsm_dask 99\.9: install version"),
        ({"STRANGER_LACKS": "colorsys"}, "lacks colorsys: pip install"),
    ],
)
def test_a_worker_that_joins_late_and_does_not_suit_leaves_again(
    script: Script, caplog: pytest.LogCaptureFixture, environment: dict[str, str], fault: str
) -> None:
    keys = [letter * 2 for letter in "abcdefgh"]
    with (
        caplog.at_level(logging.WARNING, "qsm_dask"),
        cluster(n_workers=1) as made,
        open_engine({"kind": "running", "address": made.scheduler_address}) as engine,
    ):
        engine.require({"colorsys": "anatomy"})
        outcomes = engine.map(script, keys, memory=no_memory)
        first = next(outcomes)
        late = joined(made.scheduler_address, **environment)
        try:
            assert late.wait(60) != 0
        finally:
            late.kill()
        rest = list(outcomes)
        worker = next(iter(made.workers.values()))
        assert {pid for key in keys for pid in script.pids(key)} == {worker.pid}
    assert all(outcome.ok and outcome.attempts == 1 for outcome in [first, *rest])
    assert any("does not take part" in one.message for one in caplog.records)
    assert caplog.text.count("does not take part") == 1
    assert re.search(fault, caplog.text)


def test_a_run_ends_when_nobody_who_comes_suits(script: Script) -> None:
    with cluster(n_workers=0) as made, Client(made) as client:
        engine = DaskEngine(client, slots=1, limit=2**30, patience_s=0.5)
        late = joined(made.scheduler_address, STRANGER_VERSION="99.9")
        try:
            eventually(lambda: engine.departures.refused)
            with pytest.raises(EngineError, match=r"no worker suits: the last that came has qsm_dask 99\.9"):
                list(engine.map(script, ["aa"], memory=no_memory))
        finally:
            late.kill()
            late.wait()


@pytest.mark.parametrize("killed", [False, True])
def test_a_scheduler_is_left_open_to_everybody(killed: bool) -> None:
    """By a run that ends in order, and by one that is gone without a word: its connection breaks, and that is all."""
    with cluster(n_workers=0) as made, Client(made) as client:
        with Client(made) as driver:
            engine = DaskEngine(driver, slots=1, limit=2**30)
            if not killed:
                engine.release()
        late = joined(made.scheduler_address, STRANGER_VERSION="99.9")
        try:
            assert client.submit(int, "7").result(timeout=30) == 7
        finally:
            late.kill()
            late.wait()
