"""Jobs of a real SLURM with two nodes: results of the serial run, whatever happens to a node."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
import yaml
from distributed import Client

from qsm_dask.engine import open_engine
from qsm_dask.engine.dask import DaskEngine
from tests.engine.processes import eventually
from tests.engine.tasks import Script, no_memory
from tests.real_parts import need
from tests.real_parts.slurm import Slurm, is_here

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    need("SLURM", "run tests/real_parts/install.sh as root, and the tests too", found=is_here())
    with Slurm(tmp_path_factory.mktemp("slurm")) as system, pytest.MonkeyPatch.context() as patch:
        for name, value in system.environment.items():
            patch.setenv(name, value)
        yield system


def spec(folder: Path, **options: Any) -> dict[str, Any]:
    """Two jobs, one for each node: two do not fit a node's 4000 MiB."""
    common = {"jobs": 2, "memory": "2500 MiB", "interface": "lo", "replace_after": "2 s"}
    return {"kind": "slurm", "shared_folder": str(folder), "logs": str(folder / "logs"), **common, **options}


class Where(Script):
    """Answers with the job that it ran in."""

    def answer(self, key: str) -> Any:
        return os.environ["SLURM_JOB_ID"]


def test_jobs_are_submitted_shut_to_others_and_cancelled(slurm: Slurm, tmp_path: Path) -> None:
    with open_engine(spec(tmp_path)) as engine:
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
    brief = spec(tmp_path, jobs=1, walltime="8 s", retire_before="4 s")
    keys = [f"k{number}" for number in range(30)]
    with open_engine(brief) as engine:
        outcomes = list(engine.map(Where(tmp_path, pause_s=0.4), keys, memory=no_memory))
    assert [outcome.error for outcome in outcomes if not outcome.ok] == []
    assert {outcome.attempts for outcome in outcomes} == {1}
    assert len({outcome.value for outcome in outcomes}) >= 2


def test_a_scan_killed_for_memory_gets_a_job_of_twice_the_memory(slurm: Slurm, tmp_path: Path) -> None:
    script = Where(tmp_path, acts={"gourmet": ("feast",)})
    with open_engine(spec(tmp_path, jobs=1, memory="1280 MiB")) as engine:
        [outcome] = engine.map(script, ["gourmet"], memory=no_memory)
        assert (outcome.ok, outcome.attempts) == (True, 2), outcome.error
        eventually(lambda: len(slurm.jobs()) == 1)  # the larger one is given back


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_job_outlives_its_driver(slurm: Slurm, tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "tests.engine.driver", "hang", json.dumps(spec(tmp_path))]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT)
    assert driver.stdout is not None
    assert len(driver.stdout.readline().split()) == 2
    assert len(slurm.jobs()) == 2
    driver.send_signal(number)
    driver.communicate(timeout=30)
    eventually(lambda: not slurm.jobs(), 90)  # without a driver to cancel them, workers miss it by themselves


def test_a_cohort_of_the_same_bits_though_a_node_dies(slurm: Slurm, study: Path, tmp_path: Path) -> None:
    cohort, cluster = tmp_path / "cohort", tmp_path / "mine.yaml"
    cluster.write_text(yaml.safe_dump(spec(tmp_path)))
    run = start("run", study / "bids", cohort, "--cluster", cluster, "--json")
    eventually(lambda: list(cohort.glob("scans/*/field/*/COMMIT.json")) or run.poll() is not None, 120)
    assert sorted(slurm.jobs().values()) == ["n1", "n2"]
    slurm.kill_node("n1")
    said, complaints = run.communicate(timeout=120)
    assert run.returncode == 0, complaints
    summary = json.loads(said)
    assert (summary["done"], summary["failed"]) == (4, 0)
    assert "it will run again, alone" in complaints
    assert digests(cohort) == digests(study / "serial")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    shape = ("32", "32", "24")
    for arguments in (
        ("simulate", folder / "bids", "--subjects", 4, "--shape", *shape),
        ("run", folder / "bids", folder / "serial"),
    ):
        done = start(*arguments, "--cluster", "serial", "--quiet")
        _, complaints = done.communicate(timeout=300)
        assert done.returncode == 0, complaints
    return folder


def start(*arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "qsm_dask", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def digests(cohort: Path) -> Mapping[tuple[str, str], str]:
    told = start("status", cohort, "--json").communicate(timeout=60)[0]
    found = {(row["scan"], row["node"]): row["digest"] for row in json.loads(told)}
    assert len(found) == 16
    return found
