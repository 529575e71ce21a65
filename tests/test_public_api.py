"""The front door: what `import qsm_dask` offers, and that it is documented."""

import inspect
import subprocess
import sys
from importlib import metadata

import pytest

import qsm_dask as qd


def test_every_public_name_can_be_imported_and_is_documented():
    for name in qd.__all__:
        thing = getattr(qd, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert inspect.getdoc(thing), name


def test_public_methods_are_documented():
    for name, method in inspect.getmembers(qd.CohortStore, inspect.isfunction):
        assert name.startswith("_") or inspect.getdoc(method), name


def test_what_a_notebook_shows_of_an_object_is_one_short_line():
    from qsm_dask.workflow.ingest import Summary as Ingested
    from qsm_dask.workflow.process import Summary as Processed
    from qsm_dask.workflow.status import Status

    many = {f"sub-{n}": "its mask is empty" for n in range(1000)}
    shown = [
        *map(repr, qd.STAGES.values()),
        repr(qd.Pipeline.from_yaml("consensus")),
        repr(Ingested(1, 2, 3, 4, rows=({"scan": "sub-01"},) * 1000)),
        repr(Processed(done=5, failures=many)),
        repr(Status([{"state": "done"}] * 1000, [{}] * 1000, [], [], all_done=True)),
    ]
    assert all(len(text) < 400 and "\n" not in text and " at 0x" not in text for text in shown)
    assert shown[-4].startswith("Pipeline('consensus': mask.magnitude > ")
    assert "failed=1000, as sub-0: its mask is empty" in shown[-2]
    assert shown[-1] == "Status(1000 done)"


def test_the_version_is_that_of_the_installed_package():
    assert qd.__version__ == metadata.version("qsm-dask")
    assert "__version__" in dir(qd)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        qd.nonsense  # noqa: B018


def test_help_does_not_load_the_numerical_libraries():
    code = "import sys, qsm_dask.cli; print([m for m in ('numba', 'scipy', 'zarr', 'distributed') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
