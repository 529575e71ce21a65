"""Preloaded by a worker that shall seem to be of another version, or to lack a package."""

import os
import sys

from qsm_dask import provenance

if version := os.environ.get("STRANGER_VERSION"):
    provenance.software = lambda: {"qsm-dask": version}
for name in os.environ.get("STRANGER_LACKS", "").split():
    sys.modules[name] = None  # type: ignore[assignment]  # so that Python does not find it
