"""Real servers for tests: each starts on 127.0.0.1 only and is stopped by its pid."""

import os

import pytest


def need(part: str, how: str, *, found: bool) -> None:
    """Skip a test whose part is not on this machine; where `QSM_DASK_ALL_PARTS` is set, as in CI, fail it.

    Parameters
    ----------
    part : what is needed.
    how : how to install it.
    found : whether it is there.
    """
    if found:
        return
    if os.environ.get("QSM_DASK_ALL_PARTS"):
        pytest.fail(f"{part} is missing: {how}")
    pytest.skip(f"{part} is missing: {how}")
