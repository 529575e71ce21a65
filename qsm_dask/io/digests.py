"""Digests of what enters a cohort: equal content gives equal digests, wherever it came from."""

import hashlib
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray


def of_value(value: Any) -> str:
    """BLAKE2b-128 of plain values, in hexadecimal."""
    return _hex(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def of_array(array: NDArray[Any]) -> str:
    """BLAKE2b-128 of an array's dtype, shape and bytes in C order, in hexadecimal."""
    digest = hashlib.blake2b(f"{array.dtype.str}{array.shape}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _hex(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
