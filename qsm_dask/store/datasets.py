"""Lazy, labelled views of a cohort, where a user's own Dask code starts."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from qsm_dask.digests import checksum
from qsm_dask.errors import DamageError, StoreError
from qsm_dask.quantities import COORDINATES, NODES, SPACE, quantity
from qsm_dask.scan import ScanKey
from qsm_dask.store.commit import Commit
from qsm_dask.store.documents import PIPELINE
from qsm_dask.store.index import facts_of
from qsm_dask.store.layout import INGEST_KEY

if TYPE_CHECKING:
    from qsm_dask.store.cohort import CohortStore

WHOLE = "whole_brain"
"""Name of label 0, the whole mask."""

_BATCH = 256


class _Regions(NamedTuple):
    """Where the region values of one scan lie, and what its labels are called."""

    scan: ScanKey
    key: str
    digest: str
    names: tuple[tuple[int, str], ...]


class _RegionBlock:
    """A task: the region values of a batch of scans, (map, scan, region, statistic)."""

    def __init__(self, store: "CohortStore", batch: Sequence[_Regions], columns: Mapping[str, int]) -> None:
        self._store = store
        self._batch = batch
        self._columns = columns

    def __call__(self) -> NDArray[np.float64]:
        maps, statistics = len(COORDINATES["map"]), len(COORDINATES["statistic"])
        values = np.full((maps, len(self._batch), len(self._columns), statistics), np.nan)
        for row, (scan, key, _, names) in enumerate(self._batch):
            commit = self._store.commit(scan, "regions", key)
            if commit is None:
                raise DamageError(f"{scan} regions: its commit is gone; `qsm-dask process` computes it again")
            arrays = self._store.read(commit, ("region_labels", "region_values"))
            columns = [self._columns[dict(names)[int(label)]] for label in arrays["region_labels"]]
            found = arrays["region_values"]  # of the maps there were when they were stored
            values[: found.shape[0], row, columns] = found
        return values


class _RowsBlock:
    """A task: a range of the first axis of one array of a commit."""

    def __init__(self, store: "CohortStore", commit: Commit, name: str, rows: slice) -> None:
        self._store = store
        self._commit = commit
        self._name = name
        self._rows = rows

    def __call__(self) -> NDArray[Any]:
        return self._store.read_rows(self._commit, self._name, self._rows)


def cohort_dataset(store: "CohortStore") -> xr.Dataset:
    """The region values of every scan whose `regions` node is done under the pipeline that was run last.

    Parameters
    ----------
    store : the cohort.

    Returns
    -------
    xarray.Dataset : one variable a map (`chi` [ppm], `r2star` [1/s], …) with dims (scan, region,
        statistic), lazy, in blocks of 256 scans. Regions are the union over scans, by
        name; a region or map that a scan lacks is NaN. `subject` and `session` stand
        along `scan`. Opening reads the index only.

    Raises
    ------
    DamageError : the index is damaged, or (when computed) a commit is.
    """
    found = list(_region_rows(store))
    numbers: dict[str, int] = {WHOLE: 0}
    for names in {id(entry.names): entry.names for entry in found}.values():  # scans share few tables
        for label, name in names:
            numbers[name] = min(label, numbers.get(name, label))
    regions = sorted(numbers, key=lambda name: (numbers[name], name))
    values = _region_values(store, found, regions)
    variables = {
        name: (("scan", "region", "statistic"), values[number], _described(name))
        for number, name in enumerate(COORDINATES["map"])
    }
    scans = [entry.scan for entry in found]
    coordinates = {
        "scan": _texts(str(scan) for scan in scans),
        "region": _texts(regions),
        "statistic": _texts(COORDINATES["statistic"]),
        "subject": ("scan", _texts(scan.subject for scan in scans)),
        "session": ("scan", _texts(scan.session or "" for scan in scans)),
    }
    return xr.Dataset(variables, coordinates, {"cohort": store.place.url})


def _texts(values: Iterable[str]) -> NDArray[np.str_]:
    return np.array(list(values), dtype=np.str_)


def _described(name: str) -> dict[str, str]:
    return {"units": quantity(name).units, "long_name": quantity(name).meaning}


def _counting(store: "CohortStore") -> list[dict[str, Any]]:
    """The rows that count: done, on the present input, and under the pipeline that was run last.

    Scans processed by another pipeline, or before their input changed, wait to be processed
    again: a table never mixes the two.
    """
    document = store.read_document(PIPELINE)
    pipeline = None if document is None else checksum(document)
    index = store.index()
    names = [str(name) for name in index.columns]
    rows = [dict(zip(names, row, strict=True)) for row in index.itertuples(index=False) if row.state == "done"]
    inputs = {row["scan"]: row["digest"] for row in rows if row["node"] == "ingest"}
    for row in rows:
        row["facts"] = facts_of(row["facts"])

    def counts(row: Mapping[str, Any]) -> bool:
        if row["node"] == "ingest":
            return True
        run = row["facts"].get("run")  # what somebody wrote without a pipeline counts by itself
        return run is None or run == [pipeline, inputs.get(row["scan"])]

    return [row for row in rows if counts(row)]


def _region_rows(store: "CohortStore") -> Iterator[_Regions]:
    rows = _counting(store)
    tables = {row["scan"]: row["facts"].get("labels") for row in rows if row["node"] == "ingest"}
    known: dict[tuple[Any, ...], tuple[tuple[int, str], ...]] = {}
    done = [(ScanKey.parse(row["scan"]), row) for row in rows if row["node"] == "regions"]
    for scan, row in sorted(done, key=lambda pair: pair[0]):
        labels, names = row["facts"].get("region_labels"), row["facts"].get("labels") or tables.get(str(scan))
        if labels is None or names is None:  # rows that somebody wrote without facts
            labels, names = _from_commits(store, scan, row["key"])
        shared = (*labels, *names.items())
        if shared not in known:
            known[shared] = region_names(labels, names)
        yield _Regions(scan, row["key"], row["digest"], known[shared])


def _from_commits(store: "CohortStore", scan: ScanKey, key: str) -> tuple[list[int], dict[str, str]]:
    ingest = store.commit(scan, "ingest", INGEST_KEY)
    regions = store.commit(scan, "regions", key)
    labels = regions.arrays["region_labels"].get("values", []) if regions is not None else []
    named = [commit.attributes for commit in (regions, ingest) if commit is not None]
    return labels, next((about["labels"] for about in named if about.get("labels")), {})


def region_names(labels: Iterable[int], names: Mapping[str, str]) -> tuple[tuple[int, str], ...]:
    """Each label with the name of its region.

    Parameters
    ----------
    labels : integers of `region_labels`; 0 is the whole mask.
    names : name by label, as text, as the ingest commit has them. A label without one is
        `label_<n>`; a name that two labels share is `<name>_<n>` for the later ones.
    """
    taken: dict[str, int] = {}
    for label in labels:
        name = WHOLE if label == 0 else names.get(str(label), f"label_{label}")
        taken[name if name not in taken else f"{name}_{label}"] = label
    return tuple((label, name) for name, label in taken.items())


def _region_values(store: "CohortStore", found: Sequence[_Regions], regions: Sequence[str]) -> da.Array:
    columns = {name: column for column, name in enumerate(regions)}
    batches = [found[start : start + _BATCH] for start in range(0, len(found), _BATCH)]
    chunks = (
        (len(COORDINATES["map"]),),
        tuple(len(batch) for batch in batches) or (0,),
        (len(regions),),
        (len(COORDINATES["statistic"]),),
    )
    if not batches:
        empty: da.Array = da.from_array(np.full([sum(n) for n in chunks], np.nan))
        return empty
    sources = [(str(entry.scan), entry.key, entry.digest) for entry in found]
    name = f"regions-{_token(store, sources, regions)}"
    tasks = {(name, 0, i, 0, 0): (_RegionBlock(store, batch, columns),) for i, batch in enumerate(batches)}
    return da.Array(tasks, name, chunks, dtype=np.float64)


def _token(store: "CohortStore", *values: object) -> str:
    """A task name that tells results apart, so that Dask never mistakes one for another."""
    return blake2b(repr((store.place.url, values)).encode(), digest_size=8).hexdigest()


def scan_dataset(store: "CohortStore", key: ScanKey | str) -> xr.Dataset:
    """What is committed of one scan: its input, and its results under the pipeline that was run last.

    Parameters
    ----------
    store : the cohort.
    key : the scan, or its name such as `sub-01_ses-1`.

    Returns
    -------
    xarray.Dataset : the arrays over (echo, x, y, z), lazy, one block a volume; `te` [s] along
        echo; units with each variable; affine [mm], voxel_size [mm], b0 [T] and b0_dir in
        the attributes, where ingest knows them.

    Raises
    ------
    StoreError : there is no such scan, or nothing of it is done; the message names near ones.
    DamageError : (when computed) an object is missing or altered.
    """
    try:
        scan = ScanKey.parse(key) if isinstance(key, str) else key
    except ValueError as error:
        raise StoreError(f"{error}{_near(store, str(key))}") from None
    commits = list(_newest_commits(store, scan))
    if not commits:
        index = store.index()
        for row in index[index["scan"] == str(scan)].itertuples():
            raise StoreError(f"nothing of {scan} is done: its {row.node} is {row.state}: {row.reason}")
        raise StoreError(f"{store.place} has nothing of a scan {scan}{_near(store, str(scan))}")
    variables = {
        name: (tuple(entry["dims"]), _lazy(store, commit, name), _described(name))
        for commit in commits
        for name, entry in commit.arrays.items()
        if set(entry["dims"]) <= {"echo", "axis", *SPACE}
    }
    header = dict(next((commit.attributes.get("header", {}) for commit in commits), {}))
    te = header.pop("te", None)
    echoes = any("echo" in dims for dims, _, _ in variables.values())
    coordinates = {"te": ("echo", np.asarray(te), _described("te"))} if te is not None and echoes else {}
    about = {"scan": str(scan), "subject": scan.subject, "session": scan.session or ""}
    return xr.Dataset(variables, coordinates, {**about, **header})


def _newest_commits(store: "CohortStore", scan: ScanKey) -> Iterator[Commit]:
    """The commits of a scan that count, ingest first; the ingest is asked for where the index lacks it."""
    rows = [row for row in _counting(store) if row["scan"] == str(scan)]
    keys = {row["node"]: row["key"] for row in rows} | {"ingest": INGEST_KEY}
    for node in sorted(keys, key=lambda node: NODES.index(node) if node in NODES else len(NODES)):
        commit = store.commit(scan, node, keys[node])
        if commit is not None:
            yield commit


def _near(store: "CohortStore", name: str) -> str:
    names = [str(scan) for scan in store.scans()]
    near = [known for known in names if known.startswith(name)] or difflib.get_close_matches(name, names, n=5)
    if near:
        return f"; near it are {', '.join(near[:5])}"
    return f"; it has {len(names)} scans, see `qsm-dask status`" if names else "; it has no scans yet"


def _lazy(store: "CohortStore", commit: Commit, name: str) -> da.Array:
    entry = commit.arrays[name]
    shape = tuple(entry["shape"])
    lead = len(shape) - 3
    rows = [slice(n, n + 1) for n in range(shape[0])] if lead > 0 else [slice(0, shape[0] if shape else 1)]
    chunks = tuple((1,) * n if axis == 0 and lead > 0 else (n,) for axis, n in enumerate(shape))
    key = f"{name}-{_token(store, commit.folder)}"
    rest = (0,) * (len(shape) - 1)
    tasks = {(key, n, *rest) if shape else (key,): (_RowsBlock(store, commit, name, r),) for n, r in enumerate(rows)}
    return da.Array(tasks, key, chunks, dtype=np.dtype(entry["dtype"]))
