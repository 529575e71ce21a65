"""Digests: equal content gives equal digests, whatever made it, wherever and whenever."""

import json
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

DIGEST_SIZE = 16


def checksum(data: bytes | memoryview) -> str:
    """BLAKE2b-128 of bytes, in hexadecimal."""
    return blake2b(data, digest_size=DIGEST_SIZE).hexdigest()


def canonical(value: Any) -> bytes:
    """The one JSON text of plain values.

    Raises
    ------
    ValueError : a number is not finite, which JSON cannot say.
    TypeError : something else is in it.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def digest_of(value: Any) -> str:
    """The checksum of plain values; see `canonical`."""
    return checksum(canonical(value))


def digest_of_array(array: NDArray[Any]) -> str:
    """BLAKE2b-128 of an array's dtype, shape and bytes in C order, in hexadecimal."""
    digest = blake2b(f"{array.dtype.str}{array.shape}".encode(), digest_size=DIGEST_SIZE)
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
