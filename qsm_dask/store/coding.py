"""Arrays to and from the bytes of Zarr v3, in memory.

The store moves the bytes: so every backend gets the same objects, the commit knows the
size of each before it is written, and no handle on a remote group is ever opened. Chunks
are packed by the codecs that zarr itself calls, without its event loop, which costs a
small array ten times what the codecs do; the tests hold files and metadata against zarr's.
"""

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import google_crc32c
import numpy as np
from numcodecs import Blosc
from numpy.typing import NDArray

from qsm_dask.store.layout import COMPRESSION, LEVEL, chunk_shape, shuffle

METADATA = "zarr.json"
_CHECKSUM_BYTES = 4


def group_metadata(attributes: Mapping[str, Any]) -> bytes:
    """The `zarr.json` of an attempt, which makes it a group that any Zarr v3 reader opens."""
    return json.dumps({"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}).encode()


def array_metadata(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    dims: tuple[str, ...],
    attributes: Mapping[str, Any],
    chunks: tuple[int, ...] | None = None,
) -> bytes:
    """The `zarr.json` of an array: one chunk a volume if not given; Blosc (zstd), then CRC-32C over what Blosc made."""
    blosc = {
        "cname": COMPRESSION,
        "clevel": LEVEL,
        "shuffle": shuffle(dtype.itemsize),
        "typesize": dtype.itemsize,
        "blocksize": 0,
    }
    content = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunks or chunk_shape(shape)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": dtype.type(0).item(),
        "codecs": [
            {"name": "bytes", "configuration": {"endian": "little"}} if dtype.itemsize > 1 else {"name": "bytes"},
            {"name": "blosc", "configuration": blosc},
            {"name": "crc32c"},
        ],
        "dimension_names": dims,
        "attributes": dict(attributes),
    }
    return json.dumps(content).encode()


class ArrayCoder:
    """The encoding of the array that a `zarr.json` of this store describes; `chunks` and `encode` ask for one a volume.

    Parameters
    ----------
    metadata : what `array_metadata` gave.
    """

    def __init__(self, metadata: bytes) -> None:
        content = json.loads(metadata)
        self.shape: tuple[int, ...] = tuple(content["shape"])
        self.dtype: np.dtype[Any] = np.dtype(content["data_type"])
        packing = next(codec["configuration"] for codec in content["codecs"] if codec["name"] == "blosc")
        mode = {"shuffle": Blosc.SHUFFLE, "bitshuffle": Blosc.BITSHUFFLE}[packing["shuffle"]]
        self._codec = Blosc(packing["cname"], packing["clevel"], mode, packing["blocksize"])

    def chunks(self, rows: slice | None = None) -> Iterator[tuple[str, tuple[int, ...]]]:
        """File name and index along the leading axes of every chunk, in C order.

        Parameters
        ----------
        rows : a range of the first axis; all of it if None.
        """
        if 0 in self.shape:
            return
        lead = self.shape[:-3]
        ranges = [range(n) for n in lead]
        if rows is not None and lead:
            ranges[0] = ranges[0][rows]
        tail = (0,) * min(len(self.shape), 3)
        for index in itertools.product(*ranges):
            yield ".".join(["c", *map(str, index + tail)]), index

    def encode(self, values: NDArray[Any]) -> Iterator[tuple[str, bytes]]:
        """Name and bytes of every chunk of an array in C order."""
        for name, index in self.chunks():
            yield name, self.pack(values[index] if index else values)

    def pack(self, values: NDArray[Any]) -> bytes:
        """The bytes of one chunk, in C order."""
        packed: bytes = self._codec.encode(values)
        return packed + _checksum(packed)

    def decode(self, data: bytes, out: NDArray[Any]) -> None:
        """Unpack one chunk.

        Parameters
        ----------
        data : content of the chunk's file.
        out : filled; the last axes of the array, three at most, in C order.

        Raises
        ------
        ValueError : its checksum does not fit, or it is of another size.
        """
        packed, tail = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
        if _checksum(packed) != tail:
            raise ValueError("its checksum does not fit")
        self._codec.decode(packed, out)


def _checksum(packed: bytes) -> bytes:
    """CRC-32C as the `crc32c` codec of Zarr appends it."""
    return int(google_crc32c.value(packed)).to_bytes(_CHECKSUM_BYTES, "little")
