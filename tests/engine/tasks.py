"""Tasks that go wrong on purpose; workers import this module by its name."""

import os
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

MIB = 2**20
_HOARD: list[Any] = []


class UnpicklableError(Exception):
    """Holds a lock, as an exception that holds its connection does."""

    def __init__(self) -> None:
        super().__init__("the connection\nbroke")
        self.lock = threading.Lock()

    def __reduce__(self) -> Any:
        raise TypeError("this exception refuses to be pickled")


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("this exception refuses to be printed")


@dataclass(frozen=True)
class Script:
    """Does with each key what its script says, and counts its invocations in files.

    `acts` gives a key's act at the first, second, ... invocation; the last one repeats. A key
    without a script returns its length, squared.
    """

    folder: Path
    acts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pause_s: float = 0.0

    def __call__(self, key: str) -> Any:
        with (self.folder / key).open("a") as file:
            file.write(f"{os.getpid()}\n")
        script = self.acts.get(key, ("answer",))
        act = script[min(self.count(key), len(script)) - 1]
        time.sleep(self.pause_s)
        return getattr(self, act)(key)

    def count(self, key: str) -> int:
        return len(self.pids(key))

    def pids(self, key: str) -> list[int]:
        path = self.folder / key
        return [int(line) for line in path.read_text().splitlines()] if path.exists() else []

    def answer(self, key: str) -> int:
        return len(key) ** 2

    def dawdle(self, key: str) -> int:
        time.sleep(0.5)
        return self.answer(key)

    def fail(self, key: str) -> None:
        raise ValueError(f"{key}:\n   no such echo")

    def fail_unpicklably(self, _key: str) -> None:
        raise UnpicklableError

    def fail_unprintably(self, _key: str) -> None:
        raise UnprintableError

    def leave(self, _key: str) -> None:
        raise SystemExit(3)

    def hang(self, _key: str) -> None:
        time.sleep(120)

    def hang_deafly(self, _key: str) -> None:
        end = time.monotonic() + 120
        while time.monotonic() < end:
            try:
                time.sleep(1)
            except Exception:  # noqa: BLE001, S112 -- as careless code does
                continue

    def hand_back_lock(self, _key: str) -> Any:
        return threading.Lock()

    def die(self, _key: str) -> None:
        time.sleep(0.5)  # by then the results of others have left this worker
        os.kill(os.getpid(), signal.SIGKILL)

    def die_at_once(self, _key: str) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def gorge(self, _key: str) -> None:
        hoard = []
        while True:
            hoard.append(np.ones(50 * MIB // 8))
            time.sleep(0.02)

    def hoard(self, key: str) -> int:
        """Leaves 150 MiB behind, as a library does that leaks."""
        _HOARD.append(np.ones(150 * MIB // 8))
        return self.answer(key)

    def feast(self, key: str) -> Any:
        """Needs more than a worker of 1 GiB has, and less than one of twice that."""
        hoard = [np.ones(100 * MIB // 8) for _ in range(12)]
        time.sleep(1.0)
        del hoard
        return self.answer(key)


def transform(seed: int) -> dict[str, str]:
    """Figures that show every bit."""
    volume = np.random.default_rng(seed).standard_normal((24, 20, 16)).astype(np.float32)
    spectrum = np.fft.rfftn(volume)
    return {"norm": float(np.linalg.norm(spectrum)).hex(), "bytes": spectrum.tobytes()[:64].hex()}


def no_memory(_key: object) -> int:
    return 0
