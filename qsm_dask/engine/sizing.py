"""How large workers are, and what a task may take of one."""

import math
from typing import Literal

from qsm_dask.engine.base import gibibytes
from qsm_dask.engine.resources import Machine
from qsm_dask.errors import ConfigError
from qsm_dask.kernels.fourier import CACHE_BYTES

AUTO: Literal["auto"] = "auto"
BASELINE = 350 * 2**20 + CACHE_BYTES
"""What a worker process takes beside its scan: Python, NumPy, SciPy, Numba, Zarr, dask, and kept spectra [bytes]."""
HEADROOM = 1.3
"""A worker has so many times the memory that its task and itself are projected to need."""
NANNY = 256 * 2**20
"""What the process takes that starts a worker, watches its memory, and starts it again [bytes]."""
LEAST_WORKER = 2 * 2**30
"""With `workers: auto`, no worker gets less memory than this [bytes]."""


def plan(machine: Machine, *, workers: str | int, threads: int, memory: str | int) -> tuple[int, int]:
    """How many workers a machine holds, and the memory of each [bytes].

    A tenth of the memory, at least 512 MiB, is left to the driver and the system.

    Raises
    ------
    ConfigError : what is asked for does not fit the machine.
    """
    usable = machine.memory - max(machine.memory // 10, 512 * 2**20)
    size = None if memory == AUTO else size_of(memory)
    if workers == AUTO:
        fitting = usable // (size or LEAST_WORKER)
        count = max(1, min(machine.cpus // threads, fitting))
    else:
        count = whole("workers", workers)
    if size is None:
        size = usable // count
    if count * size > machine.memory:
        raise ConfigError(
            f"cluster: {count} workers of {gibibytes(size)} do not fit this machine's {gibibytes(machine.memory)}: "
            "lower `workers` or `memory`, or say `auto`"
        )
    return count, size


def task_limit(worker_memory: int) -> int:
    """The memory that one task may take in a worker of this size [bytes].

    Raises
    ------
    ConfigError : the worker is too small for any task.
    """
    limit = int(worker_memory / HEADROOM) - BASELINE
    if limit <= 0:
        raise ConfigError(
            f"cluster: a worker of {gibibytes(worker_memory)} has no room for a scan: "
            f"give it more than {gibibytes(HEADROOM * BASELINE)} (fewer `workers`, or a larger `memory`)"
        )
    return limit


def worker_for(task_bytes: int) -> int:
    """The least memory of a worker in which a task may take so much [bytes]: the inverse of `task_limit`."""
    return math.ceil(HEADROOM * (task_bytes + BASELINE)) + 1


def job_memory(memory: str | int) -> tuple[int, int]:
    """Memory of one job of a batch system, and of the worker in it [bytes].

    The batch system ends the whole job at its limit; a worker that takes too much shall meet its
    own limit first, which is told from a crash.

    Raises
    ------
    ConfigError : it is no size.
    """
    size = size_of(memory)
    return size, size - NANNY


def seconds(name: str, value: str | int) -> float:
    """A time such as `90 s`, `4 h`, `2 days` or `04:00:00` [s].

    YAML reads `12:00:00` without quotes as the number of seconds, which is right too.

    Raises
    ------
    ConfigError : it is no time above zero.
    """
    from dask.utils import parse_timedelta

    text = str(value).strip()
    try:
        if text.count(":") == 2:
            hours, minutes, left = map(int, text.split(":"))
            found = float(hours * 3600 + minutes * 60 + left)
        else:
            found = float(parse_timedelta(text, default="s"))
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"cluster: {name} {value!r} is not a time such as `4 h` or `04:00:00`") from error
    if found <= 0:
        raise ConfigError(f"cluster: {name} is a time above zero, not {value!r}")
    return found


def whole(name: str, value: object) -> int:
    """An option that counts something.

    Raises
    ------
    ConfigError : it is not a whole number of at least 1.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"cluster: {name} is a whole number of at least 1, not {value!r}")
    return value


def size_of(value: str | int) -> int:
    """A size such as `4 GiB` [bytes].

    Raises
    ------
    ConfigError : it is no size.
    """
    from dask.utils import parse_bytes

    try:
        return int(parse_bytes(value))
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"cluster: memory {value!r} is not a size such as `4 GiB`, or `auto`") from error
