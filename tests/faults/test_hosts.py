"""Workers, their nannies, the scheduler and the links between hosts, each lost in mid-run."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from qsm_dask.store import CohortStore
from tests.engine.processes import eventually, running
from tests.faults.study import PIPELINE, ROOT, Faults, Study, finish, start
from tests.real_parts import need_rights
from tests.real_parts.hosts import Dask, Hosts, links_are_here, worker_of

VICTIM = "sub-02"
STAGE = "inversion.tkd"


@pytest.fixture
def dask(faults: Faults, tmp_path: Path) -> Iterator[Dask]:
    (tmp_path / "dask").mkdir()
    with Dask(tmp_path / "dask", faults.environment) as parts:
        yield parts


def command(cohort: CohortStore, address: str) -> list[str]:
    return ["process", str(cohort.place), "--pipeline", PIPELINE, "--cluster", address, "--json"]


def holder(faults: Faults, *nannies: "subprocess.Popen[bytes]") -> "subprocess.Popen[bytes]":
    """The nanny whose worker met the armed fault."""
    eventually(faults.met, 90)
    [pid] = faults.meeters()
    return next(nanny for nanny in nannies if (worker := worker_of(nanny)) is not None and worker.pid == pid)


def test_a_nanny_is_lost(study: Study, cohort: CohortStore, faults: Faults, dask: Dask) -> None:
    """Its worker ends with it, and the scan goes on from its last commit on the other one."""
    faults.arm(f"step {STAGE}", "hang", scan=VICTIM)
    dask.start_scheduler()
    nannies = [dask.start_worker(name) for name in ("one", "two")]
    run = start(faults, *command(cohort, dask.address))
    lost = holder(faults, *nannies)
    worker = worker_of(lost)
    lost.send_signal(signal.SIGKILL)
    out, _ = finish(run)
    assert json.loads(out)["done"] == 3
    assert not running([worker.pid] if worker else [])
    study.assert_whole(cohort)
    assert faults.steps() - study.once() == Counter([(VICTIM, STAGE)])


def test_the_scheduler_is_lost(study: Study, cohort: CohortStore, faults: Faults, dask: Dask) -> None:
    """The command ends with what to do; with another scheduler it goes on from what is committed."""
    faults.arm(f"step {STAGE}", "hang", scan=VICTIM)
    scheduler = dask.start_scheduler()
    nannies = [dask.start_worker(name) for name in ("one", "two")]
    run = start(faults, *command(cohort, dask.address), DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT="2s")
    holder(faults, *nannies)
    eventually(lambda: faults.steps()[("sub-03", "roi.statistics")], 60)
    scheduler.send_signal(signal.SIGKILL)
    _, complaints = finish(run, 1)
    assert complaints == "error: the scheduler was lost: run the command again; what is committed is kept\n"
    for nanny in nannies:
        nanny.terminate()
    dask.start_scheduler()
    dask.start_worker("three")
    out, _ = finish(start(faults, *command(cohort, dask.address)))
    told = json.loads(out)
    assert (told["done"], told["nodes_computed"]) == (3, 2)
    study.assert_whole(cohort)
    assert faults.steps() - study.once() == Counter([(VICTIM, STAGE)])


@pytest.mark.slow
def test_a_link_between_hosts_is_cut(study: Study, cohort: CohortStore, faults: Faults, dask: Dask) -> None:
    """The cut worker is given up and its scan runs elsewhere; if it commits the same node later, that harms nobody."""
    need_rights("making hosts with links to cut", granted=links_are_here())
    faults.arm("maps: attempt verified", "hold", scan=VICTIM)
    impatient = {
        "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "10s",
        "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s",
    }
    with Hosts("head", "n1", "n2").up() as hosts:
        dask.environment = {**dask.environment, **impatient}
        dask.host, dask.inside = hosts.address("head"), hosts.inside("head")
        dask.start_scheduler()
        names = ("n1", "n2")
        nannies = {name: dask.start_worker(name, hosts.address(name), hosts.inside(name)) for name in names}
        run = subprocess.Popen(
            [*hosts.inside("head"), sys.executable, "-m", "qsm_dask", *command(cohort, dask.address)],
            cwd=ROOT, env={**os.environ, **faults.environment, **impatient},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        lost = holder(faults, *nannies.values())
        hosts.cut(next(name for name, nanny in nannies.items() if nanny is lost))
        out, complaints = finish(run, seconds=180)
        assert json.loads(out)["done"] == 3, complaints
        study.assert_whole(cohort)
        assert faults.steps() - study.once() == study.once("maps", scan=VICTIM)
        [pid], [marker] = faults.meeters(), Path(str(cohort.place)).glob(f"scans/{VICTIM}/maps/*/COMMIT.json")
        before = marker.read_bytes()
        faults.release()
        eventually(lambda: marker.read_bytes() != before or not running([pid]), 30)
    study.assert_whole(cohort)
