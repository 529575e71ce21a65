"""Worn workers are started anew between scans, and no scan pays for it."""

from dataclasses import replace
from typing import Any

import pytest

from qsm_dask.engine import Outcome, open_engine
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
