"""A cohort in an object store: S3 and what speaks like it, Google Cloud Storage, Azure Blob Storage.

Credentials, region and endpoint come from the environment, under the names that each
provider's own tools use (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, `AWS_REGION`,
`GOOGLE_APPLICATION_CREDENTIALS`, `AZURE_STORAGE_ACCOUNT_KEY`, ...), so that no secret
stands in a URL, a log or a file of the cohort.
"""

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cached_property
from typing import TYPE_CHECKING
from uuid import uuid4

from qsm_dask.errors import StoreError
from qsm_dask.objectstore import NO_BUCKET, PATIENCE_S, again, connect, explained
from qsm_dask.store.files import batches
from qsm_dask.store.layout import inside

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

_WRITERS = 8


class ObjectFiles:
    """Objects below a URL, as `Place` understands it.

    One object is written by one PUT (or one completed multipart upload), which is atomic and durable.

    Parameters
    ----------
    url : of a bucket or container, or of a prefix in one.
    patience_s : for how long a server that does not answer, or not now, is asked again [s].
    """

    def __init__(self, url: str, patience_s: float = PATIENCE_S) -> None:
        self._url = url
        self._patience_s = patience_s

    @property
    def url(self) -> str:
        """The URL."""
        return self._url

    @cached_property
    def _store(self) -> "ObjectStore":
        return connect(self.url, self._patience_s)

    @cached_property
    def _writers(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(_WRITERS, "store-writer")

    def get(self, key: str) -> bytes | None:
        """The content of an object, or None."""
        import obstore

        place = inside(key)
        try:
            with explained("read", f"{self.url}/{place}"):
                return again(lambda: bytes(obstore.get(self._store, place).bytes()))
        except FileNotFoundError:
            return None

    def put(self, key: str, data: bytes) -> None:
        """Write or replace an object."""
        import obstore

        place = inside(key)
        try:
            with explained("write", f"{self.url}/{place}"):
                again(lambda: obstore.put(self._store, place, data))
        except FileNotFoundError as error:
            raise StoreError(f"cannot write {self.url}/{place}: {NO_BUCKET}") from error

    def put_all(self, objects: Iterable[tuple[str, bytes]]) -> None:
        """Write objects, several at once."""
        for batch in batches(objects):
            begun = [self._writers.submit(self.put, key, data) for key, data in batch]
            wait(begun)  # whoever cleans up after a failure must find nobody writing
            for upload in begun:
                upload.result()

    def sizes(self, prefix: str) -> dict[str, int]:
        """Every object below the prefix, with its size."""
        place = inside(prefix)
        with explained("list", f"{self.url}/{place}"):
            return {entry["path"]: entry["size"] for entry in self._listed(place)}

    def ages(self, prefix: str) -> dict[str, float]:
        """Every object below the prefix, with its age by the provider's clock, which tells whole seconds."""
        place = inside(prefix)
        now = time.time() + self._ahead_s
        with explained("list", f"{self.url}/{place}"):
            return {entry["path"]: now - entry["last_modified"].timestamp() for entry in self._listed(place)}

    def _listed(self, place: str) -> "list[ObjectMeta]":
        import obstore

        return again(lambda: [entry for found in obstore.list(self._store, place) for entry in found])

    @cached_property
    def _ahead_s(self) -> float:
        """How far the provider's clock is ahead of this machine's, from an object put now."""
        import obstore

        probe = f".clock.{uuid4().hex}"
        self.put(probe, b"")
        with explained("read", f"{self.url}/{probe}"):
            written = obstore.head(self._store, probe)["last_modified"].timestamp()
        self.remove(probe)
        return written - time.time()

    def names(self, prefix: str) -> list[str]:
        """The next parts of the keys below the prefix."""
        import obstore

        place = inside(prefix) if prefix else None
        with explained("list", f"{self.url}/{prefix}"):
            found = again(lambda: obstore.list_with_delimiter(self._store, place))
        keys = [*found["common_prefixes"], *(entry["path"] for entry in found["objects"])]
        return sorted(name for key in keys if not (name := key.rstrip("/").rpartition("/")[2]).startswith("."))

    def remove(self, prefix: str) -> None:
        """Delete the object, or every object below the prefix."""
        import obstore

        below = list(self.sizes(prefix))
        with explained("remove", f"{self.url}/{prefix}"):
            obstore.delete(self._store, below or [prefix])
