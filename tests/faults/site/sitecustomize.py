"""Python imports this when it starts, where a test has put this folder on PYTHONPATH: drivers, workers, batch jobs."""

import os

if "QSM_DASK_TEST_FAULTS" in os.environ:
    from tests.faults import planted

    planted.plant()
