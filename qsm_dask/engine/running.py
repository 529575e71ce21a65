"""A scheduler that runs already, started by its user, and the workers that it has."""

# mypy: disable-error-code="no-untyped-call"
# distributed is typed in part only

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from qsm_dask.engine.base import Engine
from qsm_dask.engine.sizing import seconds, task_limit, whole
from qsm_dask.engine.suited import least_memory, suited_workers
from qsm_dask.errors import ConfigError, EngineError

if TYPE_CHECKING:
    from distributed import Security

_LOG = logging.getLogger(__name__)
_SCHEMES = ("tls", "tcp")
_HERE = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class Running:
    """A scheduler at an address. The run leaves it and its workers as they were.

    Attributes
    ----------
    address : `tls://HOST:PORT`, or `tcp://HOST:PORT`, which anybody on the way can read and change.
    ca_file, cert, key : PEM files for `tls://`: the authority's certificate, this client's
        certificate and its private key; None takes them from dask's own configuration.
    threads_per_worker : threads that the kernels of one scan use.
    start : how long to wait for the first worker.
    patience : the run is given up when there was no worker for so long.
    """

    address: str | None = None
    ca_file: str | None = None
    cert: str | None = None
    key: str | None = None
    threads_per_worker: int = 1
    start: str | int = "60 s"
    patience: str | int = "10 minutes"

    def __post_init__(self) -> None:
        """Refuse an address that is none."""
        parts = urlsplit(self.address or "")
        if parts.scheme not in _SCHEMES or not parts.hostname:
            raise ConfigError(
                f"cluster: address {self.address!r} is not that of a scheduler, such as tls://node7:8786 "
                "(or tcp://127.0.0.1:8786 on this machine)"
            )
        if parts.scheme == "tcp" and (self.ca_file or self.cert or self.key):
            raise ConfigError("cluster: certificates are given, but tcp:// does not use them: say tls://")
        whole("threads_per_worker", self.threads_per_worker)
        seconds("start", self.start)
        seconds("patience", self.patience)

    def describe(self) -> str:
        """What would be connected to."""
        protected = "encrypted" if self._encrypted else "NOT encrypted, and anyone who reaches it may run code there"
        return f"the running scheduler at {self.address} ({protected}); nothing is started or submitted"

    @property
    def _encrypted(self) -> bool:
        return urlsplit(self.address or "").scheme == "tls"

    @contextmanager
    def open(self) -> Iterator[Engine]:
        """Connect; leave without shutting anything down.

        Raises
        ------
        EngineError : there is no scheduler, or it has no worker in time.
        ConfigError : its workers do not suit: several threads, no memory limit, or no qsm_dask.
        """
        from distributed import Client

        from qsm_dask.engine.dask import DaskEngine
        from qsm_dask.engine.settings import quiet

        if not self._encrypted and urlsplit(self.address or "").hostname not in _HERE:
            _LOG.warning("%s is not encrypted: anyone who reaches it may run code there; use tls://", self.address)
        wait = seconds("start", self.start)
        with quiet():
            try:
                client = Client(self.address, timeout=wait, security=self._security(), set_as_default=False)
            except (OSError, ValueError, RuntimeError) as error:
                raise EngineError(f"no scheduler answers at {self.address}: {error}") from error
            with client:
                workers = suited_workers(client, f"the scheduler at {self.address}", wait)
                engine = DaskEngine(
                    client,
                    slots=len(workers),
                    limit=task_limit(least_memory(workers)),
                    threads=self.threads_per_worker,
                    patience_s=seconds("patience", self.patience),
                )
                try:
                    yield engine
                finally:
                    engine.release()

    def _security(self) -> "Security | None":
        from distributed import Security

        if not self._encrypted:
            return None
        given = {"tls_ca_file": self.ca_file, "tls_client_cert": self.cert, "tls_client_key": self.key}
        return Security(require_encryption=True, **{name: value for name, value in given.items() if value})
