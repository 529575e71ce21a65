"""What a user may give as the place of a cohort, and what is refused before anything is made there."""

from pathlib import Path

import pytest

from qsm_dask.errors import ConfigError
from qsm_dask.place import Place


@pytest.mark.parametrize("text", ["s3://bucket", "gs://bucket.eu/study/a_b.qsm", "az://container/x=1"])
def test_a_url_is_kept_without_its_last_slash(text: str) -> None:
    assert Place.parse(text) == Place.parse(f"{text}/") == Place(text)
    assert Place(text).folder is None
    assert Place(text).of("report/index.html") == f"{text}/report/index.html"


def test_anything_else_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Place.parse("study.qsm").folder == tmp_path / "study.qsm"
    assert Place.parse(tmp_path).of("tables") == f"{tmp_path}/tables"


@pytest.mark.parametrize(
    "text",
    ["ftp://host/x", "file:///data/x", "s3:/bucket/x", "S3://bucket/x", "s3://", "s3:///x", "s3://b/../c", "s3://b/a//c",
     "s3://b/./c", "s3://b/a b", "s3://b/a?x=1", "s3://b/a%2e", "s3://b/a\nb"],
)  # fmt: skip
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="give a folder, or a URL s3://bucket/name"):
        Place.parse(text)


def test_a_url_with_a_secret_is_refused_without_repeating_it() -> None:
    with pytest.raises(ConfigError, match="holds no credentials") as caught:
        Place.parse("s3://key:secret@bucket/cohort")
    assert "secret" not in str(caught.value)
