"""Mistakes at the command line: one line that says what to do, the right exit code, and nothing left behind."""

import json
import signal
from contextlib import suppress

import pytest

from qsm_dask import api
from qsm_dask.cli import steps
from qsm_dask.pseudonyms import VARIABLE, Pseudonyms
from qsm_dask.store import CohortStore
from qsm_dask.workflow import cube, report, status, verify
from tests.workflow import cohorts


@pytest.fixture
def empty(tmp_path):
    folder = tmp_path / "bids"
    (folder / "sub-01" / "anat").mkdir(parents=True)
    (folder / "dataset_description.json").write_text(json.dumps({"Name": "x", "BIDSVersion": "1.11.0"}))
    return folder


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--pipeline", "consensu"), "no pipeline 'consensu'"),
        (("--cluster", "slumr"), "no cluster 'slumr'"),
        (("--phase-sign", "maybe"), "phase sign 'maybe'"),
        (("--derivatives", "nowhere:dseg"), "there is no folder nowhere"),
        (("--participant-label", "99"), "no participant sub-99"),
        (("--bids-filter-file", "nowhere.json"), "nowhere.json"),
    ],
)
@pytest.mark.parametrize("made", [True, False])
def test_a_refused_run_leaves_no_cohort_behind(qsm, empty, tmp_path, monkeypatch, options, message, made):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("qsm_dask.cli.steps.compile_kernels", lambda *_, **__: None)
    cohort = tmp_path / "new" / "cohort"
    if made:
        cohort.mkdir(parents=True)
    code, _, err = qsm("run", empty, cohort, "--cluster", "serial", *options)
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1
    assert list(cohort.parent.rglob("*")) == ([cohort] if made else [])
    assert cohort.parent.exists() == made


def test_a_refused_run_leaves_an_existing_cohort_as_it_was(qsm, empty, tmp_path, monkeypatch):
    monkeypatch.setattr("qsm_dask.cli.steps.compile_kernels", lambda *_, **__: None)
    cohorts.create(tmp_path / "cohort")
    before = sorted((tmp_path / "cohort").rglob("*"))
    assert qsm("run", empty, tmp_path / "cohort", "--cluster", "serial", "--phase-sign", "maybe")[0] == 2
    assert sorted((tmp_path / "cohort").rglob("*")) == before


def test_a_folder_of_something_else_is_wrong_usage(qsm, empty, tmp_path):
    code, _, err = qsm("ingest", empty, empty, "--cluster", "serial")
    assert code == 2
    assert "name a new or empty place" in err


@pytest.mark.parametrize("command", ["process", "compare", "report", "status", "verify"])
def test_commands_on_a_cohort_make_none(qsm, tmp_path, command):
    code, _, err = qsm(command, tmp_path / "nowhere")
    assert code == 2
    assert "is no cohort" in err
    assert not (tmp_path / "nowhere").exists()
    assert "made if it is not there" not in qsm(command, "--help")[1]


@pytest.mark.parametrize(
    "command",
    ["run", "ingest", "process", "compare", "report", "export", "status", "verify", "simulate", "apply", "stages"],
)
def test_every_help_has_an_example(qsm, command):
    code, out, _ = qsm(command, "--help")
    assert code == 0
    assert f"Example: qsm-dask {command}" in out


def test_ctrl_c_is_one_line_and_130(qsm, tmp_path, monkeypatch):
    cohorts.create(tmp_path)

    def interrupt(_cohort):
        raise KeyboardInterrupt

    monkeypatch.setattr(status, "run", interrupt)
    code, out, err = qsm("status", tmp_path)
    assert (code, out) == (130, "")
    assert err.splitlines() == ["error: stopped; what is done is kept: run the same command again to go on from there"]


def test_ctrl_c_that_a_library_swallowed_counts_at_the_next_scan(qsm, tmp_path, monkeypatch):
    cohorts.create(tmp_path)

    def swallow(_cohort, _engine, *, progress):
        with suppress(BaseException):  # as a bare `except:` around an import does
            signal.raise_signal(signal.SIGINT)
        progress(1, 2, "sub-01")
        pytest.fail("the interrupt was lost")

    monkeypatch.setattr(verify, "run", swallow)
    for quiet in ((), ("--quiet",)):
        code, out, err = qsm("verify", tmp_path, *quiet)
        assert (code, out) == (130, "")
        assert "stopped" in err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_disk_that_is_full_is_one_line(qsm, tmp_path, monkeypatch):
    cohorts.create(tmp_path)

    def fail(_cohort):
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr(status, "run", fail)
    code, _, err = qsm("status", tmp_path)
    assert code == 1
    assert err.splitlines() == ["error: [Errno 28] No space left on device: 'somewhere'"]


