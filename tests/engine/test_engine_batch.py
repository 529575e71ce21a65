"""What each batch system would be given, line by line as its manual wants it; nothing is submitted."""

import re
import subprocess
import sys
from typing import Any

import pytest

from qsm_dask import resources
from qsm_dask.engine import parse, read_spec
from qsm_dask.engine.sizing import seconds
from qsm_dask.errors import ConfigError

OPTIONS: dict[str, Any] = {"memory": "6000 MiB", "threads_per_worker": 2, "scratch": "/scratch", "logs": None}
TIMED: dict[str, Any] = {**OPTIONS, "queue": "long", "account": "p7", "walltime": "1 day", "retire_before": "20 m"}


def script(kind: str, **options: Any) -> str:
    return parse({"kind": kind, **options}).describe()


@pytest.mark.parametrize(
    ("kind", "options", "lines"),
    [
        (
            "slurm",
            {**TIMED, "directives": ["--constraint=ib"]},
            ["#SBATCH -p long", "#SBATCH -A p7", "#SBATCH -n 1", "#SBATCH --cpus-per-task=2", "#SBATCH --mem=6000M",
             "#SBATCH -t 24:00:00", "#SBATCH --constraint=ib"],
        ),
        (
            "pbs",
            {**TIMED, "directives": ["-j oe"]},
            ["#PBS -q long", "#PBS -A p7", "#PBS -l select=1:ncpus=2:mem=6000MB", "#PBS -l walltime=24:00:00",
             "#PBS -j oe"],
        ),
        ("pbs", {**TIMED, "resources": "nodes=1:ppn=2,mem=6gb"}, ["#PBS -l nodes=1:ppn=2,mem=6gb"]),
        (
            "sge",
            {**TIMED, "resources": "h_vmem=3000M", "directives": ["-pe smp 2"]},
            ["#$ -q long", "#$ -P p7", "#$ -l h_vmem=3000M", "#$ -l h_rt=24:00:00", "#$ -pe smp 2"],
        ),
        (
            "lsf",
            {**TIMED, "memory_units": "mb", "directives": ["-R ib"]},
            ["#BSUB -q long", '#BSUB -P "p7"', "#BSUB -n 2", '#BSUB -R "span[hosts=1]"', "#BSUB -M 6292",
             "#BSUB -W 24:00", "#BSUB -R ib"],
        ),
        (
            "htcondor",
            {**OPTIONS, "disk": "3 GB", "directives": ["requirements = HasIB"]},
            ["MY.DaskWorkerCores = 2", "MY.DaskWorkerMemory = 6291456000", "MY.DaskWorkerDisk = 3000000000",
             "requirements = HasIB", "Queue"],
        ),
    ],
)  # fmt: skip
def test_job_script(kind: str, options: dict[str, Any], lines: list[str]) -> None:
    found = script(kind, **options).splitlines()
    assert [line for line in lines if line not in found] == []


@pytest.mark.parametrize("kind", ["slurm", "pbs", "sge", "lsf", "htcondor"])
def test_every_worker_runs_one_task_and_is_shut_to_others(kind: str) -> None:
    options = {**OPTIONS, "prologue": ["module load python"], "python": "/opt/py"}
    found = script(kind, **options)
    said = dict(re.findall(r"--([a-z-]+) (\S+)", found))  # of what is said twice, the last counts
    assert said["nthreads"] == "1"
    assert said["memory-limit"] == str(6000 * 2**20 - 256 * 2**20)
    assert said["dashboard-address"] == "127.0.0.1:0"
    assert said["local-directory"] == "/scratch"
    assert said["protocol"] == "tls://"
    assert said["preload"] == "qsm_dask.engine.preload"
    assert {"tls-ca-file", "tls-cert", "tls-key"} <= set(said)
    assert "/opt/py -m distributed.cli.dask_worker tls://" in found
    for line in ("module load python", "OMP_NUM_THREADS=2", "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION=True"):
        assert line in found
    assert "DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE=False" in found
    assert "PRIVATE KEY" not in found


def test_without_tls_nothing_is_said_of_it() -> None:
    assert "tls" not in script("slurm", tls=False)


def test_a_worker_retires_between_the_time_told_and_half_of_it_before_the_end() -> None:
    found = re.search(r"--lifetime (\d+)s --lifetime-stagger (\d+)s", script("slurm", walltime="10:00:00"))
    assert found is not None
    life, stagger = map(int, found.groups())
    assert (life - stagger, life + stagger) == (36000 - 600, 36000 - 300)
    assert "--lifetime" not in script("htcondor")


def test_yaml_reads_a_time_without_quotes_as_seconds(tmp_path: Any) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("kind: slurm\nwalltime: 12:00:00\n")
    assert "#SBATCH -t 12:00:00" in parse(read_spec(path)).describe()


@pytest.mark.parametrize(
    ("value", "expected"), [("90 s", 90), (90, 90), ("4h", 14400), ("2 days", 172800), ("01:02:03", 3723)]
)
def test_seconds(value: str | int, expected: int) -> None:
    assert seconds("walltime", value) == expected


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "slurm", "wall_time": "4 h"}, "option 'wall_time' is unknown: did you mean 'walltime'"),
        ({"kind": "htcondor", "queue": "long"}, "option 'queue' is unknown"),
        ({"kind": "slurm", "walltime": "soon"}, "walltime 'soon' is not a time"),
        ({"kind": "slurm", "walltime": "0 s"}, "walltime is a time above zero"),
        ({"kind": "slurm", "walltime": "15 m"}, "less than twice `retire_before`"),
        ({"kind": "slurm", "memory": "600 MiB"}, "has no room for a scan"),
        ({"kind": "slurm", "memory": "much"}, "'much' is not a size"),
        ({"kind": "slurm", "jobs": 0}, "jobs is a whole number"),
        ({"kind": "slurm", "jobs": 4, "least_jobs": 5}, "least_jobs is from 0 to `jobs`"),
        ({"kind": "slurm", "prologue": "module load python"}, "prologue is a list of lines"),
        ({"kind": "htcondor", "directives": ["HasIB"]}, "'HasIB' of HTCondor is not of the form"),
        ({"kind": "running"}, "address None is not that of a scheduler"),
        ({"kind": "running", "address": "http://a:1"}, "is not that of a scheduler"),
        ({"kind": "running", "address": "tcp://a:1", "cert": "x.pem"}, "tcp:// does not use them"),
    ],
)
def test_a_wrong_description_is_refused_before_anything_is_submitted(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse(spec).describe()


def test_an_address_is_a_description() -> None:
    assert "tls://node7:8786 (encrypted)" in parse(read_spec("tls://node7:8786")).describe()
    assert "NOT encrypted" in parse(read_spec("tcp://node7:8786")).describe()


@pytest.mark.parametrize("name", [name for name in resources.names("cluster") if name != "running"])
def test_shipped_files_can_be_checked(name: str) -> None:
    assert parse(read_spec(name)).describe()


def test_importing_the_batch_library_leaves_ctrl_c_alone() -> None:
    """Its module sets a handler of its own; in a fresh process, as it is imported once only."""
    code = (
        "import signal; from qsm_dask.engine import parse; "
        "parse({'kind': 'slurm', 'memory': '4 GiB', 'shared_folder': '.'}).classes(); "
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
