"""A node of a real SLURM dies, or a job's walltime ends, in mid-scan."""

import json
import subprocess
from collections import Counter
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from qsm_dask.store import CohortStore
from tests.engine.processes import eventually
from tests.faults.study import PIPELINE, Faults, Study, finish, start
from tests.real_parts.slurm import Slurm, jobs_of_two_nodes

pytestmark = pytest.mark.slow
VICTIM, STAGE = "sub-02", "inversion.tkd"


@pytest.fixture
def run(slurm: Slurm, cohort: CohortStore, faults: Faults, tmp_path: Path) -> "subprocess.Popen[str]":
    """A run in two jobs, one of which hangs in a step; it is the one that a test takes away."""
    faults.arm(f"step {STAGE}", "hang", scan=VICTIM)
    cluster = tmp_path / "cluster.json"
    cluster.write_text(json.dumps(jobs_of_two_nodes(tmp_path)))
    begun = start(faults, "process", cohort.place, "--pipeline", PIPELINE, "--cluster", cluster, "--json")
    eventually(lambda: faults.met() or begun.poll() is not None, 120)
    assert begun.poll() is None, begun.communicate()
    return begun


def job_of(faults: Faults) -> str:
    """In which job the fault was met."""
    [pid] = faults.meeters()
    return str(psutil.Process(pid).environ()["SLURM_JOB_ID"])


def assert_survived(study: Study, cohort: CohortStore, faults: Faults, run: "subprocess.Popen[str]") -> str:
    """The scan went on elsewhere from its last commit; what the command complained of."""
    out, complaints = finish(run, seconds=180)
    told = json.loads(out)
    assert (told["done"], told["failed"]) == (3, 0)
    study.assert_whole(cohort)
    assert faults.steps() - study.once() == Counter([(VICTIM, STAGE)])
    return complaints


def test_a_node_dies(
    study: Study, cohort: CohortStore, faults: Faults, slurm: Slurm, run: "subprocess.Popen[str]"
) -> None:
    node = slurm.jobs()[job_of(faults)]
    slurm.kill_node(node)
    assert "it will run again, alone" in assert_survived(study, cohort, faults, run)
    slurm.revive_node(node)


def test_the_walltime_of_a_job_ends(
    study: Study, cohort: CohortStore, faults: Faults, slurm: Slurm, run: "subprocess.Popen[str]"
) -> None:
    """Its worker leaves in order, so nobody is charged with a death, and another job takes its place."""
    job = job_of(faults)
    slurm.end_walltime(job)
    eventually(lambda: "JobState=TIMEOUT" in slurm.command("scontrol", "show", "job", job), 60)
    assert assert_survived(study, cohort, faults, run) == ""
