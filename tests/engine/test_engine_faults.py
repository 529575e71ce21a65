"""What a dying worker may cost: the scan it ran, once more; its neighbours, nothing."""

import os
import re
import signal
import threading
import time
from dataclasses import replace
from typing import Any

import dask
import pytest

from qsm_dask.engine import Outcome, open_engine
from qsm_dask.engine.dask import DaskEngine
from qsm_dask.engine.resources import Machine
from qsm_dask.errors import EngineError
from tests.engine.processes import eventually, running
from tests.engine.tasks import Script, no_memory

NEIGHBOURS = ["a", "bb", "ccc", "dddd", "eeeee", "ffffff", "ggggggg", "hhhhhhhh"]
LONE = {"kind": "local", "workers": 1, "memory": "1 GiB"}


def run(engine: DaskEngine, script: Script, keys: list[str], **options: Any) -> dict[str, Outcome]:
    outcomes = {o.key: o for o in engine.map(script, keys, memory=no_memory, **options)}
    assert sorted(outcomes) == sorted(keys)
    return outcomes


def assert_untouched(outcomes: dict[str, Outcome]) -> None:
    for key in NEIGHBOURS:
        assert outcomes[key].ok
        assert outcomes[key].value == len(key) ** 2
        assert outcomes[key].attempts == 1, "a neighbour was charged with a death"


def test_a_scan_whose_worker_is_killed_runs_again(dask_engine: DaskEngine, script: Script) -> None:
    script = replace(script, acts={"victim": ("hang", "answer")})

    def kill() -> None:
        [pid] = eventually(lambda: script.pids("victim"))
        time.sleep(0.5)
        os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    outcomes = run(dask_engine, script, ["victim", *NEIGHBOURS])
    killer.join()
    assert outcomes["victim"].value == 36
    assert outcomes["victim"].attempts == 2
    assert len(set(script.pids("victim"))) == 2
    assert_untouched(outcomes)
    assert [script.count(key) for key in NEIGHBOURS] == [1] * len(NEIGHBOURS)


def test_a_poisoned_scan_is_given_up_and_harms_nobody(dask_engine: DaskEngine, script: Script) -> None:
    script = replace(script, acts={"poison": ("die",)})
    outcomes = run(dask_engine, script, ["poison", *NEIGHBOURS], retries=5)
    poison = outcomes["poison"]
    assert (poison.ok, poison.error_type, poison.attempts) == (False, "EngineError", 3)
    assert "its worker died 3 times" in poison.error
    assert script.count("poison") == 3
    assert_untouched(outcomes)
    assert [script.count(key) for key in NEIGHBOURS] == [1] * len(NEIGHBOURS)


def test_scans_that_kill_before_they_are_heard_of_are_found(dask_engine: DaskEngine, script: Script) -> None:
    script = replace(script, acts={"poison": ("die_at_once",), "venom": ("die_at_once",)})
    outcomes = run(dask_engine, script, ["poison", *NEIGHBOURS, "venom"])
    for key in ("poison", "venom"):
        assert (outcomes[key].ok, outcomes[key].attempts) == (False, 3)
        # Three deaths are its own; one may have had no culprit, three may have seemed its neighbour's.
        assert 3 <= script.count(key) <= 7
    assert_untouched(outcomes)


def test_deaths_and_retries_are_counted_apart(dask_engine: DaskEngine, script: Script) -> None:
    script = replace(script, acts={"unlucky": ("die", "fail", "die", "answer")})
    outcomes = run(dask_engine, script, ["unlucky"], retries=1)
    assert outcomes["unlucky"].value == 49
    assert outcomes["unlucky"].attempts == 4


def test_a_suspect_runs_alone(dask_engine: DaskEngine, script: Script) -> None:
    script = replace(script, acts={"suspect": ("die", "answer")}, pause_s=0.05)
    order = [o.key for o in dask_engine.map(script, ["suspect", *NEIGHBOURS], memory=no_memory)]
    assert order[-1] == "suspect"


