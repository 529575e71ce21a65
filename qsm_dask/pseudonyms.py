"""Names for tasks that do not tell who was scanned."""

import hashlib
import hmac
import os
from collections.abc import Mapping

from qsm_dask.errors import ConfigError

VARIABLE = "QSM_DASK_PSEUDONYM_SECRET"
_LEAST = 16
_LENGTH = 12


class Pseudonyms:
    """The same name for the same scan, which only the holder of the secret can tell from another's.

    A bare hash would not do: who knows how participants are labelled could hash all labels there can be.

    Parameters
    ----------
    secret : at least 16 characters.

    Raises
    ------
    ConfigError : the secret is too short.
    """

    def __init__(self, secret: str) -> None:
        if len(secret) < _LEAST:
            raise ConfigError(
                f"--pseudonymise needs a secret of at least {_LEAST} characters in the environment ({VARIABLE}), "
                "such as `openssl rand -hex 32` prints"
            )
        self._secret = secret.encode()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Pseudonyms":
        """With the secret in `QSM_DASK_PSEUDONYM_SECRET`.

        Raises
        ------
        ConfigError : it is absent or too short.
        """
        return cls(environment.get(VARIABLE, ""))

    def __call__(self, key: object) -> str:
        """The name of a scan: HMAC-SHA-256 of its key, shortened."""
        return f"scan-{hmac.new(self._secret, str(key).encode(), hashlib.sha256).hexdigest()[:_LENGTH]}"
