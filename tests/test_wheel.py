"""The wheel carries pipelines, cluster files and templates, and works in an empty folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_wheel_finds_its_files_from_an_empty_folder(tmp_path):
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path / "site")]
    subprocess.run([*pip, str(ROOT)], check=True)
    empty = tmp_path / "empty"
    empty.mkdir()
    code = (
        "from pathlib import Path; import qsm_dask; from qsm_dask import resources; "
        "print(Path(qsm_dask.__file__).parent, *resources.names('pipelines'), *resources.names('cluster')); "
        "print(len(list((Path(qsm_dask.__file__).parent / 'report' / 'templates').glob('*.html'))))"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=empty, env=environment, check=True, capture_output=True, text=True
    )
    where, *names, templates = found.stdout.split()
    assert Path(where) == tmp_path / "site" / "qsm_dask"
    assert {"consensus", "fast", "local", "serial"} <= set(names)
    assert int(templates) > 0
