"""Worn workers are started anew between scans, and no scan pays for it."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from distributed import KilledWorker

from qsm_dask.engine import Outcome, open_engine
from qsm_dask.engine.base import Record
from qsm_dask.engine.departures import Departures
from qsm_dask.engine.job import Job, Start
from qsm_dask.engine.window import Window
from qsm_dask.errors import ConfigError
from tests.engine.tasks import Script, no_memory

KEYS = [letter * (1 + number % 3) for number, letter in enumerate("abcdefgh")]


def run(spec: dict[str, Any], script: Script, keys: list[str] = KEYS) -> tuple[list[Outcome], list[int]]:
    with open_engine({"kind": "local", "memory": "1 GiB", **spec}) as engine:
        outcomes = list(engine.map(script, keys, memory=no_memory))
    return outcomes, [pid for key in keys for pid in script.pids(key)]


def assert_whole(outcomes: list[Outcome], script: Script, keys: list[str] = KEYS) -> None:
    assert sorted(outcome.key for outcome in outcomes) == sorted(keys)
    assert all(outcome.ok and outcome.attempts == 1 for outcome in outcomes)
    assert [script.count(key) for key in keys] == [1] * len(keys), "a scan ran twice"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_ends_after_so_many_scans_and_none_is_lost_or_tried_again(workers: int, script: Script) -> None:
    outcomes, pids = run({"workers": workers, "recycle_scans": 3}, script)
    assert_whole(outcomes, script)
    assert max(pids.count(pid) for pid in pids) == 3
    assert len(set(pids)) >= len(KEYS) // 3


def test_a_worker_ends_when_its_memory_has_grown(script: Script) -> None:
    keys = ["first", "hoarder", "third", "fourth"]
    outcomes, pids = run(
        {"workers": 1, "recycle_growth": "100 MiB"}, replace(script, acts={"hoarder": ("hoard",)}), keys
    )
    assert_whole(outcomes, script, keys)
    assert pids[0] == pids[1] != pids[2] == pids[3]


def test_a_scan_that_hoards_first_is_the_measure_of_what_follows(script: Script) -> None:
    keys = ["hoarder", "second", "third"]
    outcomes, pids = run(
        {"workers": 1, "recycle_growth": "100 MiB"}, replace(script, acts={"hoarder": ("hoard",)}), keys
    )
    assert_whole(outcomes, script, keys)
    assert len(set(pids)) == 1


@pytest.mark.parametrize("options", [{"recycle_scans": 0}, {"recycle_growth": "much"}])
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], script: Script) -> None:
    with pytest.raises(ConfigError):
        run({"workers": 1, **options}, script)


def window() -> Window:
    """Of an engine that is told one worker was worn, at an address that others will have too."""
    client: Any = SimpleNamespace(status="running", subscribe_topic=lambda *_: None)
    departures = Departures(client)
    departures.recycled.add("tcp://node:1")
    engine: Any = SimpleNamespace(client=client, departures=departures, slots=1, maps={}, patience_s=1.0, larger=None)
    return Window(engine, len, iter(()), no_memory, 0, None)


def test_a_scan_is_lost_to_worn_workers_for_free_a_few_times_and_then_runs_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    submitted: list[Job] = []
    monkeypatch.setattr(Window, "_submit", lambda self, job: submitted.append(job))
    waiting, job = window(), Job("aa")
    last: Any = SimpleNamespace(address="tcp://node:1")
    for _ in range(4):
        assert not list(waiting._bury(job, KilledWorker("aa", last, 0)))
    assert submitted == [job] * 3
    assert list(waiting.suspects) == [job]
    assert job.deaths == 0


def test_a_worn_worker_is_forgotten_when_a_scan_begins_at_its_address() -> None:
    waiting = window()
    waiting.running[0] = Job("aa", number=0)
    waiting.events.put((0, Start("tcp://node:1", 0.0)))
    waiting.events.put((0, (Record(True, 2), "tcp://node:1")))
    assert [one.value for one in waiting.outcomes()] == [2]
    assert not waiting.engine.departures.recycled
