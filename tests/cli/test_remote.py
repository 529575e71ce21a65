"""A cohort in a real object store from the command line, beside the same cohort in a folder."""

import subprocess
import sys
from pathlib import Path

import pytest

import qsm_dask as qd
from qsm_dask.engine import SerialEngine
from qsm_dask.pipeline import Pipeline
from qsm_dask.store import CohortStore
from qsm_dask.workflow import compare, ingest, process, report, simulate

ENGINE = SerialEngine(4 * 2**30)


@pytest.fixture(scope="module")
def bids(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("remote") / "bids"
    simulate.run(folder, subjects=2, shape=(32, 32, 24))
    return folder


@pytest.fixture(scope="module")
def local(bids) -> CohortStore:
    """The cohort in a folder with which the others are compared."""
    store = CohortStore.create(bids.parent / "cohort")
    ingest.run(bids, store, ENGINE, derivatives=[f"{bids / 'derivatives' / 'truth'}:dseg"])
    process.run(store, ENGINE, Pipeline.from_yaml("consensus"))
    compare.run(store)
    report.run(store)
    return store


def labels(bids):
    return ("--derivatives", f"{bids / 'derivatives' / 'truth'}:dseg")


def digests(rows):
    return {(row["scan"], row["node"]): row["digest"] for row in rows}


def test_a_run_into_an_object_store_gives_the_bits_of_a_folder(qsm, told, bids, local, s3_url, tmp_path):
    """The workers of a cluster find endpoint and credentials in the environment that they inherit."""
    command = [sys.executable, "-m", "qsm_dask", "run", bids, s3_url, *labels(bids), "--cluster", "local"]
    found = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, timeout=300)
    assert found.returncode == 0, found.stderr
    assert f"tables    {s3_url}/tables" in found.stderr
    assert f"report    {s3_url}/report/index.html\nto see it  qsm-dask report {s3_url} --out DIR" in found.stderr
    expected = digests(told("status", local.place))
    assert digests(told("status", s3_url)) == expected
    assert len(expected) == 8
    again = told("run", bids, s3_url, *labels(bids), "--cluster", "serial")
    assert (again["nodes_computed"], again["nodes_reused"], again["ingested"]["unchanged"]) == (0, 6, 2)
    assert again["report"] == f"{s3_url}/report/index.html"
    assert told("verify", s3_url) == []
    assert told("gc", s3_url, "--older-than", 0) == []
    assert told("compare", s3_url)["with_values"] == 2
    _page_is_copied(qsm, s3_url, local, tmp_path / "seen")
    assert told("export", s3_url, tmp_path / "exported")["exported"] == 2
    there, here = qd.open_cohort(s3_url), qd.open_cohort(local.place.url)
    assert there.dataset().compute().equals(here.dataset().compute())
    assert there.scan("sub-01").compute().equals(here.scan("sub-01").compute())


def _page_is_copied(qsm, url: str, local: CohortStore, out: Path) -> None:
    code, page, _ = qsm("report", url, "--out", out)
    assert (code, page) == (0, f"{out}/report/index.html\n")
    for name in ("report/scans/sub-01.png", "tables/regions.tsv", "tables/regions.parquet"):
        assert (out / name).read_bytes() == local.read_document(name)
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
    assert "a cohort is a folder, or a URL s3://bucket/name" in err
