"""Where compiled kernels are kept: a folder named after the sources, on a private local disk.

numba checks only the file of the function it loads, so that a caller stays stale when a
helper in another file changed. A folder for each state of the sources cannot be stale.
"""

import hashlib
import os
import shutil
import stat
import sys
import tempfile
from importlib import metadata
from pathlib import Path

KERNELS = Path(__file__).parent / "kernels"
VARIABLE = "NUMBA_CACHE_DIR"
"""Numba reads the folder of its cache from this variable of the environment."""
_PREFIX = "qsm_dask-"
_ROOM = 64 * 2**20
_LOCAL = frozenset(
    {"apfs", "bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "hfs", "overlay", "tmpfs", "xfs", "zfs"}
)
_MOUNTS = Path("/proc/self/mountinfo")


def configure() -> Path:
    """Point numba at the cache folder of these sources; call it before numba is imported.

    A folder set by the user in `NUMBA_CACHE_DIR` is used as the parent. Otherwise the first
    of `$XDG_CACHE_HOME`, `~/.cache` and the folder for temporary files that lies on a local
    disk with room left and can be written by this user alone: compiled code is loaded from
    there, and network homes are slow and shared between processors.

    Returns
    -------
    Path : the folder, which exists and which child processes inherit.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen:
        parent = Path(chosen)
        folder = (parent.parent if parent.name.startswith(_PREFIX) else parent) / folder_name()
        folder.mkdir(parents=True, exist_ok=True)
    else:
        folder = _private_folder()
    os.environ[VARIABLE] = str(folder)
    numba = sys.modules.get("numba")
    if numba is not None:  # it has read the environment already
        numba.config.CACHE_DIR = str(folder)
    return folder


def folder_name() -> str:
    """The name of the cache folder: a hash of every kernel source and of what compiles them."""
    digest = hashlib.sha256()
    for package in ("numba", "llvmlite", "numpy"):
        digest.update(f"{package} {metadata.version(package)}\n".encode())
    digest.update(sys.version.encode())
    for source in sorted(KERNELS.rglob("*.py")):
        digest.update(source.relative_to(KERNELS).as_posix().encode() + b"\0" + source.read_bytes())
    return _PREFIX + digest.hexdigest()[:16]


def installation() -> list[str | int]:
    """Where the sources lie and when they were last written: numba loads nothing that it compiled for others."""
    return [str(KERNELS), max(source.stat().st_mtime_ns for source in KERNELS.rglob("*.py"))]


def _private_folder() -> Path:
    for parent in _parents():
        folder = parent / folder_name()
        if _on_local_disk(parent) and _made_private(parent) and _made_private(folder) and _has_room(folder):
            return folder
    return Path(tempfile.mkdtemp(prefix=_PREFIX))


def _parents() -> list[Path]:
    caches = os.environ.get("XDG_CACHE_HOME")
    found = [Path(caches)] if caches and Path(caches).is_absolute() else []
    home = os.environ.get("HOME")
    if home and not found:
        found.append(Path(home) / ".cache")
    return [*(cache / "qsm_dask" for cache in found), Path(tempfile.gettempdir()) / f"qsm_dask-{os.getuid()}"]


def _made_private(folder: Path) -> bool:
    """Make a folder and tell whether it can be written, and by its owner, this user, only."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = folder.lstat()
    except OSError:
        return False
    ours = stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid()
    return ours and not state.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and os.access(folder, os.W_OK | os.X_OK)


def _has_room(folder: Path) -> bool:
    """Whether compiled kernels fit: on a full disk every first call of one would fail."""
    return shutil.disk_usage(folder).free >= _ROOM


def _on_local_disk(folder: Path) -> bool:
    """Whether a folder, which need not exist yet, lies on a disk of this machine."""
    try:
        lines = _MOUNTS.read_text().splitlines()
    except OSError:
        return True  # no Linux: nothing tells
    target = folder.resolve()
    best, kind = -1, ""
    for line in lines:
        left, _, right = line.partition(" - ")
        mount = Path(left.split()[4].replace("\\040", " "))
        if len(mount.parts) >= best and target.is_relative_to(mount):
            best, kind = len(mount.parts), right.split()[0]
    return kind in _LOCAL
