"""`python -m qsm_dask` is `qsm-dask`."""

from qsm_dask.cli import main

main()
