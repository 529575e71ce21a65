"""What a run tells while it goes: lines of JSON for programs, a line of figures for people."""

import json
import logging
import shutil

import pytest

from qsm_dask import events
from qsm_dask.cli import console
from qsm_dask.engine import SerialEngine, open_engine
from tests.engine.tasks import Script, no_memory


@pytest.fixture
def broken(bids, tmp_path):
    """The two heads, one of them cut off in mid-file."""
    folder = tmp_path / "bids"
    shutil.copytree(bids, folder)
    image = next(folder.glob("sub-02/anat/*part-phase*.nii.gz"))
    image.write_bytes(image.read_bytes()[:1000])
    return folder


def test_every_line_of_the_log_is_an_object_with_scan_and_step(qsm, broken, tmp_path):
    log, cohort = tmp_path / "run.jsonl", tmp_path / "cohort"
    options = ("--cluster", "serial", "--pipeline", "fast", "--quiet")
    assert qsm("--log", log, "run", broken, cohort, *options)[0] == 1
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert all({"time", "level", "message", *events.FIELDS} <= set(line) for line in lines)
    steps = [line["step"] for line in lines if line["scan"] == "sub-01" and line["step"]]
    assert steps[0].startswith("mask.")
    assert "inversion.tkd" in steps
    assert [line["node"] for line in lines if line["scan"] == "sub-01" and not line["step"]] == [
        "ingest", "field", "maps", "regions",
    ]  # fmt: skip
    (failed,) = [line for line in lines if line["level"] == "error" and line["node"] == "ingest"]
    assert (failed["scan"], failed["state"]) == ("sub-02", "failed")
    assert "truncated or damaged" in failed["message"]

    assert qsm("--log", log, "process", cohort, *options[:4], "--quiet")[0] == 1
    more = [json.loads(line) for line in log.read_text().splitlines()][len(lines) :]
    assert {line["state"] for line in more if line["scan"] == "sub-01"} == {"found committed"}


def test_a_log_that_cannot_be_written_is_wrong_usage(qsm, tmp_path):
    code, _, err = qsm("--log", tmp_path / "nowhere" / "log", "status", tmp_path)
    assert code == 2
    assert "nowhere/log cannot be written: No such file" in err


def test_the_view_tells_what_runs_what_failed_and_the_memory():
    with open_engine({"kind": "serial", "memory": "1 GiB"}) as engine:
        view = console._View("process", engine)
        view.note(logging.makeLogRecord({"levelno": logging.ERROR, "scan": "sub-02"}))
        view.note(logging.makeLogRecord({"levelno": logging.INFO, "scan": "sub-01"}))
        text = view._activity(engine)
    assert text.startswith("0 running · 1 failed · ")
    assert text.endswith("GiB in 1 worker")


def test_an_engine_tells_what_it_does(tmp_path):
    seen = []

    def look(key):
        seen.append(engine.activity().running)
        return key

    engine = SerialEngine(2**30)
    list(engine.map(look, ["a"], memory=no_memory))
    assert seen == [1]
    assert engine.activity().running == 0
    with open_engine({"kind": "local", "workers": 2, "memory": "1 GiB"}) as dask:
        script = Script(tmp_path, dict.fromkeys("abc", ("dawdle",)))
        seen += [dask.activity().running for _ in dask.map(script, "abc", memory=no_memory)]
        assert max(seen[1:]) >= 1
        assert dask.activity().running == 0
        assert (dask.activity().workers, dask.activity().memory > 2**26) == (2, True)
