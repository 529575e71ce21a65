"""Where things lie in a cohort, and how its arrays are cut and packed.

    cohort.json                                 what makes a folder a cohort
    <document>                                  what `store.documents` names
    index/<driver>-<n>-<checksum>.parquet       immutable segments of the cohort index; -merged- ones hold others
    scans/<scan>/<node>/<key>/COMMIT.json       names the attempt that counts
    scans/<scan>/<node>/<key>/<attempt>.json    notes beside an attempt: a cache, replaced at will
    scans/<scan>/<node>/<key>/<attempt>/        a Zarr v3 group: <array>/zarr.json, <array>/c.0.0.0.0, ...
    cubes/<map>/<key>/SEGMENT.json              names the attempt that counts, its scans and its bricks
    cubes/<map>/<key>/<attempt>/                a Zarr v3 array (scan, x, y, z) of some scans: zarr.json, c.0.0.0.0, ...

Keys are relative and use `/`, on a file system and on an object store alike.
"""

import re
from pathlib import PurePosixPath

from qsm_dask.errors import StoreError
from qsm_dask.scan import ScanKey

COHORT = "cohort.json"
SCANS = "scans"
INDEX = "index"
MARKER = "COMMIT.json"
CUBES = "cubes"
CUBE = "cube"
"""What stands for a scan in what is said of the cohort cube."""
SEGMENT = "SEGMENT.json"
NOTES = ".json"
"""What the name of an attempt's notes adds to that of its folder."""
FORMAT = 2
"""Version of the layout and of what records say, raised when readers of another one could misunderstand it."""

INGEST_KEY = "input"
"""The one key of a scan's `ingest` node: its commit is replaced when the inputs change."""

SEGMENT_SCANS = 64
"""Most scans of a segment of the cube: whoever writes one holds so many maps, 2 GB at 1 mm."""

BRICK = 32
"""Voxels of a brick along each axis: 8 MiB of 64 scans, and of ten thousand scans what a worker holds."""

COMPRESSION = "zstd"
LEVEL = 3
"""Level 5 packs maps 2 % smaller and takes twice as long; level 1 saves 40 % of the time and packs them 5 % worse."""

_NODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_KEY = re.compile(r"[0-9a-z]{1,128}")
_SEGMENT_KEY = re.compile(r"[0-9a-f]{32}")
_ARRAY = re.compile(r"[a-z][A-Za-z0-9_]{0,127}")


def inside(key: str) -> str:
    """`key`, if it is a relative path that cannot leave the cohort.

    Raises
    ------
    StoreError : it is absolute, empty, or has a part that is empty, `.`, `..` or unprintable.
    """
    parts = key.split("/")
    if any(part in ("", ".", "..") or "\\" in part or not part.isprintable() for part in parts):
        raise StoreError(f"{key!r} is no path inside a cohort; use names of letters, digits, '-', '_', '.' and '/'")
    return key


def node_folder(scan: ScanKey, node: str, key: str) -> str:
    """The folder of all attempts at a node of a scan under one key.

    Raises
    ------
    StoreError : the scan, the node or the key cannot be part of a path.
    """
    name = str(scan)
    if not _NODE.fullmatch(node):
        raise StoreError(f"{name}: {node!r} cannot name a node; use lower-case letters, digits and '_'")
    if not _KEY.fullmatch(key):
        raise StoreError(f"{name} {node}: {key!r} cannot be a key; use a digest in lower-case hexadecimal")
    return inside(f"{SCANS}/{name}/{node}/{key}")


def marker(scan: ScanKey, node: str, key: str) -> str:
    """The key of the commit of a node."""
    return f"{node_folder(scan, node, key)}/{MARKER}"


def segment_folder(name: str, key: str) -> str:
    """The folder of all attempts at a segment of the cube of a map.

    Raises
    ------
    StoreError : the map or the key cannot be part of a path.
    """
    check_array_name(name)
    if not _KEY.fullmatch(key):
        raise StoreError(f"{name}: {key!r} cannot be a key; use a digest in lower-case hexadecimal")
    return inside(f"{CUBES}/{name}/{key}")


def is_segment(name: str, key: str) -> bool:
    """Whether a segment can lie there: others put files and folders among them, as file managers do."""
    return bool(_ARRAY.fullmatch(name) and _SEGMENT_KEY.fullmatch(key))


def segment_marker(name: str, key: str) -> str:
    """The key of the record of a segment of the cube of a map."""
    return f"{segment_folder(name, key)}/{SEGMENT}"


def check_array_name(name: str) -> None:
    """Refuse an array name that cannot be a folder.

    Raises
    ------
    StoreError : it has other characters than letters, digits and `_`.
    """
    if not _ARRAY.fullmatch(name):
        raise StoreError(f"{name!r} cannot name an array; use letters, digits and '_'")


def check_document_name(name: str) -> str:
    """The name of a document at the top of the cohort, if it may be written.

    Raises
    ------
    StoreError : it would leave the cohort or overwrite scans, cubes, the index or the cohort's own marker.
    """
    if PurePosixPath(inside(name)).parts[0] in (SCANS, CUBES, INDEX, COHORT):
        raise StoreError(f"{name!r} belongs to the store itself; give the document another name")
    return name


def chunk_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """One chunk per volume: kernels read whole volumes, and an echo can be fetched alone."""
    lead = max(len(shape) - 3, 0)
    return (1,) * lead + tuple(max(n, 1) for n in shape[lead:])


def shuffle(itemsize: int) -> str:
    """How Blosc reorders before it packs: bytes of wider items, bits of masks."""
    return "shuffle" if itemsize > 1 else "bitshuffle"
