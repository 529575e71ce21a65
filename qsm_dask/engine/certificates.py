"""Certificates of one run: made for it, worth nothing after it."""

# mypy: disable-error-code="no-untyped-call"
# distributed is typed in part only

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from qsm_dask.errors import ConfigError
from qsm_dask.scratch import own_folder

if TYPE_CHECKING:
    from distributed import Security

FILES = ("tls_ca_file", "tls_worker_cert", "tls_worker_key")
"""What a worker shows and checks."""


def temporary_security(install: str) -> "Security":
    """New certificates, in memory.

    Raises
    ------
    ConfigError : the package that makes them is not installed; `install` says how.
    """
    from distributed import Security

    try:
        made: Security = Security.temporary()
    except ImportError as error:
        raise ConfigError(f"cluster: tls needs the package cryptography: {install}") from error
    return made


def file_name(field: str) -> str:
    """The file of one of `FILES` in a run's folder: `tls_ca_file` -> `ca_file.pem`."""
    return f"{field.removeprefix('tls_')}.pem"


def put_in_folder(security: "Security", folder: str) -> "Security":
    """Write what workers need into `folder`, and name the files in place of their content; the rest stays in memory."""
    for field in FILES:
        path = Path(folder, file_name(field))
        path.touch(mode=0o600)
        path.write_text(getattr(security, field))
        setattr(security, field, str(path))
    return security


@contextmanager
def private_folder(parent: str) -> Iterator[str]:
    """A folder for the run's certificates that only this user may enter; removed at exit.

    Raises
    ------
    ConfigError : `parent` cannot be written.
    """
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(own_folder(Path(parent).expanduser(), ".qsm-dask-"))
        except OSError as error:
            raise ConfigError(
                f"cluster: shared_folder {parent!r} cannot be written ({error}): name one that every node sees"
            ) from error
        yield folder