def test_a_scan_killed_for_memory_gets_twice_the_room_once_and_alone(dask_engine: DaskEngine, script: Script) -> None:
    script = replace(script, acts={"glutton": ("gorge",), "gourmet": ("feast",)}, pause_s=0.05)
    outcomes = run(dask_engine, script, ["glutton", "gourmet", *NEIGHBOURS])
    gourmet = outcomes["gourmet"]
    assert (gourmet.ok, gourmet.value, gourmet.attempts) == (True, 49, 2)
    glutton = outcomes["glutton"]
    assert (glutton.ok, glutton.error_type, glutton.attempts) == (False, "EngineError", 2)
    found = re.search(r"stopped at ([0-9.]+) GiB of memory.* alone, with about twice the room", glutton.error)
    assert found is not None, glutton.error
    assert float(found[1]) > 1.8  # 95 % of 2 GiB
    assert script.count("glutton") == 2
    assert set(list(outcomes)[-2:]) == {"glutton", "gourmet"}
    assert_untouched(outcomes)
    limits = dask_engine.client.run(nanny_limit, nanny=True)
    assert set(limits.values()) == {2**30}, "the room was not taken back"


def nanny_limit(dask_worker: Any) -> Any:
    return dask_worker.memory_manager.memory_limit


def test_where_the_machine_has_no_more_room_it_says_so(
    dask_engine: DaskEngine, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Machine, "here", lambda: Machine(2, 3 * 2**29))
    script = replace(script, acts={"glutton": ("gorge",)})
    outcomes = run(dask_engine, script, ["glutton", *NEIGHBOURS])
    assert "this machine has no room for a larger one than 1.00 GiB" in outcomes["glutton"].error
    assert outcomes["glutton"].attempts == 1
    assert_untouched(outcomes)


def test_overtime_harms_no_neighbour(dask_engine: DaskEngine, script: Script) -> None:
    script = replace(script, acts={"slow": ("hang",), "slower": ("hang",)})
    outcomes = run(dask_engine, script, ["slow", "slower", *NEIGHBOURS], timeout_s=0.5)
    assert not outcomes["slow"].ok
    assert not outcomes["slower"].ok
    assert_untouched(outcomes)
    pids = {*script.pids("slow"), *script.pids("slower")}
    assert len(pids) == 2
    eventually(lambda: not running(pids))


def test_a_slow_consumer_makes_nobody_late(dask_engine: DaskEngine, script: Script) -> None:
    script = replace(script, pause_s=0.2)
    outcomes = []
    for outcome in dask_engine.map(script, NEIGHBOURS[:4], memory=no_memory, timeout_s=0.6):
        outcomes.append(outcome)
        time.sleep(0.5)
    assert [o.ok for o in outcomes] == [True] * 4


def test_without_workers_the_engine_gives_up(script: Script) -> None:
    script = replace(script, acts={"b": ("hang",)})
    with open_engine(LONE) as engine:
        assert isinstance(engine, DaskEngine)
        engine.patience_s = 0.5
        outcomes = engine.map(script, ["a", "b"], memory=no_memory)
        assert next(outcomes).ok
        eventually(lambda: script.count("b"))
        engine.client.run(forbid_restart, nanny=True)
        os.kill(script.pids("b")[0], signal.SIGKILL)
        with pytest.raises(EngineError, match="no worker for"):
            next(outcomes)


def forbid_restart(dask_worker: Any) -> None:
    dask_worker.close_gracefully()


def test_a_lost_scheduler_ends_the_map(script: Script) -> None:
    script = replace(script, acts={"b": ("hang",)})
    hurry = dask.config.set({"distributed.comm.timeouts.connect": "1s"})  # nobody waits for another scheduler
    with hurry, open_engine(LONE) as engine:
        assert isinstance(engine, DaskEngine)
        outcomes = engine.map(script, ["a", "b"], memory=no_memory)
        assert next(outcomes).ok
        scheduler: Any = engine.client.cluster.scheduler  # type: ignore[union-attr]
        engine.loop.add_callback(scheduler.close)
        with pytest.raises(EngineError, match="the scheduler was lost"):
            next(outcomes)


@pytest.mark.slow
def test_a_worker_is_started_again_however_often_it_dies(script: Script) -> None:
    """Dask, left alone, closes a nanny whose worker is restarting 15 s after an earlier death."""
    later = [f"later{number}" for number in range(6)]
    script = replace(script, acts=dict.fromkeys(["first", *later], ("die_at_once", "answer")))
    with open_engine(LONE) as engine:
        assert isinstance(engine, DaskEngine)
        engine.patience_s = 5.0
        start = time.monotonic()
        assert run(engine, script, ["first"])["first"].ok
        time.sleep(start + 14.5 - time.monotonic())
        assert all(outcome.ok for outcome in run(engine, script, later).values())
