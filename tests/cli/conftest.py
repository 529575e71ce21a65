"""The command line in this process, and a small cohort that is done."""

import json
import sys
from pathlib import Path

import pytest

from qsm_dask import cli
from qsm_dask.engine import SerialEngine
from qsm_dask.pipeline import Pipeline
from qsm_dask.store import CohortStore
from qsm_dask.workflow import compare, ingest, process, report, simulate

ENGINE = SerialEngine(4 * 2**30)


@pytest.fixture
def qsm(monkeypatch, capsys):
    """Run the command line in this process: (exit code, standard output, standard error)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["qsm-dask", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        found = capsys.readouterr()
        return end.value.code, found.out, found.err

    return run


@pytest.fixture
def told(qsm):
    """What a command prints with `--json`, once it succeeded."""

    def run(*arguments):
        code, out, err = qsm(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    return run


@pytest.fixture(scope="session")
def bids(tmp_path_factory) -> Path:
    """A dataset of two tiny heads."""
    folder = tmp_path_factory.mktemp("cli") / "bids"
    simulate.run(folder, subjects=2, shape=(32, 32, 24))
    return folder


@pytest.fixture(scope="session")
def study(bids) -> CohortStore:
    """Its cohort in a folder, whole; tests that change it take a copy."""
    store = CohortStore.create(bids.parent / "cohort")
    ingest.run(bids, store, ENGINE, derivatives=labels(bids)[1:])
    process.run(store, ENGINE, Pipeline.from_yaml("consensus"))
    compare.run(store)
    report.run(store)
    return store


def labels(bids: Path) -> tuple[str, str]:
    """The options that name the label images."""
    return "--derivatives", f"{bids / 'derivatives' / 'truth'}:dseg"


def digests(rows) -> dict[tuple[str, str], str]:
    """What `status` tells of the results themselves."""
    return {(row["scan"], row["node"]): row["digest"] for row in rows}
