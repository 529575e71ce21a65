"""How every numba function of the kernels is compiled: the one place of its options."""

import types
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import scipy.fft

F = TypeVar("F", bound=Callable[..., Any])

prange = numba.prange

OPTIONS: dict[str, Any] = {
    "nogil": True,  # a worker must answer its scheduler while a kernel runs
    "cache": True,
    "error_model": "numpy",  # a division by zero is inf, as in NumPy, and costs no branch
    "fastmath": False,  # reassociated sums differ between processors, and so would digests
    "parallel": False,  # numba's fallback layer aborts when two threads meet in it
}

# Loops that are written as `prange`, and nothing else: a sum that numba spread by itself would have another order.
_PRANGE_ONLY = {
    "prange": True,
    **dict.fromkeys(("comprehension", "reduction", "inplace_binop", "setitem", "numpy", "stencil", "fusion"), False),
}


def compiled(function: F) -> F:
    """Compile a function of arrays and scalars with the options that all kernels share.

    Give it arrays that are C-contiguous and, where it only reads, read-only (as
    `series.volume` does): numba compiles once for each kind of array it meets.
    """
    return cast("F", numba.njit(**OPTIONS)(function))


def threads() -> int:
    """Threads that a kernel may use, in its transforms and beside them: those of `scipy.fft.set_workers`, else 1."""
    return int(scipy.fft.get_workers())


def spread(function: F) -> F:
    """Compile a function whose outer loop is a `prange` over slabs that do not depend on one another.

    It runs on one thread unless `threads` allows more, which a process may do for one scan at a time.
    A slab calls the same compiled code either way, so that results have the same bits.
    """
    return cast("F", _Spread(function))


class _Spread:
    """A function compiled for one thread, and for several once it is asked to."""

    def __init__(self, function: Callable[..., Any]) -> None:
        # Numba finds cached code by the name of its function, so each needs its own.
        other = types.FunctionType(function.__code__, function.__globals__, f"{function.__name__}_spread")
        other.__qualname__ = f"{function.__qualname__}_spread"
        self.py_func = function
        self._alone = numba.njit(**OPTIONS)(function)
        self._together = numba.njit(**{**OPTIONS, "parallel": _PRANGE_ONLY})(other)

    @property
    def stats(self) -> Any:
        """How often code was compiled or loaded, as numba counts it."""
        return (self._together if self._together.signatures else self._alone).stats

    def __call__(self, *arguments: Any) -> Any:
        return (self._together if threads() > 1 else self._alone)(*arguments)
