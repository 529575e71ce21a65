"""The cohort store: the only door to a cohort's arrays, commits, index and documents.

A node of a scan is written into an attempt folder of its own, made durable, read back
and compared; only then is `COMMIT.json` put, which names that attempt. Readers follow
commits only, so a crash or a rival leaves garbage at worst, never a wrong result.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from numpy.typing import NDArray

from qsm_dask.digests import canonical
from qsm_dask.errors import DamageError, StoreError
from qsm_dask.place import Place
from qsm_dask.scan import ScanKey
from qsm_dask.store import attempts, founding
from qsm_dask.store.commit import Commit, outputs_digest, plain
from qsm_dask.store.files import files_at
from qsm_dask.store.index import Index
from qsm_dask.store.layout import COHORT, MARKER, NOTES, SCANS, check_document_name, marker, node_folder
from qsm_dask.store.upkeep import Upkeep

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from qsm_dask.store.cubes import Cubes

Found = TypeVar("Found")

_SMALL = 2**20


class CohortStore:
    """A cohort in a folder or an object store; make one with `create` or `open`.

    It may be sent to workers: each opens the same place, with an identity of its own in
    the index. Credentials are never sent: each finds them in its own environment.
    """

    def __init__(self, place: str | Path) -> None:
        self._place = Place.parse(place)
        self._files = files_at(self._place)
        self._index = Index(self._files)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._files.url,)

    def __dask_tokenize__(self) -> tuple[str, str]:
        return type(self).__name__, self._files.url

    def __repr__(self) -> str:
        return f"CohortStore({self._files.url!r})"

    @classmethod
    def exists(cls, place: str | Path) -> bool:
        """Whether there is a cohort.

        Raises
        ------
        ConfigError : the place is neither a folder nor a URL that is understood.
        StoreError : it cannot be looked at.
        """
        return founding.is_founded(files_at(Place.parse(place), hasty=True))

    @classmethod
    def create(cls, place: str | Path) -> "CohortStore":
        """Make a cohort in a new or empty folder or prefix of an object store, or open the one that is there.

        Raises
        ------
        ConfigError : the place is neither a folder nor a URL that is understood.
        StoreError : it holds something else, or cannot be written.
        """
        founding.found(files_at(Place.parse(place), hasty=True))
        return cls.open(place)

    @classmethod
    def open(cls, place: str | Path) -> "CohortStore":
        """Open a cohort: a folder, `s3://bucket/name`, `gs://bucket/name` or `az://container/name`.

        Raises
        ------
        ConfigError : the place is neither a folder nor a URL that is understood.
        StoreError : there is none, it cannot be reached, or a newer qsm_dask made it.
        """
        founding.check(files_at(Place.parse(place), hasty=True))
        return cls(place)

    def abandon(self) -> bool:
        """Make a cohort that holds nothing yet an empty place again; whether it held nothing."""
        empty = self._files.names("") == [COHORT]
        if empty:
            self._files.remove(COHORT)
        return empty

    @property
    def place(self) -> Place:
        """Where the cohort lies."""
        return self._place

    def commit(self, scan: ScanKey, node: str, key: str) -> Commit | None:
        """The commit of a node, found by one GET, or None if the node is not done.

        Raises
        ------
        DamageError : there is one, but it cannot be read.
        """
        place = marker(scan, node, key)
        data = self._files.get(place)
        if data is None:
            return None
        try:
            return Commit.from_json(data, (str(scan), node, key))
        except (TypeError, ValueError, KeyError) as error:
            raise DamageError(
                f"{scan} {node}: {self._files.url}/{place} cannot be read: {error}. "
                f"`qsm-dask verify {self._files.url} --repair` computes the node anew"
            ) from error

    def is_intact(self, commit: Commit) -> bool:
        """Whether every object of a commit is there with the right size, and decodes if it is small, as tables are."""
        size = sum(sum(entry["chunks"].values()) for entry in commit.arrays.values())
        if size <= _SMALL:
            return not attempts.damages_of(self._files, commit)
        return not attempts.absences(self._files, commit, commit.arrays)

    def intact(self, scan: ScanKey, node: str, key: str) -> Commit | None:
        """The commit of a node if nothing of it is seen to be missing or torn: what a resumed run may skip."""
        try:
            commit = self.commit(scan, node, key)
        except DamageError:
            return None
        return commit if commit is not None and self.is_intact(commit) else None

    def write(
        self,
        scan: ScanKey,
        node: str,
        key: str,
        arrays: Mapping[str, NDArray[Any]],
        *,
        attributes: Mapping[str, Any],
        provenance: Mapping[str, Any],
        seconds: float,
        peak_bytes: int,
    ) -> Commit:
        """Write, verify and commit the outputs of a node.

        Parameters
        ----------
        scan, node, key : what was computed, and the digest of all it was computed from.
        arrays : outputs by quantity (or branch of one), with its dtype and axes.
        attributes : what else belongs to the result; JSON, NumPy values are converted.
        provenance : how it came about; JSON. The seconds that storing took are added as `store_seconds`.
        seconds, peak_bytes : what it cost.

        Returns
        -------
        Commit : as published. Whoever commits the same node at the same time does no
            harm: the last one counts, whole.

        Raises
        ------
        StoreError : an array is not what its name promises, an attribute is no JSON, or
            writing failed; then nothing was committed.
        """
        started, where = time.perf_counter(), f"{scan} {node}"
        folder = f"{node_folder(scan, node, key)}/{(attempt := uuid4().hex)}"
        entries: attempts.Entries = {}
        try:
            outputs = attempts.checked(arrays)
            attributes, provenance = plain(attributes), plain(provenance)
        except (StoreError, TypeError) as error:
            raise StoreError(f"{where}: {error}") from error
        try:
            about = {"scan": str(scan), "node": node, "key": key}
            self._files.put_all(attempts.encoded(folder, about, outputs, entries))
            digest = outputs_digest(entries)
            commit = Commit(
                scan, node, key, attempt, digest, entries, attributes, provenance, float(seconds), int(peak_bytes)
            )
            self._check_written(commit)
        except BaseException:
            with suppress(StoreError):
                self._files.remove(folder)
            raise
        commit = replace(commit, provenance={**provenance, "store_seconds": time.perf_counter() - started})
        self._publish(commit)
        return commit

    def _check_written(self, commit: Commit) -> None:
        damages = attempts.damages_of(self._files, commit)
        if damages:
            raise StoreError(
                f"{damages[0]}, just after it was written: check the disk and the memory of this machine, "
                "then run the same command again"
            )

    def _publish(self, commit: Commit) -> None:
        self._files.put(marker(commit.scan, commit.node, commit.key), commit.to_json())

    def remember(self, commit: Commit, notes: Mapping[str, Any]) -> None:
        """Keep notes beside a commit, such as how its inputs are known again, in place of earlier ones.

        They are a cache and belong to its attempt: a rival's commit of the same node, which has
        another, is neither changed nor described by them.

        Raises
        ------
        StoreError : a note is no JSON, or writing failed.
        """
        try:
            content = canonical(plain(notes))
        except TypeError as error:
            raise StoreError(f"{commit.scan} {commit.node}: {error}") from error
        self._files.put(f"{commit.folder}{NOTES}", content)

    def recall(self, commit: Commit) -> Mapping[str, Any]:
        """The notes of `remember`; empty if there are none, or none that can be read."""
        try:
            notes = json.loads(self._files.get(f"{commit.folder}{NOTES}") or b"{}")
        except ValueError:
            return {}
        return notes if isinstance(notes, dict) else {}

    def read(self, commit: Commit, names: Iterable[str] | None = None) -> dict[str, NDArray[Any]]:
        """Arrays of a commit, all or those named.

        Raises
        ------
        StoreError : the commit has no such array, or another result has taken its place.
        DamageError : an object is missing, torn or altered; the message names scan, node and file.
        """
        wanted = tuple(commit.arrays if names is None else names)
        unknown = [name for name in wanted if name not in commit.arrays]
        if unknown:
            raise StoreError(
                f"{commit.scan} {commit.node}: no array {', '.join(unknown)}; it has {', '.join(commit.arrays)}"
            )
        return self._following(commit, lambda found: self._read(found, wanted))

    def _read(self, commit: Commit, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        # A missing chunk reads as zeros in Zarr, so the list is compared before anything is decoded.
        absent = attempts.absences(self._files, commit, names)
        if absent:
            raise attempts.damage_error(self._files, absent)
        return {name: attempts.read_array(self._files, commit, name) for name in names}

    def read_rows(self, commit: Commit, name: str, rows: slice) -> NDArray[Any]:
        """A range of the first axis of one array, such as one echo.

        Raises
        ------
        DamageError : an object is missing, torn or altered.
        """
        return self._following(commit, lambda found: attempts.read_array(self._files, found, name, rows))

    def _following(self, commit: Commit, use: Callable[[Commit], Found]) -> Found:
        """Use a commit; if its attempt is lost because the node was committed again, use that one, once."""
        try:
            return use(commit)
        except DamageError:
            fresh = self.commit(commit.scan, commit.node, commit.key)
            if fresh is None or fresh.attempt == commit.attempt:
                raise
            if fresh.digest != commit.digest:
                raise StoreError(
                    f"{commit.scan} {commit.node}: another result took its place while it was read; "
                    "run the same command again"
                ) from None
            return use(fresh)

    def verify(self, commit: Commit) -> list[attempts.Damage]:
        """What is wrong with a commit, object by object; all its arrays are decoded and compared."""
        return attempts.damages_of(self._files, commit)

    def committed(self, scan: ScanKey) -> list[tuple[str, str]]:
        """Every (node, key) of a scan that has a commit, by listing its folder; for repair, not for status."""
        top = f"{SCANS}/{scan}"
        found = [(node, key) for node in self._files.names(top) for key in self._files.names(f"{top}/{node}")]
        return [(node, key) for node, key in found if MARKER in self._files.names(f"{top}/{node}/{key}")]

    def record(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows to the cohort index: what was done, skipped or failed.

        Parameters
        ----------
        rows : each with scan, node and state, and what is known of key, digest, seconds,
            peak_bytes, reason, facts and time (now if not given); `Commit.row` makes one.

        Raises
        ------
        StoreError : a row has other columns or an unknown state, or writing failed.
        """
        self._index.append(rows)

    def index(self) -> "pd.DataFrame":
        """The newest row of each (scan, node), sorted by them.

        Raises
        ------
        DamageError : a segment of the index cannot be read.
        """
        return self._index.read()

    def scans(self) -> tuple[ScanKey, ...]:
        """Every scan of the index, sorted."""
        return tuple(sorted(ScanKey.parse(name) for name in self.index()["scan"].unique()))

    def write_document(self, name: str, data: bytes) -> None:
        """Write or replace a small file beside the scans, such as `tables/regions.parquet`.

        Raises
        ------
        StoreError : the name belongs to the store or leaves the cohort, or writing failed.
        """
        self._files.put(check_document_name(name), data)

    def read_document(self, name: str) -> bytes | None:
        """The content of a document, or None if there is none."""
        return self._files.get(check_document_name(name))

    def dataset(self, reference: str | None = None) -> "xr.Dataset":
        """The region values of all scans that are done, labelled and lazy; see `datasets.cohort_dataset`.

        Parameters
        ----------
        reference : what chi shall be relative to: `csf`, `whole_brain`, any region, or several joined by `+`; what the
            pipeline chose if not given.

        Raises
        ------
        StoreError : there is no such reference.
        DamageError : the index is damaged, or (when computed) a commit is.
        """
        from qsm_dask.store.datasets import cohort_dataset

        return cohort_dataset(self, reference)

    def references(self) -> "xr.DataArray":
        """Offset, SD and size of all that chi may be referred to, scan by scan; see `datasets.cohort_references`."""
        from qsm_dask.store.datasets import cohort_references

        return cohort_references(self)

    @property
    def upkeep(self) -> Upkeep:
        """What catches the index up with the commits, and sweeps away what nobody reads."""
        return Upkeep(self, self._files, self._index)

    @property
    def cubes(self) -> "Cubes":
        """The segments that the cubes of `cube` are made of."""
        from qsm_dask.store.cubes import Cubes

        return Cubes(self, self._files)

    def cube(self, name: str = "chi") -> "xr.DataArray":
        """A map in standard space of all scans that are done under the pipeline that was run last.

        Parameters
        ----------
        name : `chi`, `r2star` or `magnitude`.

        Returns
        -------
        xarray.DataArray : float32 (scan, x, y, z), lazy, in blocks of a segment's scans by brick: a block is one object
            of the store. NaN outside a scan's mask. `subject` and `session` stand along `scan`; x, y and z [mm] along
            the axes where these are those of the template's space; `affine` and the number of scans that are done and
            `pending`, not appended yet, in the attributes. Scans come segment by segment.

        Raises
        ------
        StoreError : there is no such cube, or scans lie on several grids.
        DamageError : the index or a segment is damaged, or (when computed) a brick is.
        """
        return self.cubes.array(name)

    def scan(self, key: ScanKey | str) -> "xr.Dataset":
        """The maps of one scan, labelled and lazy; see `datasets.scan_dataset`."""
        from qsm_dask.store.datasets import scan_dataset

        return scan_dataset(self, key)
