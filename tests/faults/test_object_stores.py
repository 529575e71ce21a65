"""A cohort on a real S3 server that is busy, breaks off, restarts, or takes away the right to write."""

import threading
from collections.abc import Callable, Iterator
from itertools import count
from uuid import uuid4

import pytest

from qsm_dask.engine import SerialEngine
from qsm_dask.errors import StoreError
from qsm_dask.pipeline import Pipeline
from qsm_dask.place import Place
from qsm_dask.store import CohortStore
from qsm_dask.store.files import files_at
from qsm_dask.workflow import process
from tests.engine.processes import eventually
from tests.faults.study import PIPELINE, ROOM, Faults, Study, finish, start
from tests.real_parts.faulty import FaultyProxy, Rule
from tests.real_parts.seaweed import Seaweed


@pytest.fixture
def proxy(s3: Seaweed, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """Between this process and the server."""
    with FaultyProxy(s3.endpoint) as between:
        for name, value in {**s3.environment, "AWS_ENDPOINT_URL": between.endpoint}.items():
            monkeypatch.setenv(name, value)
        yield between


@pytest.fixture
def remote(study: Study, proxy: FaultyProxy) -> CohortStore:
    """Ingested, and no more."""
    place = Place.parse(f"s3://cohorts/{uuid4().hex}")
    files = files_at(place)
    paths = [path for path in study.ingested.rglob("*") if path.is_file()]
    files.put_all((path.relative_to(study.ingested).as_posix(), path.read_bytes()) for path in paths)
    return CohortStore.open(place.url)


def run(cohort: CohortStore) -> process.Summary:
    return process.run(cohort, SerialEngine(ROOM), Pipeline.from_yaml(PIPELINE))


def every(number: int, method: str) -> Callable[[str, str], bool]:
    """Every so many-th request of a method to an object, or to a listing."""
    counts = count(1)
    return lambda called, _path: called == method and next(counts) % number == 0


@pytest.mark.parametrize(
    ("act", "method"),
    [
        (503, "PUT"),
        (429, "GET"),
        ("forget", "PUT"),
        ("tear", "GET"),
        *(pytest.param(*more, marks=pytest.mark.slow) for more in ((503, "GET"), (500, "PUT"), (500, "GET"))),
        *(pytest.param(*more, marks=pytest.mark.slow) for more in ((429, "PUT"), ("refuse", "PUT"), ("refuse", "GET"))),
    ],
)
def test_a_provider_that_fails_now_and_then(
    study: Study, remote: CohortStore, proxy: FaultyProxy, act: int | str, method: str
) -> None:
    """Requests are repeated; the run does not notice, and nothing is computed twice."""
    proxy.rule = Rule(act, every(5, method))
    summary = run(remote)
    proxy.rule = None
    assert proxy.made[act] >= 5
    assert (summary.done, summary.failures, summary.computed) == (3, {}, 9)
    study.assert_whole(remote)


def test_a_provider_that_fails_for_long(
    study: Study, remote: CohortStore, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scan whose result cannot be written is a row with the reason; the next run goes on from there."""
    monkeypatch.setattr("qsm_dask.objectstore.PATIENCE_S", 1.0)
    cohort = CohortStore.open(str(remote.place))
    proxy.rule = Rule(503, lambda method, path: method == "PUT" and "/sub-02/maps/" in path)
    summary = run(cohort)
    proxy.rule = None
    assert (summary.done, list(summary.failures)) == (2, ["sub-02"])
    assert "is the server reachable? Then run the same command again" in summary.failures["sub-02"]
    rows = {(row.scan, row.node): row for row in remote.index().itertuples()}
    assert rows["sub-02", "maps"].state == "failed"
    assert rows["sub-02", "maps"].reason == summary.failures["sub-02"]
    assert run(remote).computed == 2
    study.assert_whole(remote)


def test_a_right_that_is_taken_away(study: Study, remote: CohortStore, proxy: FaultyProxy, faults: Faults) -> None:
    """Credentials that expire in mid-run end it in one line that says so, without a trace of them."""
    writes = count(1)
    proxy.rule = Rule(403, lambda method, _path: method == "PUT" and next(writes) > 20)
    command = ("process", remote.place, "--pipeline", PIPELINE, "--cluster", "serial", "--quiet")
    _, complaints = finish(start(faults, *command), 1)
    proxy.rule = None
    last = complaints.splitlines()[-1]
    assert "access is denied; check the credentials in the environment" in last
    assert "Traceback" not in complaints
    assert "test-secret" not in complaints
    finish(start(faults, *command))
    study.assert_whole(remote)


def test_wrong_credentials(remote: CohortStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are told at once, and not tried for as long as a server that is away."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreError, match="access is denied; check the credentials in the environment"):
        CohortStore.open(str(remote.place))


@pytest.mark.slow
def test_a_server_that_is_killed_and_comes_back(
    study: Study, remote: CohortStore, proxy: FaultyProxy, s3: Seaweed, faults: Faults
) -> None:
    """The run waits for it in the midst of its writes; what was written is there still."""
    faults.arm("maps: attempt written", "hold", scan="sub-02")
    command = ("process", remote.place, "--pipeline", PIPELINE, "--cluster", "serial", "--quiet")
    run = start(faults, *command)
    eventually(lambda: faults.met() or run.poll() is not None, 60)
    s3.kill()
    faults.release()
    restart = threading.Timer(3.0, s3.start)
    restart.start()
    finish(run, seconds=240)
    restart.join()
    study.assert_whole(remote)
    assert faults.steps() == study.once()
