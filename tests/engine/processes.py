"""Waiting for what happens in other processes."""

import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import psutil  # type: ignore[import-untyped]

T = TypeVar("T")


def eventually(condition: Callable[[], T], seconds: float = 20.0) -> T:
    """The first true value of `condition`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")


def running(pids: Iterable[int]) -> list[int]:
    """Those that run still; a zombie that nobody has asked after does not."""
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


def children() -> set[int]:
    """Processes started from here, but for Python's own tracker of shared resources."""
    found = psutil.Process().children(recursive=True)
    return {child.pid for child in found if "resource_tracker" not in " ".join(child.cmdline())}