@pytest.mark.parametrize(("command", "workflow"), [("report", report), ("verify", verify)])
def test_commands_that_look_name_their_tasks_by_pseudonyms_too(qsm, monkeypatch, tmp_path, command, workflow):
    CohortStore.create(tmp_path)
    names = []
    empty = [] if command == "verify" else "page"
    monkeypatch.setattr(workflow, "run", lambda _, engine, **options: names.append(engine.name_of("sub-01")) or empty)
    assert qsm(command, tmp_path, "--pseudonymise")[0] == 2  # without a secret
    monkeypatch.setenv(VARIABLE, "0123456789abcdef")
    assert qsm(command, tmp_path, "--pseudonymise")[0] == 0
    assert qsm(command, tmp_path)[0] == 0
    assert names == [Pseudonyms("0123456789abcdef")("sub-01"), "sub-01"]


@pytest.mark.parametrize("command", ["cube", "template"])
def test_commands_for_standard_space_name_their_tasks_by_pseudonyms_too(qsm, monkeypatch, tmp_path, command):
    CohortStore.create(tmp_path / "cohort")
    names = []
    monkeypatch.setattr(
        cube, "run", lambda _, engine, **given: names.append(engine.name_of("sub-01")) or cube.Summary()
    )
    monkeypatch.setattr(
        api, "build_template", lambda _, engine, *given, **options: names.append(engine.name_of("sub-01"))
    )
    monkeypatch.setenv(VARIABLE, "0123456789abcdef")
    given = [tmp_path / "cohort", *([tmp_path / "out"] if command == "template" else []), "--cluster", "serial"]
    assert qsm(command, *given, "--pseudonymise")[0] == 0
    assert qsm(command, *given)[0] == 0
    assert names == [Pseudonyms("0123456789abcdef")("sub-01"), "sub-01"]


def test_verify_tells_damage_as_objects_and_exits_1(qsm, told, tmp_path):
    cohort = cohorts.create(tmp_path)
    commit = cohorts.add(cohort, "sub-01", {0: 0.0})
    assert told("verify", tmp_path) == []
    chunk = next((cohort.place.folder / commit.folder / "phase").glob("c.*"))
    chunk.unlink()
    code, out, _ = qsm("verify", tmp_path, "--json")
    assert code == 1
    assert json.loads(out) == [
        {"scan": "sub-01", "node": "ingest", "key": "input", "file": str(chunk), "reason": "is missing"}
    ]
    code, out, err = qsm("verify", tmp_path)
    assert code == 1
    assert out == f"sub-01 ingest: {chunk} is missing\n"
    assert f"1 damaged: `qsm-dask verify {tmp_path} --repair` computes anew" in err


def test_export_names_a_damaged_scan_and_exits_1(qsm, tmp_path):
    cohort = cohorts.create(tmp_path / "cohort")
    for scan in ("sub-01", "sub-02"):
        cohorts.add(cohort, scan, {0: 0.0})
    next((cohort.place.folder / "scans" / "sub-02" / "maps").glob("*/*/chi/c.*")).unlink()
    code, _, err = qsm("export", tmp_path / "cohort", tmp_path / "out")
    assert code == 1
    assert "sub-02" in err
    assert "is missing" in err
    assert "exported  1 scans" in err


def test_a_skipped_scan_is_no_failure_of_an_export(told, tmp_path):
    cohort = cohorts.create(tmp_path / "cohort")
    cohorts.add(cohort, "sub-01", {0: 0.0})
    cohorts.record(cohort, "sub-02", "ingest", "skipped", "no phase")
    assert told("export", tmp_path / "cohort", tmp_path / "out") == {
        "exported": 1,
        "skipped": ["sub-02"],
        "without": {},
    }


def test_status_of_an_empty_cohort_says_what_to_do(qsm, tmp_path):
    cohorts.create(tmp_path)
    assert "no scan was ingested yet" in qsm("status", tmp_path)[2]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("atlases/tpl", "HERE/atlases/tpl"),
        ("atlases/tpl#atlas-x", "HERE/atlases/tpl#atlas-x"),
        ("/shared/tpl", "/shared/tpl"),
        ("templateflow:MNI152", "templateflow:MNI152"),
        ("package:a/b", "package:a/b"),
    ],
)
def test_an_atlas_is_told_to_workers_as_they_find_it(tmp_path, monkeypatch, given, meant):
    monkeypatch.chdir(tmp_path)
    pipeline = steps.read_pipeline("regions", given)
    named = {str(value) for slot in pipeline.slots for step in slot for value in step.parameters.values()}
    assert meant.replace("HERE", str(tmp_path)) in named
