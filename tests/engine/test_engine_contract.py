"""What every engine promises; a new engine is added to `conftest.SPECS` and must pass unchanged."""

import itertools
import os
from collections.abc import Iterator
from dataclasses import replace

import dask.array
import pytest

from qsm_dask.engine import Engine
from qsm_dask.kernels.fourier import CACHE_BYTES
from qsm_dask.scan import ScanKey
from tests.engine.tasks import Script, no_memory, transform


def test_every_key_has_one_outcome(engine: Engine, script: Script) -> None:
    keys = ["a", "bb", "ccc", "dddd", "eeeee", "ffffff", "ggggggg"]
    outcomes = list(engine.map(script, keys, memory=no_memory))
    assert {o.key: o.value for o in outcomes} == {key: len(key) ** 2 for key in keys}
    assert len(outcomes) == len(keys)
    for outcome in outcomes:
        assert outcome.ok
        assert (outcome.error, outcome.error_type, outcome.traceback, outcome.attempts) == ("", "", "", 1)
        assert outcome.seconds > 0.0
        assert outcome.worker
    assert [script.count(key) for key in keys] == [1] * len(keys)


def test_no_keys_no_outcomes(engine: Engine, script: Script) -> None:
    assert list(engine.map(script, [], memory=no_memory)) == []


def test_an_engine_describes_itself(engine: Engine) -> None:
    assert engine.slots >= 1
    assert engine.threads == 1
    # 1 GiB / 1.3 is what a task and its process may take together; 350 MiB and kept spectra are the process's.
    assert engine.limit == int(2**30 / 1.3) - 350 * 2**20 - CACHE_BYTES


def test_lazy_arrays_are_computed_by_the_process_that_asks(engine: Engine) -> None:
    """Not by the engine's workers, which hold what scans need and may have other rights at an object store."""
    assert engine.slots
    lazy = dask.array.ones(2, chunks=1).map_blocks(lambda block: block * os.getpid())
    assert set(lazy.compute().tolist()) == {os.getpid()}


def test_a_failure_is_an_outcome_and_ends_nothing(engine: Engine, script: Script) -> None:
    script = replace(script, acts={"bad": ("fail",)})
    outcomes = {o.key: o for o in engine.map(script, ["a", "bad", "bb"], memory=no_memory)}
    assert {key for key, o in outcomes.items() if o.ok} == {"a", "bb"}
    bad = outcomes["bad"]
    assert bad.error == "bad: no such echo"
    assert bad.error_type == "ValueError"
    assert bad.value is None
    assert bad.attempts == 1
    assert "in fail" in bad.traceback
    assert "in attempt" not in bad.traceback


@pytest.mark.parametrize(
    ("act", "error_type", "reason"),
    [
        ("fail_unpicklably", "UnpicklableError", "the connection broke"),
        ("fail_unprintably", "UnprintableError", "(its message cannot be printed)"),
        ("leave", "SystemExit", "3"),
        ("hand_back_lock", "EngineError", "cannot be pickled"),
    ],
)
def test_awkward_failures_are_told_as_text(
    engine: Engine, script: Script, act: str, error_type: str, reason: str
) -> None:
    script = replace(script, acts={"bad": (act,)})
    outcomes = {o.key: o for o in engine.map(script, ["bad", "a"], memory=no_memory)}
    assert outcomes["a"].ok
    assert not outcomes["bad"].ok
    assert outcomes["bad"].error_type == error_type
    assert reason in outcomes["bad"].error
    assert script.count("bad") == 1


@pytest.mark.parametrize(("retries", "ok", "attempts"), [(0, False, 1), (1, False, 2), (2, True, 3), (5, True, 3)])
def test_retries_are_for_tasks_that_raise(
    engine: Engine, script: Script, retries: int, ok: bool, attempts: int
) -> None:
    script = replace(script, acts={"shaky": ("fail", "fail", "answer")})
    [outcome] = engine.map(script, ["shaky"], memory=no_memory, retries=retries)
    assert outcome.ok is ok
    assert outcome.attempts == attempts
    assert script.count("shaky") == attempts


