"""Folders of one run for what it needs while it lasts; what killed runs left behind goes at the next start."""

import fcntl
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

_OWNER = ".owner"
"""A file in each folder, which names its machine; its owner holds a lock on it, which the system drops at any death."""


@contextmanager
def own_folder(parent: str | Path | None, prefix: str) -> Iterator[str]:
    """A folder that only this user may enter; removed at exit, with those of owners that were killed on this machine.

    Parameters
    ----------
    parent : where it is made; None is the system's folder for temporary files.
    prefix : what its name begins with.

    Raises
    ------
    OSError : it cannot be made.
    """
    parent = tempfile.gettempdir() if parent is None else parent
    sweep(parent, prefix)
    folder = tempfile.mkdtemp(prefix=prefix, dir=parent)
    try:
        mine = os.open(Path(folder, _OWNER), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(mine, "wb", buffering=0) as owner:
            _claim(owner)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(parent: str | Path, prefix: str) -> None:
    """Remove folders of this user whose owner ran on this machine and is gone; leave everything else alone."""
    with suppress(OSError):  # what cannot be looked at is not ours to remove
        for folder in Path(parent).glob(f"{prefix}*"):
            with suppress(OSError):
                _remove_abandoned(folder)


def _claim(owner: IO[bytes]) -> None:
    """Lock the file, then say whose it is: without a name nobody takes it for abandoned."""
    with suppress(OSError):  # where nothing can be locked, or written, the folder stays when its owner is killed
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        owner.write(socket.gethostname().encode())


def _remove_abandoned(folder: Path) -> None:
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        return
    with (folder / _OWNER).open("r+") as owner:
        fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if owner.read(256) == socket.gethostname():
            shutil.rmtree(folder, ignore_errors=True)
