"""Where tasks run: one after another in this process, or on a dask cluster."""

from qsm_dask.engine.base import Engine, Outcome, SerialEngine
from qsm_dask.engine.cluster import KINDS, open_engine, parse, read_spec
from qsm_dask.engine.resources import PeakMemory

__all__ = ["KINDS", "Engine", "Outcome", "PeakMemory", "SerialEngine", "open_engine", "parse", "read_spec"]
