"""The cohort store: the only door to a cohort's arrays, commits, index and documents.

How a node is committed and read stands in `nodes`, the index in `index`, and what keeps both whole in `upkeep`.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from qsm_dask.errors import DamageError
from qsm_dask.place import Place
from qsm_dask.scan import ScanKey
from qsm_dask.store import attempts, founding, nodes
from qsm_dask.store.commit import Commit
from qsm_dask.store.files import files_at
from qsm_dask.store.index import Index
from qsm_dask.store.layout import COHORT, MARKER, SCANS, check_document_name
from qsm_dask.store.upkeep import Upkeep

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from qsm_dask.store.cubes import Cubes


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
        return nodes.commit_of(self._files, scan, node, key)

    def is_intact(self, commit: Commit) -> bool:
        """Whether every object of a commit is there with the right size, and decodes if it is small, as tables are."""
        return nodes.is_intact(self._files, commit)

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
        return nodes.write(
            self._files,
            (scan, node, key),
            arrays,
            attributes=attributes,
            provenance=provenance,
            seconds=seconds,
            peak_bytes=peak_bytes,
        )

    def remember(self, commit: Commit, notes: Mapping[str, Any]) -> None:
        """Keep notes beside a commit, such as how its inputs are known again, in place of earlier ones.

        They are a cache and belong to its attempt: a rival's commit of the same node, which has
        another, is neither changed nor described by them.

        Raises
        ------
        StoreError : a note is no JSON, or writing failed.
        """
        nodes.remember(self._files, commit, notes)

    def recall(self, commit: Commit) -> Mapping[str, Any]:
        """The notes of `remember`; empty if there are none, or none that can be read."""
        return nodes.recall(self._files, commit)

    def read(self, commit: Commit, names: Iterable[str] | None = None) -> dict[str, NDArray[Any]]:
        """Arrays of a commit, all or those named.

        Raises
        ------
        StoreError : the commit has no such array, or another result has taken its place.
        DamageError : an object is missing, torn or altered; the message names scan, node and file.
        """
        return nodes.read(self._files, commit, names)

    def read_rows(self, commit: Commit, name: str, rows: slice) -> NDArray[Any]:
        """A range of the first axis of one array, such as one echo.

        Raises
        ------
        DamageError : an object is missing, torn or altered.
        """
        return nodes.read_rows(self._files, commit, name, rows)

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
