"""A driver to be killed: opens an engine, says which processes work for it, and waits for them."""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from qsm_dask.engine import open_engine
from qsm_dask.engine.dask import DaskEngine
from tests.engine.tasks import no_memory

LOCAL = {"kind": "local", "workers": 2, "memory": "1 GiB"}


def hang(_key: int) -> None:
    time.sleep(300)


def pass_by(key: int) -> int:
    return key


def stumble(key: int) -> None:
    block = Path(os.environ["STUMBLING_BLOCK"])
    if key == 0 and not block.exists():
        block.touch()
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGKILL)


def main(task_name: str, spec: dict[str, Any]) -> None:
    task = {"hang": hang, "pass_by": pass_by, "stumble": stumble}[task_name]
    with open_engine(spec) as engine:
        assert isinstance(engine, DaskEngine)
        engine.client.wait_for_workers(engine.slots)
        print(*engine.client.run(os.getpid).values(), flush=True)
        for outcome in engine.map(task, range(4), memory=no_memory):
            assert outcome.ok


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]) if sys.argv[2:] else LOCAL)
