"""A cohort in a real object store from the command line, beside the same cohort in a folder."""

import subprocess
import sys
from pathlib import Path

import pytest

import qsm_dask as qd
from qsm_dask.place import Place
from qsm_dask.store import CohortStore
from qsm_dask.store.files import files_at
from tests.cli.conftest import digests, labels


def test_a_run_into_an_object_store_gives_the_bits_of_a_folder(qsm, told, bids, study, s3_url, tmp_path):
    """The workers of a cluster find endpoint and credentials in the environment that they inherit."""
    command = [sys.executable, "-m", "qsm_dask", "run", bids, s3_url, *labels(bids), "--cluster", "local"]
    found = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, timeout=300)
    assert found.returncode == 0, found.stderr
    assert f"tables    {s3_url}/tables" in found.stderr
    assert f"report    {s3_url}/report/index.html\nto see it  qsm-dask report {s3_url} --out DIR" in found.stderr
    expected = digests(told("status", study.place))
    assert digests(told("status", s3_url)) == expected
    assert len(expected) == 8
    again = told("run", bids, s3_url, *labels(bids), "--cluster", "serial")
    assert (again["nodes_computed"], again["nodes_reused"], again["ingested"]["unchanged"]) == (0, 6, 2)
    assert again["report"] == f"{s3_url}/report/index.html"
    assert told("verify", s3_url) == []
    assert told("gc", s3_url, "--older-than", 0) == []
    assert told("compare", s3_url)["with_values"] == 2
    _page_is_copied(qsm, s3_url, study, tmp_path / "seen")
    assert told("export", s3_url, tmp_path / "exported")["exported"] == 2
    there, here = qd.open_cohort(s3_url), qd.open_cohort(study.place.url)
    assert there.dataset().compute().equals(here.dataset().compute())
    assert there.scan("sub-01").compute().equals(here.scan("sub-01").compute())
    _damage_is_repaired(told, s3_url, expected)


def _damage_is_repaired(told, url: str, expected) -> None:
    files = files_at(Place.parse(url))
    chunks = {name.split("/")[2]: name for name in files.sizes("scans/sub-01") if "/c." in name}
    flipped = bytearray(files.get(chunks["maps"]))
    flipped[len(flipped) // 2] ^= 4
    files.put(chunks["maps"], bytes(flipped))
    files.remove(chunks["field"])
    damages = told("verify", url, "--repair")
    assert [(one["node"], one["file"], one["repaired"]) for one in damages] == [
        (node, f"{url}/{chunks[node]}", True) for node in ("field", "maps")
    ]
    assert digests(told("status", url)) == expected
    assert told("verify", url) == []


def _page_is_copied(qsm, url: str, study: CohortStore, out: Path) -> None:
    code, page, _ = qsm("report", url, "--out", out)
    assert (code, page) == (0, f"{out}/report/index.html\n")
    for name in ("report/scans/sub-01.png", "tables/regions.tsv", "tables/regions.parquet"):
        assert (out / name).read_bytes() == study.read_document(name)
    assert 'src="scans/sub-01.png"' in Path(page.strip()).read_text()


def test_wrong_credentials_end_a_run_before_anything_is_started(qsm, bids, s3_url, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-this")
    monkeypatch.setattr("qsm_dask.cli.steps.compile_kernels", lambda *_, **__: pytest.fail("it went on"))
    for command in (("run", bids), ("ingest", bids)):
        code, _, err = qsm(*command, s3_url)
        assert (code, len(err.splitlines())) == (2, 1)
        assert "access is denied; check the credentials in the environment" in err
        assert "not-this" not in err


def test_a_bucket_that_is_not_there_is_one_line(qsm, bids, s3_url):
    code, _, err = qsm("ingest", bids, s3_url.replace("cohorts", "no-such-bucket"))
    assert (code, len(err.splitlines())) == (2, 1)
    assert "there is no such bucket" in err


def test_a_url_that_holds_no_cohort_is_wrong_usage(qsm, s3_url):
    code, _, err = qsm("status", s3_url)
    assert code == 2
    assert f"{s3_url} is no cohort" in err


@pytest.mark.parametrize("command", [("run", "."), ("status",), ("process",), ("report",), ("gc",), ("verify",)])
def test_a_url_that_is_none_is_wrong_usage(qsm, command):
    code, _, err = qsm(*command, "s3:/cohorts/x")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "give a folder, or a URL s3://bucket/name" in err


@pytest.fixture
def bids_url(s3_url, bids):
    """The dataset as objects."""
    files = files_at(Place.parse(f"{s3_url}-bids"))
    files.put_all((path.relative_to(bids).as_posix(), path.read_bytes()) for path in bids.rglob("*") if path.is_file())
    yield f"{s3_url}-bids"
    for name in files.names(""):
        files.remove(name)


def test_a_dataset_in_an_object_store_is_read_scan_by_scan(told, qsm, bids_url, study, tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    cohort = tmp_path / "cohort"
    truth = f"{bids_url}/derivatives/truth:dseg"
    options = ("--derivatives", truth, "--cluster", "serial")
    assert told("ingest", bids_url, cohort, *options)["converted"] == 2
    assert list(scratch.iterdir()) == []
    assert ingested(CohortStore.open(cohort)) == ingested(study)
    assert told("ingest", bids_url, cohort, *options)["unchanged"] == 2

    files = files_at(Place.parse(bids_url))
    image = next(name for name in files.sizes("sub-01/anat") if "part-phase" in name and name.endswith(".nii.gz"))
    files.put(image, files.get(image)[:1000])
    code, _, err = qsm("ingest", bids_url, cohort, *options)
    assert code == 1
    assert f"{image}: truncated or damaged" in err
    assert list(scratch.iterdir()) == []


def ingested(cohort: CohortStore) -> dict[str, str]:
    rows = cohort.index()
    rows = rows[rows["node"] == "ingest"]
    return dict(zip(rows["scan"], rows["digest"], strict=True))


def test_a_dataset_that_is_not_there_is_said_so(qsm, s3_url, tmp_path):
    code, _, err = qsm("ingest", f"{s3_url}/nowhere", tmp_path / "cohort", "--cluster", "serial")
    assert code == 2
    assert f"{s3_url}/nowhere: no such dataset" in err
    assert not (tmp_path / "cohort").exists()
    code, _, err = qsm("ingest", s3_url, tmp_path / "c", "--cluster", "serial", "--derivatives", "s3://other/x:dseg")
    assert code == 2


def test_a_scan_that_the_scratch_disk_has_no_room_for_is_refused(qsm, bids_url, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("qsm_dask.io.remote.shutil.disk_usage", lambda _: usage)
    code, _, err = qsm("ingest", bids_url, tmp_path / "cohort", "--cluster", "serial")
    assert code == 1
    assert "the scratch disk has 0.00 GiB left: set TMPDIR to a larger one" in err
