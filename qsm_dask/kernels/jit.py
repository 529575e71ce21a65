"""How every numba function of the kernels is compiled: the one place of its options."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])

OPTIONS: dict[str, Any] = {
    "nogil": True,  # a worker must answer its scheduler while a kernel runs
    "cache": True,
    "error_model": "numpy",  # a division by zero is inf, as in NumPy, and costs no branch
    "fastmath": False,  # reassociated sums differ between processors, and so would digests
    "parallel": False,  # a scan is one task on one core; numba's fallback layer aborts when two threads meet in it
}


def compiled(function: F) -> F:
    """Compile a function of arrays and scalars with the options that all kernels share.

    Give it arrays that are C-contiguous and, where it only reads, read-only (as
    `series.volume` does): numba compiles once for each kind of array it meets.
    """
    return cast("F", numba.njit(**OPTIONS)(function))
