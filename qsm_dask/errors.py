"""The exceptions of qsm_dask.

    QsmError                   everything the package raises on purpose
    ├── InputError             the user's data cannot be used (BIDS, NIfTI, sidecars)
    │   └── NoPhase            a magnitude-only acquisition: skipped, not failed
    ├── ConfigError            a pipeline, a cluster file or an option is wrong
    ├── StoreError             the cohort store is not what it should be
    │   └── DamageError        a committed array is missing, truncated or altered
    ├── StageError             a kernel refused or failed on one scan
    └── EngineError            a worker died, timed out or has too little memory

Messages say what is wrong, where (scan, step, file) and what to do.
"""


class QsmError(Exception):
    """Base of every error that qsm_dask raises on purpose."""


class InputError(QsmError):
    """The data given cannot be used; the message names the file and the remedy."""


class NoPhase(InputError):
    """An acquisition without phase images: it is skipped and counted apart from failures."""


class ConfigError(QsmError):
    """A pipeline file, a cluster file or an option is wrong; raised before anything runs."""


class StoreError(QsmError):
    """The cohort store cannot be opened, read or written."""


class DamageError(StoreError):
    """A committed array is missing, truncated or differs from its commit."""


class StageError(QsmError):
    """A step of the pipeline failed on one scan; the message names scan and step."""


class EngineError(QsmError):
    """A worker died, ran out of time, or is too small for a scan."""
