"""The command line: one command a workflow file, and nothing that a script could not call."""

from qsm_dask.cli.app import app, main

__all__ = ["app", "main"]
