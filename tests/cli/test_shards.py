"""`process --shard`: jobs without Dask that share one cohort and nothing else."""

import json
import subprocess
import sys

import pytest

from qsm_dask.store import CohortStore
from qsm_dask.workflow import ingest
from tests.cli.conftest import ENGINE, digests, labels

_WATCHED = """
import sys
from qsm_dask.cli import main
sys.argv = ["qsm-dask", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    sys.exit("Dask was loaded" if "distributed" in sys.modules else end.code)
"""


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.slow)])
def cohort(request, bids, tmp_path) -> CohortStore:
    """Two scans, ingested and no more."""
    place = tmp_path / "cohort" if request.param == "folder" else request.getfixturevalue("s3_url")
    store = CohortStore.create(place)
    ingest.run(bids, store, ENGINE, derivatives=labels(bids)[1:])
    return store


def start(*arguments) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", _WATCHED, *map(str, arguments), "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_parts_run_at_once_make_the_cohort_of_one_run(told, study, cohort):
    """Each in a process of its own, two of the same part among them, as when a job is requeued by mistake."""
    jobs = [start("process", cohort.place, "--shard", part) for part in ("1/2", "2/2", "2/2")]
    for job in jobs:
        out, err = job.communicate(timeout=300)
        assert job.returncode == 0, err
        assert json.loads(out)["done"] == 1
    assert told("compare", cohort.place)["with_values"] == 2
    assert digests(told("status", cohort.place)) == digests(told("status", study.place))
    assert told("verify", cohort.place) == []
    again = told("process", cohort.place, "--shard", "1/1")
    assert (again["done"], again["nodes_computed"], again["nodes_reused"]) == (2, 0, 6)


def test_a_part_without_scans_is_no_failure(told, study):
    assert told("process", study.place, "--shard", "3/3")["done"] == 0


def test_a_part_that_is_none_is_wrong_usage(qsm, study):
    code, _, err = qsm("process", study.place, "--shard", "0/3")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "give i/N, the i-th of N parts counted from 1" in err
