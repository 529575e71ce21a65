"""Where a cohort or a dataset lies: a folder, or a URL of an object store."""

import re
from dataclasses import dataclass
from pathlib import Path

from qsm_dask.errors import ConfigError

SCHEMES = ("s3", "gs", "az")

_HOST = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_PART = r"(?!\.{1,2}(?:/|$))[A-Za-z0-9._=+-]+"
_URL = re.compile(rf"(?:{'|'.join(SCHEMES)})://{_HOST}(?:/{_PART})*/?")
_MEANT = re.compile(rf"(?:{'|'.join(SCHEMES)}):|[A-Za-z0-9+.-]+://", re.IGNORECASE)


@dataclass(frozen=True)
class Place:
    """Where a cohort lies.

    Attributes
    ----------
    url : an absolute folder, or a URL without a slash at its end.
    """

    url: str

    @classmethod
    def parse(cls, text: str | Path) -> "Place":
        """Understand what a user gave: a folder, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.

        Raises
        ------
        ConfigError : a URL of another kind, or one that holds a secret, a query or characters that differ
            between providers.
        """
        given = str(text)
        if not _MEANT.match(given):
            return cls(str(Path(given).absolute()))
        if "@" in given:
            raise ConfigError("a URL holds no credentials: put them in the environment")
        if not _URL.fullmatch(given):
            raise ConfigError(
                f"{given}: give a folder, or a URL s3://bucket/name, gs://bucket/name or az://container/name of "
                "letters, digits and . _ = + -"
            )
        return cls(given.rstrip("/"))

    @property
    def folder(self) -> Path | None:
        """The folder; None where it is a URL."""
        return None if "://" in self.url else Path(self.url)

    def of(self, key: str) -> str:
        """Where an object of the cohort lies, for people."""
        return f"{self.url}/{key}"

    def __str__(self) -> str:
        return self.url
