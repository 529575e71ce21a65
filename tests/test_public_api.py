"""The front door: what `import qsm_dask` offers, and that it is documented."""

import inspect
import subprocess
import sys

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


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        qd.nonsense  # noqa: B018


def test_help_does_not_load_the_numerical_libraries():
    code = "import sys, qsm_dask.cli; print([m for m in ('numba', 'scipy', 'zarr', 'distributed') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
