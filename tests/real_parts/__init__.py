"""Real servers for tests: each starts on 127.0.0.1 only and is stopped by its pid."""

import os
import socket

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


def need_rights(what: str, *, granted: bool) -> None:
    """Skip a test of which this user, or this container, may not do a thing; nothing that can be installed helps."""
    if not granted:
        pytest.skip(f"{what} is not permitted here: run the tests as root, who may mount and make networks")


def free_ports(count: int) -> list[int]:
    """Ports that are free, and whose gRPC port (10,000 above) is too."""
    found: list[int] = []
    for port in range(20000 + os.getpid() % 5000, 50000):
        if len(found) == count:
            break
        try:
            for wanted in (port, port + 10000):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", wanted))
        except OSError:
            continue
        found.append(port)
    return found
