"""Quantitative susceptibility mapping for cohorts: BIDS in, regional iron out, on Zarr and Dask.

>>> import qsm_dask as qd
>>> cohort = qd.open_cohort("study.qsm")  # doctest: +SKIP
>>> cohort.dataset()["chi"].sel(region="putamen_left", statistic="median")  # doctest: +SKIP
"""

from qsm_dask.api import ingest, open_cohort, open_engine, process
from qsm_dask.errors import ConfigError, DamageError, EngineError, InputError, QsmError, StageError, StoreError
from qsm_dask.pipeline import Pipeline
from qsm_dask.quantities import QUANTITIES, Quantity
from qsm_dask.scan import Geometry, ScanKey
from qsm_dask.stages import STAGES, Stage
from qsm_dask.store import CohortStore

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
    "ingest",
    "open_cohort",
    "open_engine",
    "process",
]
