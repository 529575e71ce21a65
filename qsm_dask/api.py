"""The functions that a notebook starts with."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from qsm_dask.engine import Engine, read_spec
from qsm_dask.engine import open_engine as _open_engine
from qsm_dask.errors import ConfigError, StoreError
from qsm_dask.pipeline import Pipeline
from qsm_dask.place import Place
from qsm_dask.store import CohortStore
from qsm_dask.workflow import compile_ahead
from qsm_dask.workflow import ingest as _ingest
from qsm_dask.workflow import process as _process


def open_cohort(place: str | Path) -> CohortStore:
    """Open a cohort store.

    Parameters
    ----------
    place : its folder, or its URL `s3://bucket/name`, `gs://bucket/name` or `az://container/name`. Credentials,
        region and endpoint are those of the environment.

    Raises
    ------
    ConfigError : the place is neither a folder nor a URL that is understood.
    StoreError : there is no cohort, or it cannot be reached.
    """
    return CohortStore.open(place)


@contextmanager
def new_cohort(place: str | Path) -> Iterator[CohortStore]:
    """Open a cohort, or make it; what was made is removed if the block fails before it keeps anything there.

    Raises
    ------
    ConfigError : the place holds something else, or cannot be reached or written.
    """
    folder = Place.parse(place).folder
    absent = [] if folder is None else [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        fresh = not CohortStore.exists(place)
        store = CohortStore.create(place)
    except StoreError as error:
        raise ConfigError(str(error)) from error
    try:
        yield store
    except BaseException:
        if fresh and store.abandon():
            with suppress(OSError):  # somebody put something there meanwhile
                for one in absent:
                    one.rmdir()
        raise


@contextmanager
def open_engine(cluster: str | Path = "local") -> Iterator[Engine]:
    """Start a cluster and shut it down at the end of the `with` block.

    Parameters
    ----------
    cluster : a shipped file of `cluster/` by its name, the path of your own, or the address of a
        running scheduler (`tls://HOST:PORT`). Local workers are new processes that import the
        calling script: guard it by `if __name__ == "__main__":`.

    Raises
    ------
    ConfigError : there is no such file, or an option in it is wrong.
    """
    with _open_engine(read_spec(cluster)) as engine:
        yield engine


def ingest(
    bids: str | Path,
    cohort: str | Path,
    engine: Engine,
    *,
    derivatives: Sequence[str] = (),
    transforms: Sequence[str] = (),
) -> "_ingest.Summary":
    """Convert the scans of a BIDS dataset to the cohort store at `cohort`, which is made if absent.

    Parameters
    ----------
    bids : folder of the raw dataset, or its URL.
    cohort : folder or URL of the store; see `open_cohort`.
    engine : where the conversions run; see `open_engine`.
    derivatives : `DIR[:NAMES]` of maps, masks and label images that exist already.
    transforms : `[NAMES=]PATTERN` of files that resample label images onto the scans.

    Raises
    ------
    InputError, ConfigError : the dataset, or an option, cannot be used at all.
    """
    with new_cohort(cohort) as store:
        return _ingest.run(bids, store, engine, derivatives=derivatives, transforms=transforms)


def process(cohort: CohortStore, engine: Engine, pipeline: Pipeline | str | Path = "consensus") -> "_process.Summary":
    """Run a pipeline on every ingested scan of a cohort; what is committed is not computed again.

    A machine's first run of a pipeline compiles its kernels before anything else, for about a minute.

    Parameters
    ----------
    cohort : from `open_cohort`.
    engine : where the scans run; see `open_engine`.
    pipeline : a `Pipeline`, the name of a shipped one, or the path of a YAML file.

    Raises
    ------
    ConfigError : the pipeline is wrong, or no scan was ingested.
    """
    chosen = pipeline if isinstance(pipeline, Pipeline) else Pipeline.from_yaml(pipeline)
    compile_ahead.run(chosen, engine.threads)
    return _process.run(cohort, engine, chosen)
