"""Quantitative susceptibility mapping for cohorts: BIDS in, regional iron out, on Zarr and Dask.

>>> import qsm_dask as qd
>>> cohort = qd.open_cohort("study.qsm")  # doctest: +SKIP
>>> cohort.dataset()["chi"].sel(region="putamen_left", statistic="median")  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from qsm_dask import numba_cache

if TYPE_CHECKING:
    from qsm_dask.api import append_cube, build_template, ingest, open_cohort, open_engine, process
    from qsm_dask.errors import ConfigError, DamageError, EngineError, InputError, QsmError, StageError, StoreError
    from qsm_dask.pipeline import Pipeline
    from qsm_dask.quantities import QUANTITIES, Quantity
    from qsm_dask.scan import Geometry, ScanKey
    from qsm_dask.stages import STAGES, Stage
    from qsm_dask.store import CohortStore

    __version__: str

__all__ = [
    "QUANTITIES",
    "STAGES",
    "CohortStore",
    "ConfigError",
    "DamageError",
    "EngineError",
    "Geometry",
    "InputError",
    "Pipeline",
    "QsmError",
    "Quantity",
    "ScanKey",
    "Stage",
    "StageError",
    "StoreError",
    "append_cube",
    "build_template",
    "ingest",
    "open_cohort",
    "open_engine",
    "process",
]

_HOMES = {
    "api": ("append_cube", "build_template", "ingest", "open_cohort", "open_engine", "process"),
    "pipeline": ("Pipeline",),
    "quantities": ("QUANTITIES", "Quantity"),
    "scan": ("Geometry", "ScanKey"),
    "stages": ("STAGES", "Stage"),
    "store": ("CohortStore",),
}


numba_cache.configure()  # before any kernel is imported: Numba chooses the folder when it decorates


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: the command line's help must not wait for Numba and Dask."""
    if name == "__version__":
        return import_module(f"{__name__}.provenance").software()["qsm-dask"]
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = next((module for module, names in _HOMES.items() if name in names), "errors")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
