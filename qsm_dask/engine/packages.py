"""Packages that only some pipelines need: whether this Python has them."""

from collections.abc import Mapping
from importlib.util import find_spec


def lacking(packages: Mapping[str, str]) -> dict[str, str]:
    """Those that this Python cannot import.

    Parameters
    ----------
    packages : modules, with the extra of qsm-dask that brings each.
    """
    return {name: extra for name, extra in packages.items() if find_spec(name) is None}


def advice(missing: Mapping[str, str]) -> str:
    """Names of packages, and how to come by them."""
    extras = ",".join(sorted(set(missing.values())))
    return f"{', '.join(sorted(missing))}: pip install 'qsm-dask[{extras}]'"
