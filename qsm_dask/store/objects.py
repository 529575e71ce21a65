"""A cohort in an object store: S3 and what speaks like it, Google Cloud Storage, Azure Blob Storage.

Credentials, region and endpoint come from the environment, under the names that each
provider's own tools use (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, `AWS_REGION`,
`GOOGLE_APPLICATION_CREDENTIALS`, `AZURE_STORAGE_ACCOUNT_KEY`, ...), so that no secret
stands in a URL, a log or a file of the cohort.
"""

import re
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

from qsm_dask.errors import StoreError
from qsm_dask.store.files import batches
from qsm_dask.store.layout import inside

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

_WRITERS = 8
PATIENCE_S = 90.0
"""Of one request, all its retries included: a server that restarts is back within a quarter of a minute."""
_FIRST_S, _FACTOR, _LONGEST_S = 0.1, 3.0, 5.0
"""Pauses between retries: random, up to so many times the one before."""
_UNBOUNDED = 100_000
"""Retries: time bounds them. Their number would: random pauses grow so slowly that a dozen takes four seconds."""
_BROKEN_OFF = re.compile("response body|timed out")
_TRIES = 5

Found = TypeVar("Found")

_NO_BUCKET = "there is no such bucket or container; make it first"
_DENIED = "access is denied; check the credentials in the environment and what they give the right to"


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
        try:
            from obstore.store import from_url
        except ImportError:
            raise StoreError(f"{self.url}: object stores need obstore; `pip install 'qsm-dask[cloud]'`") from None
        with _explained("open", self.url):
            return from_url(
                self.url,
                client_options={"timeout": timedelta(seconds=60), "allow_http": True},
                retry_config={
                    "max_retries": _UNBOUNDED,
                    "retry_timeout": timedelta(seconds=self._patience_s),
                    "backoff": {
                        "init_backoff": timedelta(seconds=_FIRST_S),
                        "base": _FACTOR,
                        "max_backoff": timedelta(seconds=_LONGEST_S),
                    },
                },
            )

    @cached_property
    def _writers(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(_WRITERS, "store-writer")

    def get(self, key: str) -> bytes | None:
        """The content of an object, or None."""
        import obstore

        place = inside(key)
        try:
            with _explained("read", f"{self.url}/{place}"):
                return _again(lambda: bytes(obstore.get(self._store, place).bytes()))
        except FileNotFoundError:
            return None

    def put(self, key: str, data: bytes) -> None:
        """Write or replace an object."""
        import obstore

        place = inside(key)
        try:
            with _explained("write", f"{self.url}/{place}"):
                _again(lambda: obstore.put(self._store, place, data))
        except FileNotFoundError as error:
            raise StoreError(f"cannot write {self.url}/{place}: {_NO_BUCKET}") from error

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
        with _explained("list", f"{self.url}/{place}"):
            return {entry["path"]: entry["size"] for entry in self._listed(place)}

    def ages(self, prefix: str) -> dict[str, float]:
        """Every object below the prefix, with its age by the provider's clock, which tells whole seconds."""
        place = inside(prefix)
        now = time.time() + self._ahead_s
        with _explained("list", f"{self.url}/{place}"):
            return {entry["path"]: now - entry["last_modified"].timestamp() for entry in self._listed(place)}

    def _listed(self, place: str) -> "list[ObjectMeta]":
        import obstore

        return _again(lambda: [entry for found in obstore.list(self._store, place) for entry in found])

    @cached_property
    def _ahead_s(self) -> float:
        """How far the provider's clock is ahead of this machine's, from an object put now."""
        import obstore

        probe = f".clock.{uuid4().hex}"
        self.put(probe, b"")
        with _explained("read", f"{self.url}/{probe}"):
            written = obstore.head(self._store, probe)["last_modified"].timestamp()
        self.remove(probe)
        return written - time.time()

    def names(self, prefix: str) -> list[str]:
        """The next parts of the keys below the prefix."""
        import obstore

        place = inside(prefix) if prefix else None
        with _explained("list", f"{self.url}/{prefix}"):
            found = _again(lambda: obstore.list_with_delimiter(self._store, place))
        keys = [*found["common_prefixes"], *(entry["path"] for entry in found["objects"])]
        return sorted(name for key in keys if not (name := key.rstrip("/").rpartition("/")[2]).startswith("."))

    def remove(self, prefix: str) -> None:
        """Delete the object, or every object below the prefix."""
        import obstore

        below = list(self.sizes(prefix))
        with _explained("remove", f"{self.url}/{prefix}"):
            obstore.delete(self._store, below or [prefix])


def _again(request: Callable[[], Found]) -> Found:
    """Repeat a request whose answer broke off or came too late: neither is repeated by the library below."""
    from obstore.exceptions import BaseError

    for _ in range(_TRIES - 1):
        try:
            return request()
        except BaseError as error:
            if not _BROKEN_OFF.search(str(error).partition("\n")[0]):
                raise
    return request()


@contextmanager
def _explained(action: str, place: str) -> Iterator[None]:
    """Turn what a provider reports into a `StoreError`; an object that is not there stays a FileNotFoundError."""
    from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

    try:
        yield
    except FileNotFoundError:
        raise
    except (BaseError, OSError, ValueError) as error:
        # The provider's text ends in a dump of the request; its first line says what is wrong.
        told = str(error).partition("\n")[0]
        denied = isinstance(error, PermissionDeniedError | UnauthenticatedError) or re.search(
            "status code: 40[13]", told
        )
        unreachable = f"{told[:300]}; is the server reachable? Then run the same command again"
        reason = _NO_BUCKET if "404 Not Found" in told else _DENIED if denied else unreachable
        raise StoreError(f"cannot {action} {place}: {reason}") from error
