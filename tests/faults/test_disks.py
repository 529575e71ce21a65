"""The disk of the store, or that of the scratch folder, is full."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qsm_dask.engine import open_engine
from qsm_dask.errors import ConfigError
from qsm_dask.store import CohortStore
from tests.faults.study import PIPELINE, Faults, Study, finish, start
from tests.real_parts import need_rights

MIB = 2**20


@contextmanager
def small_disk(folder: Path, size: int, inodes: int = 0) -> Iterator[Path]:
    """A file system of so many bytes and files (0: any number), in memory."""
    need_rights("mounting a small disk", granted=can_mount(folder.with_name("probe")))
    folder.mkdir(parents=True, exist_ok=True)
    mount("-t", "tmpfs", "-o", f"size={size},nr_inodes={inodes}", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def can_mount(probe: Path) -> bool:
    probe.mkdir(exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(probe)], capture_output=True, check=False).returncode:
        return False
    subprocess.run(["umount", str(probe)], check=True)
    return True


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def size_of(folder: Path) -> int:
    """What its files take on a file system in memory."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


def test_the_store_is_full(study: Study, faults: Faults, tmp_path: Path) -> None:
    """Scans whose results do not fit fail with the reason; with more room, what is missing is computed."""
    ingested, one = size_of(study.ingested), size_of(study.ingested.with_name("undisturbed") / "scans" / "sub-01")
    room = ingested + one - size_of(study.ingested / "scans" / "sub-01")  # for the results of one scan
    with small_disk(tmp_path / "disk", room + MIB // 16) as disk:
        cohort = study.copy(disk / "cohort")
        command = ("process", cohort.place, "--pipeline", PIPELINE, "--cluster", "serial")
        _, complaints = finish(start(faults, *command), 1)
        assert "no space left on the device; free some and run the same command again" in complaints
        assert "Traceback" not in complaints
        failed = [row for row in cohort.index().itertuples() if row.state == "failed"]
        assert {row.scan for row in failed} == {"sub-02", "sub-03"}
        assert all("no space left on the device" in row.reason for row in failed)
        drafts = [path for path in disk.rglob(".*") if path.name.startswith(".")]
        assert drafts == []
        mount("-o", f"remount,size={room * 10}", str(disk))
        committed = len([path for path in disk.glob("cohort/scans/*/*/*/COMMIT.json") if "/ingest/" not in str(path)])
        assert committed >= 3
        out, _ = finish(start(faults, *command, "--json"))
        assert json.loads(out)["nodes_computed"] == 9 - committed
        study.assert_whole(cohort)


@pytest.mark.slow
def test_the_store_has_room_for_nothing(study: Study, faults: Faults, tmp_path: Path) -> None:
    """Not even the index can be written: the command ends with one line that says so."""
    with small_disk(tmp_path / "disk", size_of(study.ingested) + MIB // 16) as disk:
        cohort = study.copy(disk / "cohort")
        fill(disk)
        command = ("process", cohort.place, "--pipeline", PIPELINE, "--cluster", "serial", "--quiet")
        _, complaints = finish(start(faults, *command), 1)
        assert len(complaints.splitlines()) == 1
        assert "no space left on the device; free some and run the same command again" in complaints
        mount("-o", f"remount,size={10 * size_of(disk)}", str(disk))
        finish(start(faults, *command))
        study.assert_whole(cohort)


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue


def test_the_scratch_folder_is_full(study: Study, cohort: CohortStore, faults: Faults, tmp_path: Path) -> None:
    """Nothing of a scan lies there: results go to the store only."""
    with small_disk(tmp_path / "disk", MIB) as disk:
        fill(disk)
        cluster = tmp_path / "cluster.json"
        cluster.write_text(json.dumps({"kind": "local", "workers": 1, "memory": "1 GiB", "scratch": str(disk)}))
        command = ("process", cohort.place, "--pipeline", PIPELINE, "--cluster", cluster, "--json")
        out, _ = finish(start(faults, *command))
        assert json.loads(out)["nodes_computed"] == 9
        study.assert_whole(cohort)


def test_the_disk_of_compiled_kernels_is_full(tmp_path: Path) -> None:
    """They are kept elsewhere: where they cannot be written, every first call of one would fail."""
    ask = "from qsm_dask import numba_cache; print(numba_cache.configure())"
    (tmp_path / "tmp").mkdir()
    with small_disk(tmp_path / "disk", MIB) as disk:
        kept = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
        environment = kept | {"XDG_CACHE_HOME": str(disk), "TMPDIR": str(tmp_path / "tmp")}
        told = subprocess.run([sys.executable, "-c", ask], env=environment, capture_output=True, text=True, check=True)
    assert Path(told.stdout.strip()).is_relative_to(tmp_path / "tmp")


def test_the_scratch_folder_takes_no_folder(tmp_path: Path) -> None:
    """It is told at once, and with the remedy."""
    with small_disk(tmp_path / "disk", MIB, inodes=1) as disk:
        spec = {"kind": "local", "workers": 1, "memory": "1 GiB", "scratch": str(disk)}
        with pytest.raises(ConfigError, match=r"No space left.*`scratch`.*free some space"), open_engine(spec):
            pytest.fail("it started")
