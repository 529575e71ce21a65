"""Scratch of a run that was killed goes at the next start; that of runs under way, and of others, stays."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from qsm_dask.scratch import own_folder, sweep

_OWNER = """
import sys, time
from qsm_dask.scratch import own_folder
with own_folder(sys.argv[1], "run-") as folder:
    print(folder, flush=True)
    time.sleep(300)
"""


def test_what_a_killed_run_left_behind_is_swept(tmp_path: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", _OWNER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    theirs = Path(owner.stdout.readline().strip())
    (theirs / "big").write_bytes(b"x")
    with own_folder(tmp_path, "run-") as mine:
        assert Path(mine).stat().st_mode & 0o777 == 0o700
        assert theirs.exists(), "a run under way lost its folder"
        owner.kill()
        owner.communicate()
        with own_folder(tmp_path, "run-") as third:
            assert sorted(tmp_path.iterdir()) == sorted(map(Path, (mine, third)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("host", ["another-machine", None, ""])
def test_what_is_not_known_to_be_ours_stays(tmp_path: Path, host: str | None) -> None:
    """Another machine's lock may not be seen from here; a folder without an owner is somebody else's."""
    folder = tmp_path / "run-1"
    folder.mkdir()
    if host is not None:
        (folder / ".owner").write_text(host)
    sweep(tmp_path, "run-")
    assert folder.exists()
    (folder / ".owner").write_text(socket.gethostname())
    sweep(tmp_path, "other-")
    assert folder.exists()
    sweep(tmp_path, "run-")
    assert not folder.exists()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.mkdir()
    (target / ".owner").write_text(socket.gethostname())
    (tmp_path / "run-1").symlink_to(target)
    sweep(tmp_path, "run-")
    assert target.exists()
