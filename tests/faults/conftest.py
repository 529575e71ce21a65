"""The small cohort of all fault tests, and workers in which faults are planted."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from qsm_dask.engine import Engine, open_engine
from qsm_dask.store import CohortStore
from tests.faults.study import Faults, Study


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """With `--fault-rounds N`, every test of this room runs N times."""
    rounds = metafunc.config.getoption("fault_rounds")
    if rounds > 1:
        metafunc.fixturenames.append("fault_round")
        metafunc.parametrize("fault_round", [f"round{number}" for number in range(1, rounds + 1)])


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study.make(tmp_path_factory.mktemp("faults"))


@pytest.fixture
def cohort(study: Study, tmp_path: Path) -> CohortStore:
    """Ingested, and no more."""
    return study.copy(tmp_path / "cohort")


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Faults:
    """The faults of the workers of `engine`."""
    return Faults(tmp_path_factory.mktemp("planted") / "faults")


@pytest.fixture
def faults(planted: Faults) -> Iterator[Faults]:
    planted.clear()
    yield planted
    planted.clear()


@pytest.fixture(scope="session")
def engine(planted: Faults) -> Iterator[Engine]:
    """Two workers of 1 GiB on this machine, whose processes carry the faults."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in planted.environment.items():
            patch.setenv(name, value)
        with open_engine({"kind": "local", "workers": 2, "memory": "1 GiB"}) as opened:
            yield opened
