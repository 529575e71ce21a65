"""What the store asks of every backend; a new backend joins the fixture `files` and must pass all of it."""

import errno
import os
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qsm_dask.errors import StoreError
from qsm_dask.place import Place
from qsm_dask.store import files as files_module
from qsm_dask.store.files import Files, LocalFiles, files_at


@pytest.fixture(params=["local", "s3"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    if request.param == "local":
        return LocalFiles(tmp_path / "root")
    return files_at(Place.parse(request.getfixturevalue("s3_url")))


def test_an_object_is_read_as_it_was_put(files: Files) -> None:
    files.put("a/b/one", b"1")
    assert files.get("a/b/one") == b"1"


def test_what_is_not_there_is_none(files: Files) -> None:
    files.put("a", b"1")
    assert files.get("b") is None
    assert files.get("a/below") is None


def test_put_replaces(files: Files) -> None:
    files.put("a", b"longer than the next")
    files.put("a", b"2")
    assert files.get("a") == b"2"


def test_put_all_writes_every_object_of_an_iterator(files: Files) -> None:
    files.put_all((f"a/{n % 3}/{n}", bytes([n])) for n in range(50))
    assert [files.get(f"a/{n % 3}/{n}") for n in range(50)] == [bytes([n]) for n in range(50)]


def test_put_all_passes_on_what_its_iterator_raises(files: Files) -> None:
    def objects() -> Iterator[tuple[str, bytes]]:
        yield "a/1", b""
        raise RuntimeError("the encoder broke")

    with pytest.raises(RuntimeError, match="the encoder broke"):
        files.put_all(objects())


def test_sizes_are_of_all_objects_below_a_prefix(files: Files) -> None:
    files.put_all([("a/x", b"12"), ("a/b/y", b""), ("ab/z", b"1")])
    assert files.sizes("a") == {"a/x": 2, "a/b/y": 0}
    assert files.sizes("nowhere") == {}


def test_ages_are_of_all_objects_below_a_prefix(files: Files) -> None:
    files.put_all([("a/x", b"12"), ("a/b/y", b""), ("ab/z", b"1")])
    ages = files.ages("a")
    assert set(ages) == {"a/x", "a/b/y"}
    assert all(-2.0 < age < 60.0 for age in ages.values())
    assert files.ages("nowhere") == {}
    assert files.names("") == ["a", "ab"]


def test_a_file_is_as_old_as_the_file_system_says(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    files.put("a/x", b"12")
    written = (tmp_path / "a/x").stat().st_mtime - 7200.0
    os.utime(tmp_path / "a/x", (written, written))
    assert files.ages("a")["a/x"] == pytest.approx(7200.0, abs=60.0)


def test_names_are_the_next_parts_of_keys(files: Files) -> None:
    files.put_all([("a/x", b""), ("a/b/y", b""), ("c", b"")])
    assert files.names("a") == ["b", "x"]
    assert files.names("") == ["a", "c"]
    assert files.names("nowhere") == []


def test_remove_takes_an_object_or_all_below_a_prefix_or_nothing(files: Files) -> None:
    files.put_all([("a/x", b""), ("a/b/y", b""), ("c", b"")])
    files.remove("a")
    files.remove("c")
    files.remove("c")
    assert files.names("") in ([], ["a"])
    assert files.sizes("a") == {}


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "./a", "a\\b", "a/\0", "a\n"])
@pytest.mark.parametrize("use", ["get", "put", "put_all", "sizes", "remove"])
def test_no_key_leaves_the_root(files: Files, key: str, use: str) -> None:
    calls: dict[str, Callable[[], Any]] = {
        "get": lambda: files.get(key),
        "put": lambda: files.put(key, b""),
        "put_all": lambda: files.put_all([(key, b"")]),
        "sizes": lambda: files.sizes(key),
        "remove": lambda: files.remove(key),
    }
    with pytest.raises(StoreError, match="is no path inside a cohort"):
        calls[use]()


def test_a_failed_put_keeps_the_old_object_and_leaves_no_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = LocalFiles(tmp_path)
    files.put("a", b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=rf"cannot write {tmp_path}/a: no space left on the device; free some"):
        files.put("a", b"new")
    assert files.get("a") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_real_limit_of_file_size_is_explained(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(StoreError, match="larger than the limit"):
            files.put_all([("a/b", bytes(5000))])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everywhere")
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0o500)
    with pytest.raises(StoreError, match=rf"cannot write {tmp_path}/a/b: permission denied"):
        LocalFiles(tmp_path).put("a/b", b"")


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.EACCES, "permission denied"), (errno.EROFS, "mounted read-only"), (errno.EDQUOT, "quota")],
)
@pytest.mark.parametrize("use", ["put", "put_all", "get"])
def test_what_the_system_refuses_is_explained_with_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str, use: str
) -> None:
    files = LocalFiles(tmp_path)
    files.put("a", b"")

    def refuse(path: str, *args: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files_module, "open", refuse, raising=False)
    calls: dict[str, Callable[[], Any]] = {
        "put": lambda: files.put("a", b""),
        "put_all": lambda: files.put_all([("b", b"")]),
        "get": lambda: files.get("a"),
    }
    with pytest.raises(StoreError, match=rf"{tmp_path}/.*{words}"):
        calls[use]()


@pytest.fixture
def synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was made durable, in order, relative to `tmp_path`."""
    names: list[str] = []
    real = os.fsync

    def note(descriptor: int) -> None:
        names.append(str(Path(f"/proc/self/fd/{descriptor}").readlink().relative_to(tmp_path)))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    return names


def test_every_file_and_folder_is_synced_before_put_all_returns(tmp_path: Path, synced: list[str]) -> None:
    LocalFiles(tmp_path).put_all([("a/b/one", b"1"), ("a/two", b"2")])
    assert set(synced) == {"a/b/one", "a/two", "a/b", "a", "."}
    assert max(synced.index("a/b/one"), synced.index("a/two")) < min(synced.index(name) for name in ("a/b", "a", "."))


def test_a_folder_that_a_rival_made_is_synced_once_by_each(tmp_path: Path, synced: list[str]) -> None:
    LocalFiles(tmp_path).put_all([("a/b/one", b"1")])
    synced.clear()
    ours = LocalFiles(tmp_path)
    ours.put_all([("a/b/two", b"2")])
    assert set(synced) == {"a/b/two", "a/b", "a", "."}
    synced.clear()
    ours.put_all([("a/b/three", b"3")])
    assert set(synced) == {"a/b/three", "a/b"}


def test_a_folder_that_was_removed_and_made_again_is_synced_again(tmp_path: Path, synced: list[str]) -> None:
    files = LocalFiles(tmp_path)
    files.put("a/b/one", b"1")
    files.remove("a")
    synced.clear()
    files.put("a/b/one", b"1")
    assert {"a/b", "a", "."} <= set(synced)


def test_a_failed_put_all_returns_when_nobody_writes_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever removes the attempt then must not find files appearing behind its back."""
    real = os.fsync
    done: list[str] = []

    def slow(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        if name == "0":
            raise OSError(errno.ENOSPC, "No space left on device")
        time.sleep(0.1)
        real(descriptor)
        done.append(name)

    monkeypatch.setattr(os, "fsync", slow)
    with pytest.raises(StoreError, match="no space left"):
        LocalFiles(tmp_path).put_all((str(n), b"") for n in range(4))
    assert sorted(done) == ["1", "2", "3"]
