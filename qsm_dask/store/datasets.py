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
from qsm_dask.references import CSF, WHOLE, moments_of, parts, shifted
from qsm_dask.scan import ScanKey
from qsm_dask.store.commit import Commit
from qsm_dask.store.documents import PIPELINE
from qsm_dask.store.index import facts_of
from qsm_dask.store.layout import INGEST_KEY

if TYPE_CHECKING:
    from qsm_dask.store.cohort import CohortStore

_BATCH = 256
_MAPS = COORDINATES["map"]


class _Regions(NamedTuple):
    """Where the region values of one scan lie, what its labels are called, and which maps there are."""

    scan: ScanKey
    key: str
    digest: str
    names: tuple[tuple[int, str], ...]
    maps: tuple[str, ...]


class _RegionBlock:
    """A task: the region values of a batch of scans, (map, scan, region, statistic)."""

    def __init__(
        self, store: "CohortStore", batch: Sequence[_Regions], columns: Mapping[str, int], reference: tuple[str, ...]
    ) -> None:
        self._store = store
        self._batch = batch
        self._columns = columns
        self._reference = reference

    def __call__(self) -> NDArray[np.float64]:
        shape = (len(_MAPS), len(self._batch), len(self._columns), len(COORDINATES["statistic"]))
        values = np.full(shape, np.nan)
        for row, entry in enumerate(self._batch):
            found, csf = self._found(entry)
            if self._reference:
                by_region = dict(zip(self._columns, found[0], strict=True))
                found[0] = shifted(found[0], moments_of(self._reference, by_region, csf).offset)
            values[:, row] = found
        return values

    def _found(self, entry: _Regions) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """The values of a scan, (map, region, statistic), and the moments of its fluid."""
        commit = self._store.commit(entry.scan, "regions", entry.key)
        if commit is None:
            raise DamageError(f"{entry.scan} regions: its commit is gone; `qsm-dask process` computes it again")
        wanted = ("region_labels", "region_values", "csf_reference")
        arrays = self._store.read(commit, [name for name in wanted if name in commit.arrays])
        columns = [self._columns[dict(entry.names)[int(label)]] for label in arrays["region_labels"]]
        values = np.full((len(_MAPS), len(self._columns), len(COORDINATES["statistic"])), np.nan)
        kept = arrays["region_values"]  # of the maps and statistics there were when they were stored
        values[: kept.shape[0], columns, : kept.shape[2]] = kept
        return values, arrays.get("csf_reference")


class _ReferenceBlock(_RegionBlock):
    """A task: what chi may be referred to in a batch of scans, (scan, reference, moment): the fluid, then regions."""

    def __call__(self) -> NDArray[np.float64]:
        moments = np.full((len(self._batch), 1 + len(self._columns), len(COORDINATES["moment"])), np.nan)
        for row, entry in enumerate(self._batch):
            found, csf = self._found(entry)
            by_region = dict(zip(self._columns, found[0], strict=True))
            for column, name in enumerate((CSF, *self._columns)):
                moments[row, column] = moments_of((name,), by_region, csf)
        return moments


class _RowsBlock:
    """A task: a range of the first axis of one array of a commit."""

    def __init__(self, store: "CohortStore", commit: Commit, name: str, rows: slice) -> None:
        self._store = store
        self._commit = commit
        self._name = name
        self._rows = rows

    def __call__(self) -> NDArray[Any]:
        return self._store.read_rows(self._commit, self._name, self._rows)


def cohort_dataset(store: "CohortStore", reference: str | None = None) -> xr.Dataset:
    """The region values of every scan whose `regions` node is done under the pipeline that was run last.

    Parameters
    ----------
    store : the cohort.
    reference : what chi shall be relative to: `csf`, `whole_brain`, any region, or several joined by `+`; what the
        pipeline chose if not given. A scan that lacks it has no chi. Nothing is computed again: stored values move.

    Returns
    -------
    xarray.Dataset : one variable a map that any scan has (`chi` [ppm], `r2star` [1/s], …) with dims (scan, region,
        statistic), lazy, in blocks of 256 scans. Regions are the union over scans, by
        name; a region or map that a scan lacks is NaN. `subject` and `session` stand
        along `scan`. Opening reads the index only.

    Raises
    ------
    StoreError : there is no such reference.
    DamageError : the index is damaged, or (when computed) a commit is.
    """
    found = list(_region_rows(store))
    regions = _region_names(found)
    try:
        chosen = () if reference is None else parts(reference, regions)
    except ValueError as error:
        raise StoreError(f"{store.place}: {error}") from None
    maps = {name for entry in found for name in entry.maps} or _MAPS
    values = _lazy_blocks(store, found, regions, chosen)
    variables = {
        name: (("scan", "region", "statistic"), values[number], described(name))
        for number, name in enumerate(_MAPS)
        if name in maps
    }
    if reference is not None and "chi" in variables:
        variables["chi"][2]["reference"] = reference
    named = {"region": texts(regions), "statistic": texts(COORDINATES["statistic"])}
    return xr.Dataset(variables, {**_along_scans(found), **named}, {"cohort": store.place.url})


