"""What makes a place a cohort: the document `cohort.json` at its top."""

import json

from qsm_dask.digests import canonical
from qsm_dask.errors import StoreError
from qsm_dask.store.files import Files
from qsm_dask.store.layout import COHORT, FORMAT

_ABOUT = canonical({"format": FORMAT, "kind": "qsm_dask cohort"})


def is_founded(files: Files) -> bool:
    """Whether the place is a cohort."""
    return files.get(COHORT) is not None


def found(files: Files) -> None:
    """Make a new or empty place a cohort; leave one that is there as it is.

    Raises
    ------
    StoreError : the place holds something else, or cannot be written.
    """
    if is_founded(files):
        return
    strangers = [name for name in files.names("") if name != "lost+found"]
    if strangers:
        raise StoreError(f"{files.url} is no cohort and holds {', '.join(strangers[:3])}; name a new or empty place")
    files.put(COHORT, _ABOUT)


def check(files: Files) -> None:
    """Refuse a place that is no cohort, or one of another format.

    Raises
    ------
    StoreError : it has no `cohort.json`, a damaged one, or one of a newer or older qsm_dask.
    """
    about = files.get(COHORT)
    if about is None:
        raise StoreError(f"{files.url} is no cohort: it has no {COHORT}; `qsm-dask ingest BIDS {files.url}` makes one")
    try:
        made_by = int(json.loads(about)["format"])
    except (ValueError, KeyError, TypeError):
        raise StoreError(
            f"{files.url}/{COHORT} is damaged; if this is a cohort, let the file hold {_ABOUT.decode()}"
        ) from None
    if made_by > FORMAT:
        raise StoreError(f"{files.url} has format {made_by} and this qsm_dask reads {FORMAT}; install a newer qsm_dask")
    if made_by < FORMAT:
        raise StoreError(
            f"{files.url} has format {made_by}, of an older qsm_dask, and this one reads {FORMAT}; "
            "ingest the dataset into a new place"
        )
