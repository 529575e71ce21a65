"""An SSH server on 127.0.0.1 with keys of its own: Debian's package `openssh-server`; needs root."""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.real_parts import free_ports

_PROGRAM = shutil.which("sshd") or "/usr/sbin/sshd"
_START_S = 10.0
_CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/authorized
PidFile {folder}/pid
StrictModes no
UsePAM no
PasswordAuthentication no
"""


def is_here() -> bool:
    """Whether the programs are installed, and may be started."""
    return os.geteuid() == 0 and Path(_PROGRAM).exists() and shutil.which("ssh-keygen") is not None


class SshServer:
    """A server for the time of a `with` block, which lets in the holder of `folder/user`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (self.port,) = free_ports(1)

    @property
    def connect(self) -> dict[str, Any]:
        """How asyncssh gets in."""
        keys = {"client_keys": [str(self.folder / "user")], "known_hosts": str(self.folder / "known")}
        return {"port": self.port, "username": "root", **keys}

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        Path("/run/sshd").mkdir(exist_ok=True)
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name)], check=True)
        (self.folder / "authorized").write_text((self.folder / "user.pub").read_text())
        (self.folder / "known").write_text(f"[127.0.0.1]:{self.port} {(self.folder / 'host.pub').read_text()}")
        (self.folder / "config").write_text(_CONFIG.format(port=self.port, folder=self.folder))
        self.log = (self.folder / "log").open("wb")
        self.process = subprocess.Popen([_PROGRAM, "-D", "-e", "-f", str(self.folder / "config")], stderr=self.log)
        self._wait()
        return self

    def _wait(self) -> None:
        end = time.monotonic() + _START_S
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise TimeoutError(f"no SSH server after {_START_S:g} s: {(self.folder / 'log').read_text()}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=_START_S)
        self.log.close()
