"""The cohort store: chunked Zarr v3 arrays, one commit a node, an index in Parquet."""

from qsm_dask.store.cohort import CohortStore
from qsm_dask.store.commit import ArrayEntry, Commit
from qsm_dask.store.layout import INGEST_KEY
from qsm_dask.store.recorder import Recorder
from qsm_dask.store.sweep import Leftover

__all__ = ["INGEST_KEY", "ArrayEntry", "CohortStore", "Commit", "Leftover", "Recorder"]
