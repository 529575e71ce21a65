"""The folder of compiled kernels: named after the sources, private, inherited."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from qsm_dask import numba_cache

CALL = """
import json, os
from qsm_dask import numba_cache
folder = numba_cache.configure()
import numba
print(json.dumps([str(folder), os.environ["NUMBA_CACHE_DIR"], numba.config.CACHE_DIR, str(numba_cache.configure())]))
"""


def configured(**environment):
    """What a fresh process tells of its cache folder."""
    kept = {name: value for name, value in os.environ.items() if name not in {"NUMBA_CACHE_DIR", "XDG_CACHE_HOME"}}
    done = subprocess.run(
        [sys.executable, "-c", CALL], env=kept | environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.fixture(autouse=True)
def _local(tmp_path):
    if not numba_cache._on_local_disk(tmp_path):
        pytest.skip(f"{tmp_path} is on no local disk")


def test_numba_reads_the_folder_and_a_second_call_changes_nothing(tmp_path):
    folder, environment, read, again = configured(XDG_CACHE_HOME=str(tmp_path))
    assert folder == environment == read == again
    assert folder == str(tmp_path / "qsm_dask" / numba_cache.folder_name())
    assert Path(folder).stat().st_mode & 0o777 == 0o700


def test_a_folder_set_by_the_user_is_the_parent_and_children_do_not_nest(tmp_path):
    folder = configured(NUMBA_CACHE_DIR=str(tmp_path / "mine"))[0]
    assert folder == str(tmp_path / "mine" / numba_cache.folder_name())
    assert configured(NUMBA_CACHE_DIR=folder)[0] == folder
    stale = str(tmp_path / "mine" / "qsm_dask-0123456789abcdef")
    assert configured(NUMBA_CACHE_DIR=stale)[0] == folder


def test_homes_that_cannot_be_written_fall_back_to_the_temporary_folder(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    folder = configured(XDG_CACHE_HOME=str(blocked), TMPDIR=str(temporary))[0]
    assert folder == str(temporary / f"qsm_dask-{os.getuid()}" / numba_cache.folder_name())


def test_a_folder_that_others_can_write_is_not_trusted(tmp_path, monkeypatch):
    """Compiled code is loaded from there: whoever can write it runs code as this user."""
    shared, temporary = tmp_path / "cache" / "qsm_dask", tmp_path / "tmp"
    shared.mkdir(parents=True)
    temporary.mkdir()
    shared.chmod(0o777)
    folder = configured(XDG_CACHE_HOME=str(tmp_path / "cache"), TMPDIR=str(temporary))[0]
    assert folder.startswith(str(temporary))
    planted = temporary / f"qsm_dask-{os.getuid()}"
    planted.chmod(0o777)
    folder = configured(XDG_CACHE_HOME=str(tmp_path / "cache"), TMPDIR=str(temporary))[0]
    assert folder.startswith(str(temporary / "qsm_dask-"))
    assert not folder.startswith(str(planted) + os.sep)


def test_network_disks_are_passed_over(tmp_path, monkeypatch):
    mounts = tmp_path / "mountinfo"
    root = "22 1 0:20 / / rw,relatime - ext4 /dev/vda rw"
    home = f"30 22 0:50 / {tmp_path}/net rw,relatime shared:1 - nfs4 server:/home rw"
    mounts.write_text(f"{root}\n{home}\n")
    monkeypatch.setattr(numba_cache, "_MOUNTS", mounts)
    assert not numba_cache._on_local_disk(tmp_path / "net" / "user" / ".cache")
    assert numba_cache._on_local_disk(tmp_path / "local")


@pytest.mark.parametrize("change", ["edit", "rename", "add"])
def test_any_change_of_the_sources_changes_the_name(tmp_path, monkeypatch, change):
    kernels = tmp_path / "kernels"
    (kernels / "unwrap").mkdir(parents=True)
    (kernels / "jit.py").write_text("OPTIONS = 1\n")
    (kernels / "unwrap" / "tree.py").write_text("x = 1\n")
    monkeypatch.setattr(numba_cache, "KERNELS", kernels)
    before = numba_cache.folder_name()
    assert before == numba_cache.folder_name()
    if change == "edit":
        (kernels / "unwrap" / "tree.py").write_text("x = 2\n")
    elif change == "rename":
        (kernels / "unwrap" / "tree.py").rename(kernels / "unwrap" / "forest.py")
    else:
        (kernels / "new.py").write_text("")
    assert numba_cache.folder_name() != before
