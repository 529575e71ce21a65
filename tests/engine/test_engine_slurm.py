"""Jobs of a real SLURM with two nodes: submitted, shut to others, replaced, and cancelled."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
from distributed import Client

from qsm_dask.engine import open_engine
from qsm_dask.engine.dask import DaskEngine
from tests.engine.processes import eventually
from tests.engine.tasks import Script, no_memory
from tests.real_parts.slurm import Slurm, jobs_of_two_nodes

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


class Where(Script):
    """Answers with the job that it ran in."""

    def answer(self, key: str) -> Any:
        return os.environ["SLURM_JOB_ID"]


def test_jobs_are_submitted_shut_to_others_and_cancelled(slurm: Slurm, tmp_path: Path) -> None:
    with open_engine(jobs_of_two_nodes(tmp_path)) as engine:
        assert isinstance(engine, DaskEngine)
        engine.client.wait_for_workers(2, timeout=60)
        assert set(slurm.jobs().values()) == {"n1", "n2"}
        workers = engine.client.scheduler_info(n_workers=-1)["workers"]
        assert {(worker["nthreads"], worker["memory_limit"]) for worker in workers.values()} == {(1, 2244 * 2**20)}
        open_to = [
            listening(),
            *engine.client.run(listening).values(),
            *engine.client.run(listening, nanny=True).values(),
        ]
        assert all(found == {"127.0.0.1"} for found in open_to if found)
        [folder] = tmp_path.glob(".qsm-dask-*")
        assert folder.stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
        address = engine.client.scheduler_info()["address"]
        assert address.startswith("tls://")
        with pytest.raises((OSError, TypeError, ValueError)):
            Client(address.replace("tls://", "tcp://"), timeout=1, set_as_default=False)
        outcomes = list(engine.map(Where(tmp_path), ["a", "b", "c", "d"], memory=no_memory))
        assert {outcome.value for outcome in outcomes} <= set(slurm.jobs())
    assert not slurm.jobs()
    assert not list(tmp_path.glob(".qsm-dask-*"))


def listening() -> set[str]:
    """Addresses on which this process may be reached."""
    return {at.laddr.ip for at in psutil.Process().net_connections("inet") if at.status == psutil.CONN_LISTEN}


def test_workers_leave_before_their_time_is_over_and_others_take_their_place(slurm: Slurm, tmp_path: Path) -> None:
    brief = jobs_of_two_nodes(tmp_path, jobs=1, walltime="8 s", retire_before="4 s")
    keys = [f"k{number}" for number in range(30)]
    with open_engine(brief) as engine:
        outcomes = list(engine.map(Where(tmp_path, pause_s=0.4), keys, memory=no_memory))
    assert [outcome.error for outcome in outcomes if not outcome.ok] == []
    assert {outcome.attempts for outcome in outcomes} == {1}
    assert len({outcome.value for outcome in outcomes}) >= 2


def test_a_scan_killed_for_memory_gets_a_job_of_twice_the_memory(slurm: Slurm, tmp_path: Path) -> None:
    script = Where(tmp_path, acts={"gourmet": ("feast",)})
    with open_engine(jobs_of_two_nodes(tmp_path, jobs=1, memory="1280 MiB")) as engine:
        [outcome] = engine.map(script, ["gourmet"], memory=no_memory)
        assert (outcome.ok, outcome.attempts) == (True, 2), outcome.error
        eventually(lambda: len(slurm.jobs()) == 1)  # the larger one is given back


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_job_outlives_its_driver(slurm: Slurm, tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "tests.engine.driver", "hang", json.dumps(jobs_of_two_nodes(tmp_path))]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT)
    assert driver.stdout is not None
    assert len(driver.stdout.readline().split()) == 2
    assert len(slurm.jobs()) == 2
    driver.send_signal(number)
    driver.communicate(timeout=30)
    eventually(lambda: not slurm.jobs(), 90)  # without a driver to cancel them, workers miss it by themselves
