"""Connections to object stores: S3 and what speaks like it, Google Cloud Storage, Azure Blob Storage.

Credentials, region and endpoint come from the environment, under the names that each
provider's own tools use (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, `AWS_REGION`,
`GOOGLE_APPLICATION_CREDENTIALS`, `AZURE_STORAGE_ACCOUNT_KEY`, ...), so that no secret
stands in a URL, a log or a file of the cohort.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from qsm_dask.errors import StoreError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

PATIENCE_S = 90.0
"""Of one request, all its retries included: a server that restarts is back within a quarter of a minute."""
_FIRST_S, _FACTOR, _LONGEST_S = 0.1, 3.0, 5.0
"""Pauses between retries: random, up to so many times the one before."""
_UNBOUNDED = 100_000
"""Retries: time bounds them. Their number would: random pauses grow so slowly that a dozen takes four seconds."""
_BROKEN_OFF = re.compile("response body|timed out")
_TRIES = 5

Found = TypeVar("Found")

NO_BUCKET = "there is no such bucket or container; make it first"
_DENIED = "access is denied; check the credentials in the environment and what they give the right to"


def connect(url: str, patience_s: float = PATIENCE_S) -> "ObjectStore":
    """The objects below a URL.

    Parameters
    ----------
    url : of a bucket or container, or of a prefix in one, as `Place` understands it.
    patience_s : for how long a server that does not answer, or not now, is asked again [s].

    Raises
    ------
    StoreError : obstore is not installed, or the URL is none of its.
    """
    try:
        from obstore.store import from_url
    except ImportError:
        raise StoreError(f"{url}: object stores need obstore; `pip install 'qsm-dask[cloud]'`") from None
    with explained("open", url):
        return from_url(
            url,
            client_options={"timeout": timedelta(seconds=60), "allow_http": True},
            retry_config={
                "max_retries": _UNBOUNDED,
                "retry_timeout": timedelta(seconds=patience_s),
                "backoff": {
                    "init_backoff": timedelta(seconds=_FIRST_S),
                    "base": _FACTOR,
                    "max_backoff": timedelta(seconds=_LONGEST_S),
                },
            },
        )


def again(request: Callable[[], Found]) -> Found:
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
def explained(action: str, place: str) -> Iterator[None]:
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
        reason = NO_BUCKET if "404 Not Found" in told else _DENIED if denied else unreachable
        raise StoreError(f"cannot {action} {place}: {reason}") from error
