"""Arrays to and from the bytes of Zarr v3, in memory.

zarr encodes into and decodes from a dictionary; the store moves the bytes. So every
backend gets the same objects, the commit knows the size of each before it is written,
and no handle on a remote group is ever opened. The metadata is written here, not by
zarr: it costs a tenth of the time and is the same whatever zarr's version.
"""

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.buffer import cpu
from zarr.storage import MemoryStore, StorePath

from qsm_dask.store.layout import COMPRESSION, LEVEL, chunk_shape, shuffle

METADATA = "zarr.json"
_BATCH_BYTES = 64 * 2**20


def group_metadata(attributes: Mapping[str, Any]) -> bytes:
    """The `zarr.json` of an attempt, which makes it a group that any Zarr v3 reader opens."""
    return json.dumps({"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}).encode()


def array_metadata(
    shape: tuple[int, ...], dtype: np.dtype[Any], dims: tuple[str, ...], attributes: Mapping[str, Any]
) -> bytes:
    """The `zarr.json` of an array: one chunk a volume; Blosc (zstd), then CRC-32C over what Blosc made."""
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
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk_shape(shape)}},
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
    """The encoding of the array that a `zarr.json` describes, by batches of whole chunks.

    A batch is a range along the first axis of at most 64 MiB (all of a volume, at
    least one echo), which bounds memory and still lets zarr use its threads.
    """

    def __init__(self, metadata: bytes) -> None:
        self._held: dict[str, cpu.Buffer] = {}
        place = StorePath(MemoryStore(self._held))  # type: ignore[arg-type]
        array = zarr.Array.from_dict(place, json.loads(metadata))
        # An empty chunk must be a file too, or lost and empty look alike.
        self._array = array.with_config({"write_empty_chunks": True})
        self.shape: tuple[int, ...] = array.shape
        self.dtype: np.dtype[Any] = array.dtype

    def batches(self) -> Iterator[slice]:
        """Ranges of the first axis; a single one for an array of up to three axes."""
        if len(self.shape) <= 3:
            yield slice(0, self.shape[0] if self.shape else 1)
            return
        row_bytes = int(np.prod(self.shape[1:])) * self.dtype.itemsize
        step = max(1, _BATCH_BYTES // max(row_bytes, 1))
        for start in range(0, self.shape[0], step):
            yield slice(start, min(start + step, self.shape[0]))

    def chunks(self, rows: slice) -> list[str]:
        """File names of the chunks of a batch, in C order."""
        if 0 in self.shape:
            return []
        lead = self.shape[:-3]
        ranges = [range(rows.start, rows.stop), *map(range, lead[1:])] if lead else []
        tail = (0,) * min(len(self.shape), 3)
        return [".".join(["c", *map(str, index + tail)]) for index in itertools.product(*ranges)]

    def encode(self, rows: slice, values: NDArray[Any]) -> dict[str, bytes]:
        """The chunk files of a batch of `values` (the whole array)."""
        selection = rows if self.shape else ...
        self._array[selection] = values[selection]
        return {name: self._held.pop(name).to_bytes() for name in self.chunks(rows)}

    def decode(self, rows: slice, files: Mapping[str, bytes]) -> NDArray[Any]:
        """The values of a batch, from its chunk files.

        Raises
        ------
        ValueError : a checksum does not fit.
        """
        selection = rows if self.shape else ...
        self._held.update({name: cpu.Buffer.from_bytes(data) for name, data in files.items()})
        try:
            return np.asarray(self._array[selection], dtype=self.dtype)
        finally:
            for name in files:
                del self._held[name]