def test_what_is_too_large_is_refused_unrun(engine: Engine, script: Script) -> None:
    need = {"small": engine.limit, "large": engine.limit + 1}
    outcomes = {o.key: o for o in engine.map(script, need, memory=lambda key: need[key], retries=3)}
    assert outcomes["small"].ok
    large = outcomes["large"]
    assert (large.ok, large.error_type, large.attempts) == (False, "EngineError", 0)
    assert "0.36 GiB" in large.error  # 2^30 / 1.3 - 350 MiB - 64 MiB of spectra
    assert "memory" in large.error
    assert script.count("large") == 0


def test_a_key_that_cannot_be_judged_fails_alone(engine: Engine, script: Script) -> None:
    sizes = {"a": 1}
    outcomes = {o.key: o for o in engine.map(script, ["a", "unknown"], memory=lambda key: sizes[key])}
    assert outcomes["a"].ok
    assert outcomes["unknown"].error_type == "KeyError"
    assert script.count("unknown") == 0


@pytest.mark.parametrize("act", ["hang", "hang_deafly"])
def test_overtime_is_stopped_and_not_retried(engine: Engine, script: Script, act: str) -> None:
    script = replace(script, acts={"slow": (act,)})
    keys = ["slow", "a", "bb", "ccc", "dddd"]
    outcomes = {o.key: o for o in engine.map(script, keys, memory=no_memory, retries=2, timeout_s=0.5)}
    slow = outcomes.pop("slow")
    assert (slow.ok, slow.error_type, slow.attempts) == (False, "EngineError", 1)
    assert "0.5 s" in slow.error
    assert slow.seconds >= 0.5
    assert script.count("slow") == 1
    assert all(o.ok and o.attempts == 1 for o in outcomes.values())
    assert len(outcomes) == 4


def test_keys_are_drawn_as_slots_fall_free(engine: Engine, script: Script) -> None:
    drawn = []

    def endless() -> Iterator[str]:
        for number in itertools.count():
            drawn.append(number)
            yield f"k{number}"

    outcomes = engine.map(script, endless(), memory=no_memory)
    assert len(list(itertools.islice(outcomes, 5))) == 5
    assert len(drawn) <= 5 + 2 * engine.slots
    outcomes.close()  # type: ignore[attr-defined]


def test_closing_early_drops_what_waits(engine: Engine, script: Script) -> None:
    keys = [f"k{number}" for number in range(40)]
    script = replace(script, acts=dict.fromkeys(keys[1:], ("dawdle",)))
    outcomes = engine.map(script, keys, memory=no_memory)
    assert next(outcomes).ok
    outcomes.close()  # type: ignore[attr-defined]
    [after] = engine.map(script, ["after"], memory=no_memory)
    assert after.value == 25
    assert sum(script.count(key) for key in keys) <= 1 + engine.slots


def test_scan_keys_travel(engine: Engine) -> None:
    key = ScanKey.parse("sub-01_ses-1_T2starw")
    [outcome] = engine.map(str, [key], memory=no_memory)
    assert outcome.key == key
    assert outcome.value == "sub-01_ses-1_T2starw"


def test_equal_keys_are_separate_work(engine: Engine, script: Script) -> None:
    assert [o.value for o in engine.map(script, ["a", "a", "a"], memory=no_memory)] == [1, 1, 1]
    assert script.count("a") == 3


def test_engines_agree_bit_for_bit(serial_engine: Engine, dask_engine: Engine) -> None:
    serial, dask = (
        {o.key: o.value for o in chosen.map(transform, range(12), memory=no_memory)}
        for chosen in (serial_engine, dask_engine)
    )
    assert serial == dask
    assert len(set(map(str, serial.values()))) == 12
