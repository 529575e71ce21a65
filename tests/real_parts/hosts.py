"""A dask scheduler and workers as processes of their own: on 127.0.0.1, or each on a host with a network link to cut.

The hosts are network namespaces on a bridge that nothing outside can reach; they need root and the program `ip`.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil  # type: ignore[import-untyped]

from qsm_dask.engine.settings import SETTINGS, as_environment
from tests.real_parts import free_ports

_START_S = 60.0
_SUBNET = "10.213.47"


@dataclass
class Dask:
    """A scheduler and its workers for the time of a `with` block, in folder `folder`.

    Attributes
    ----------
    address : where the scheduler listens.
    environment : of all its processes, beside this one's.
    """

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    host: str = "127.0.0.1"
    inside: Sequence[str] = ()
    _processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    _port: int = 0

    @property
    def address(self) -> str:
        """Where the scheduler listens."""
        return f"tcp://{self.host}:{self._port}"

    def start_scheduler(self) -> "subprocess.Popen[bytes]":
        """Start it, or start it again at the same address; returns when it listens."""
        self._port = self._port or free_ports(1)[0]
        log = self.folder / "scheduler.log"
        before = log.stat().st_size if log.exists() else 0
        arguments = ("--host", self.host, "--port", str(self._port), "--dashboard-address", "127.0.0.1:0")
        started = self.start("scheduler", ["scheduler", *arguments], self.inside)
        end = time.monotonic() + _START_S
        while b"Scheduler at:" not in log.read_bytes()[before:]:
            if time.monotonic() > end or started.poll() is not None:
                raise RuntimeError(f"the scheduler did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.1)
        return started

    def start_worker(self, name: str, host: str = "127.0.0.1", inside: Sequence[str] = ()) -> "subprocess.Popen[bytes]":
        """Start a nanny, which starts a worker of one thread and 1 GiB."""
        arguments = [
            "worker", self.address, "--name", name, "--host", host, "--nthreads", "1", "--memory-limit", "1GiB",
            "--local-directory", str(self.folder / name), "--dashboard-address", "127.0.0.1:0",
            "--preload", "qsm_dask.engine.preload", "--death-timeout", "60",
        ]  # fmt: skip
        return self.start(name, arguments, inside)

    def start(self, name: str, arguments: Sequence[str], inside: Sequence[str] = ()) -> "subprocess.Popen[bytes]":
        """Start a program of dask."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [*inside, sys.executable, "-m", "dask", *arguments],
                stdout=log, stderr=log, cwd=self.folder,
                env={**os.environ, **as_environment(SETTINGS), **self.environment},
            )  # fmt: skip
        self._processes.append(process)
        return process

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        family = [one for process in self._processes for one in _family(process.pid)]
        for one in family:
            with suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGKILL)
        for process in self._processes:
            process.wait()


def _family(pid: int) -> list[psutil.Process]:
    try:
        return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def worker_of(nanny: "subprocess.Popen[bytes]") -> psutil.Process | None:
    """The process in which a nanny's worker runs."""
    found = [one for one in _family(nanny.pid) if "multiprocessing.spawn" in " ".join(one.cmdline())]
    return found[0] if found else None


def links_are_here() -> bool:
    """Whether hosts with links of their own can be made."""
    if shutil.which("ip") is None:
        return False
    probe = f"qsm-probe-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", probe], capture_output=True, check=False).returncode:
        return False
    _ip("netns", "del", probe)
    return True


class Hosts:
    """Hosts on one switch, all without any link to the outside.

    Parameters
    ----------
    names : of the hosts.
    """

    def __init__(self, *names: str) -> None:
        self._mark = f"qsm{os.getpid() % 100000}"
        self._names = names

    def address(self, name: str) -> str:
        """Where a host is reached by the others."""
        return f"{_SUBNET}.{self._names.index(name) + 1}"

    def inside(self, name: str) -> list[str]:
        """What stands before a command that is to run on a host."""
        return ["ip", "netns", "exec", self._space(name)]

    def cut(self, name: str) -> None:
        """Pull the plug of a host."""
        _ip("-n", self._space("switch"), "link", "set", f"port{self._names.index(name)}", "down")

    def mend(self, name: str) -> None:
        """Put the plug back in."""
        _ip("-n", self._space("switch"), "link", "set", f"port{self._names.index(name)}", "up")

    def _space(self, name: str) -> str:
        return f"{self._mark}-{name}"

    @contextmanager
    def up(self) -> Iterator[Self]:
        """Make the hosts for the time of a `with` block."""
        made = [self._space(name) for name in ("switch", *self._names)]
        try:
            for space in made:
                _ip("netns", "add", space)
                _ip("-n", space, "link", "set", "lo", "up")
            switch = made[0]
            _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
            _ip("-n", switch, "link", "set", "bridge", "up")
            for number, name in enumerate(self._names):
                space, port = self._space(name), f"port{number}"
                _ip("-n", switch, "link", "add", port, "type", "veth", "peer", "name", "eth", "netns", space)
                _ip("-n", switch, "link", "set", port, "master", "bridge", "up")
                _ip("-n", space, "address", "add", f"{self.address(name)}/24", "dev", "eth")
                _ip("-n", space, "link", "set", "eth", "up")
            yield self
        finally:
            for space in made:
                subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=30)
