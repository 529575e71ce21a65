"""Which software made a result: package, interpreter and numerical libraries."""

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

_LIBRARIES = ("qsm-dask", "numpy", "scipy", "numba", "zarr", "dask", "distributed", "nibabel")


@cache
def software() -> dict[str, str]:
    """Versions by name. They are provenance: keys of commits do not depend on them."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
