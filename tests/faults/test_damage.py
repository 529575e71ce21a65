"""Committed files are altered, cut short and deleted at once; single damages stand in `tests/cli/test_repair.py`."""

import json
import shutil
from pathlib import Path

import pytest

from qsm_dask.store import CohortStore
from tests.faults.study import Faults, Study, finish, start
from tests.store.conftest import flip


@pytest.fixture
def done(study: Study, tmp_path: Path) -> CohortStore:
    """The cohort of the undisturbed run."""
    shutil.copytree(study.ingested.with_name("undisturbed"), tmp_path / "done")
    return CohortStore.open(tmp_path / "done")


def test_damaged_files(study: Study, done: CohortStore, faults: Faults) -> None:
    """`verify` names each, and with `--repair` computes their three nodes anew, and no other."""
    top = Path(str(done.place))
    [altered] = top.glob("scans/sub-01/maps/*/*/chi/c.0.0.0")
    [short] = top.glob("scans/sub-02/field/*/*/local_field/c.0.0.0")
    [gone] = top.glob("scans/sub-03/regions/*/COMMIT.json")
    flip(altered, altered.stat().st_size // 2)
    short.write_bytes(short.read_bytes()[:-7])
    gone.unlink()
    out, _ = finish(start(faults, "verify", done.place, "--json"), 1)
    found = {(one["scan"], one["node"], one["file"]) for one in json.loads(out)}
    assert found == {
        ("sub-01", "maps", str(altered)),
        ("sub-02", "field", str(short)),
        ("sub-03", "regions", str(gone)),
    }
    out, _ = finish(start(faults, "verify", done.place, "--repair", "--json"))
    assert [one["repaired"] for one in json.loads(out)] == [True] * 3
    study.assert_whole(done)
    assert faults.steps() == (
        study.once("maps", scan="sub-01") + study.once("field", scan="sub-02") + study.once("regions", scan="sub-03")
    )