def cohort_references(store: "CohortStore") -> xr.DataArray:
    """What chi may be referred to in every scan of `cohort_dataset`: the fluid, the whole brain and each region.

    Returns
    -------
    xarray.DataArray : (scan, reference, moment), lazy. `offset` is the susceptibility of the reference in the map as it
        is stored [ppm], `sd` that of its voxels [ppm] and `n` their number; NaN where a scan has none.

    Raises
    ------
    DamageError : the index is damaged, or (when computed) a commit is.
    """
    found = list(_region_rows(store))
    regions = _region_names(found)
    values = _lazy_blocks(store, found, regions, None)
    named = {"reference": texts((CSF, *regions)), "moment": texts(COORDINATES["moment"])}
    about = {"units": "ppm", "cohort": store.place.url}
    return xr.DataArray(values, {**_along_scans(found), **named}, ("scan", "reference", "moment"), "references", about)


def _region_names(found: Sequence[_Regions]) -> list[str]:
    """The regions that any scan has, by their lowest label."""
    numbers: dict[str, int] = {WHOLE: 0}
    for names in {id(entry.names): entry.names for entry in found}.values():  # scans share few tables
        for label, name in names:
            numbers[name] = min(label, numbers.get(name, label))
    return sorted(numbers, key=lambda name: (numbers[name], name))


def _along_scans(found: Sequence[_Regions]) -> dict[str, Any]:
    scans = [entry.scan for entry in found]
    return {
        "scan": texts(str(scan) for scan in scans),
        "subject": ("scan", texts(scan.subject for scan in scans)),
        "session": ("scan", texts(scan.session or "" for scan in scans)),
    }


def texts(values: Iterable[str]) -> NDArray[np.str_]:
    """Labels as xarray keeps them, even if there are none."""
    return np.array(list(values), dtype=np.str_)


def described(name: str) -> dict[str, str]:
    """The attributes of a variable: what its quantity is."""
    return {"units": quantity(name).units, "long_name": quantity(name).meaning}


def counting(store: "CohortStore") -> list[dict[str, Any]]:
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
    rows = counting(store)
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
        yield _Regions(scan, row["key"], row["digest"], known[shared], tuple(row["facts"].get("maps", _MAPS)))


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


def _lazy_blocks(
    store: "CohortStore", found: Sequence[_Regions], regions: Sequence[str], reference: tuple[str, ...] | None
) -> da.Array:
    """The values of all scans under a reference (none: as stored); the moments of every reference where it is None."""
    columns = {name: column for column, name in enumerate(regions)}
    batches = [found[start : start + _BATCH] for start in range(0, len(found), _BATCH)]
    scans = tuple(len(batch) for batch in batches) or (0,)
    chunks: tuple[tuple[int, ...], ...]
    tasks: list[_RegionBlock]
    if reference is None:
        kind, chunks = "references", (scans, (1 + len(regions),), (len(COORDINATES["moment"]),))
        tasks = [*(_ReferenceBlock(store, batch, columns, ()) for batch in batches)]
    else:
        kind, chunks = "regions", ((len(_MAPS),), scans, (len(regions),), (len(COORDINATES["statistic"]),))
        tasks = [_RegionBlock(store, batch, columns, reference) for batch in batches]
    if not batches:
        empty: da.Array = da.from_array(np.full([sum(n) for n in chunks], np.nan))
        return empty
    sources = [(str(entry.scan), entry.key, entry.digest) for entry in found]
    name = f"{kind}-{token(store, sources, regions, reference)}"
    places = [tuple(i if axis is scans else 0 for axis in chunks) for i in range(len(batches))]
    return da.Array(
        {(name, *place): (task,) for place, task in zip(places, tasks, strict=True)}, name, chunks, np.float64
    )


def token(store: "CohortStore", *values: object) -> str:
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
        echo, region numbers along label; units with each variable; affine [mm], voxel_size [mm], b0 [T] and b0_dir in
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
        name: (tuple(entry["dims"]), _lazy(store, commit, name), described(name))
        for commit in commits
        for name, entry in commit.arrays.items()
        if set(entry["dims"]) <= {"echo", "axis", "label", *SPACE} and name != "probseg_labels"
    }
    header = dict(next((commit.attributes.get("header", {}) for commit in commits), {}))
    te = header.pop("te", None)
    echoes = any("echo" in dims for dims, _, _ in variables.values())
    coordinates = {"te": ("echo", np.asarray(te), described("te"))} if te is not None and echoes else {}
    numbers = next((c.arrays["probseg_labels"].get("values") for c in commits if "probseg_labels" in c.arrays), None)
    if numbers is not None and "probseg" in variables:
        coordinates["label"] = ("label", np.asarray(numbers), described("probseg_labels"))
    about = {"scan": str(scan), "subject": scan.subject, "session": scan.session or ""}
    return xr.Dataset(variables, coordinates, {**about, **header})


def _newest_commits(store: "CohortStore", scan: ScanKey) -> Iterator[Commit]:
    """The commits of a scan that count, ingest first; the ingest is asked for where the index lacks it."""
    rows = [row for row in counting(store) if row["scan"] == str(scan)]
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
    key = f"{name}-{token(store, commit.folder)}"
    rest = (0,) * (len(shape) - 1)
    tasks = {(key, n, *rest) if shape else (key,): (_RowsBlock(store, commit, name, r),) for n, r in enumerate(rows)}
    return da.Array(tasks, key, chunks, dtype=np.dtype(entry["dtype"]))
