from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qsm_dask.engine import Engine, open_engine
from tests.engine.tasks import Script

SPECS: dict[str, dict[str, Any]] = {
    "serial": {"kind": "serial", "memory": "1 GiB"},
    "dask": {"kind": "local", "workers": 2, "memory": "1 GiB"},
}


@pytest.fixture(scope="session")
def dask_engine() -> Iterator[Engine]:
    with open_engine(SPECS["dask"]) as engine:
        yield engine


@pytest.fixture(scope="session")
def serial_engine() -> Iterator[Engine]:
    with open_engine(SPECS["serial"]) as engine:
        yield engine


@pytest.fixture(params=sorted(SPECS))
def engine(request: pytest.FixtureRequest) -> Engine:
    chosen: Engine = request.getfixturevalue(f"{request.param}_engine")
    return chosen


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return Script(tmp_path)
