"""The functions that a notebook starts with."""

import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from qsm_dask.engine import Engine, read_spec
from qsm_dask.engine import open_engine as _open_engine
from qsm_dask.errors import ConfigError, EngineError, StoreError
from qsm_dask.pipeline import Pipeline
from qsm_dask.place import Place
from qsm_dask.store import CohortStore
from qsm_dask.store.documents import PIPELINE, read_json
from qsm_dask.workflow import compile_ahead
from qsm_dask.workflow import cube as _cube
from qsm_dask.workflow import ingest as _ingest
from qsm_dask.workflow import process as _process
from qsm_dask.workflow import template as _template

_LOG = logging.getLogger(__name__)


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


def append_cube(cohort: CohortStore, engine: Engine, *, compact: bool = False) -> "_cube.Summary":
    """Append the maps of scans in standard space to the cohort cube, which `CohortStore.cube` reads by brick.

    Parameters
    ----------
    cohort : from `open_cohort`; processed by a pipeline that has `anatomy.standard`, such as `standard`.
    engine : where segments of the cube are written; see `open_engine`.
    compact : whether scans of small segments are written together once more.

    Raises
    ------
    DamageError : the index, or the record of a segment, cannot be read.
    """
    return _cube.run(cohort, engine, compact=compact)


def build_template(
    cohort: CohortStore,
    engine: Engine,
    out: str | Path,
    *,
    iterations: int = 3,
    name: str = "study",
    progress: Callable[[int, "_template.Average"], None] | None = None,
) -> "list[_template.Average]":
    """Build a template from the cohort's own scans, for populations that no atlas fits.

    Scans are registered to the template of the cohort's pipeline, averaged brick by brick, registered to the average,
    and so on. The cohort's pipeline is the same afterwards; what iterations stored, `gc` with `superseded` removes. If
    it is interrupted, run the cohort's pipeline again, as before: nothing is computed anew, and its results count.

    Parameters
    ----------
    cohort : processed by a pipeline that has `anatomy.standard`, such as `standard`.
    engine : where scans are registered; see `open_engine`. Its workers must see `out`.
    out : folder of the template, which `--atlas` takes then; each iteration keeps its average in a folder there.
    iterations : how often scans are registered and averaged.
    name : of the template's space: letters and digits.
    progress : called with (iterations done, the average).

    Returns
    -------
    list : an average an iteration: scans, and how far their mean shape lay from the template's.

    Raises
    ------
    ConfigError : the cohort's pipeline has no `anatomy.standard`, or an option is wrong.
    EngineError : no scan could be registered.
    """
    if iterations < 1 or not (name.isascii() and name.isalnum()):
        raise ConfigError(
            f"give one iteration or more, got {iterations}, and a name of letters and digits, got {name!r}"
        )
    folder = Path(out).expanduser().absolute()
    atlas: str | None = None
    made: list[_template.Average] = []
    with _pipeline_kept(cohort):
        for number in range(1, iterations + 1):
            done = process(cohort, engine, _template.pipeline_of(cohort, atlas))
            if not done.done:
                raise EngineError(f"no scan could be registered to {atlas or 'the template of the pipeline'}: {done}")
            append_cube(cohort, engine)
            atlas = str(folder / f"iteration-{number}")
            made.append(_template.average(cohort, Path(atlas), name))
            if progress is not None:
                progress(number, made[-1])
    for file in sorted(Path(atlas or "").iterdir()):
        shutil.copyfile(file, folder / file.name)
    process(cohort, engine, Pipeline.from_mapping(read_json(cohort, PIPELINE)))
    return made


@contextmanager
def _pipeline_kept(cohort: CohortStore) -> Iterator[None]:
    """Give the cohort its own pipeline back at the end of the block, however it ends; no scan is looked at."""
    before = cohort.read_document(PIPELINE)
    try:
        yield
    except BaseException:
        if cohort.read_document(PIPELINE) != before:
            _LOG.warning("%s: its scans are pending until its own pipeline is run again, as before", cohort.place)
        raise
    finally:
        if before is not None and cohort.read_document(PIPELINE) != before:
            cohort.write_document(PIPELINE, before)
