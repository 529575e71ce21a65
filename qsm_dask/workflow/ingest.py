"""Bring a BIDS dataset into a cohort: one task a scan, one commit a scan."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from qsm_dask import events
from qsm_dask.cohort import combination, conversion
from qsm_dask.cohort.participants import Participants, update
from qsm_dask.engine.base import Engine, Outcome
from qsm_dask.engine.resources import PeakMemory
from qsm_dask.errors import ConfigError, InputError, NoPhase, StageError
from qsm_dask.io import bids as dataset
from qsm_dask.io import derivatives as maps
from qsm_dask.io import remote, structural
from qsm_dask.io.acquisition import Acquisition
from qsm_dask.io.documents import json_bytes
from qsm_dask.io.echoes import choose_parts
from qsm_dask.io.filters import Filters
from qsm_dask.io.patterns import Transforms
from qsm_dask.io.phase import PhaseSign
from qsm_dask.io.series import needs_phase, outlines
from qsm_dask.place import Place
from qsm_dask.scan import ScanKey
from qsm_dask.store import INGEST_KEY, CohortStore, Commit, Recorder
from qsm_dask.store.documents import DATASET
from qsm_dask.wording import some

Row = dict[str, Any]


@dataclass(frozen=True)
class Summary:
    """What a run of `ingest` did.

    Attributes
    ----------
    done, unchanged, failed, skipped : scans converted, found as they were, broken, and without phase.
    rows : one a scan, as the index keeps them.
    gone : scans of the cohort that the dataset no longer holds; they stay in the cohort.
    warnings : about the dataset as a whole; those of a scan stand in its facts.
    """

    done: int
    unchanged: int
    failed: int
    skipped: int
    rows: tuple[Mapping[str, Any], ...] = field(repr=False)
    gone: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def failures(self) -> dict[str, str]:
        """Reasons by scan."""
        return {row["scan"]: row["reason"] for row in self.rows if row["state"] == "failed"}


def run(
    bids: str | Path,
    cohort: CohortStore,
    engine: Engine,
    *,
    derivatives: Sequence[str] = (),
    transforms: Sequence[str] = (),
    participants: Sequence[str] = (),
    sessions: Sequence[str] = (),
    filters: Path | None = None,
    phase_sign: str = "auto",
    coil_smoothing_mm: float | None = None,
    timeout_s: float | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Summary:
    """Index a BIDS dataset and convert each scan that is new or has changed.

    Parameters
    ----------
    bids : root of the dataset, a folder or a URL.
    cohort : where the scans go.
    engine : where tasks run.
    derivatives : folders with existing maps, `DIR` or `DIR:quantity[=units or pattern],…`.
    transforms : patterns of files that resample label images onto scans, `[quantity,…=]PATTERN`.
    participants, sessions : labels to which the run is restricted; all when empty.
    filters : BIDS filter file.
    phase_sign : `auto`, `+1`, `-1`, or a list such as `auto,GE=-1,sub-03=-1`.
    coil_smoothing_mm : of the stage that combines coils [mm]; its default if not given.
    timeout_s : seconds after which a scan is given up.
    progress : called with (scans finished, scans in all, the scan's name).

    Raises
    ------
    InputError : the dataset or what was chosen of it does not exist.
    ConfigError : an option or the filter file is wrong.
    """
    sign = PhaseSign.parse(phase_sign)
    chosen = Filters.load(filters) if filters else None
    combining = {} if coil_smoothing_mm is None else {"smoothing_mm": coil_smoothing_mm}
    with _tree(Place.parse(bids)) as (root, located):
        sources = maps.parse([_below(spec, bids, root) for spec in derivatives], root)
        moved = [Transforms.parse(_pattern_below(text, bids, root), root) for text in transforms]
        index = dataset.index(root, participants=participants, sessions=sessions, filters=chosen)
        with_t1w = structural.attach(index.acquisitions, root, chosen)
        acquisitions = located(maps.attach(with_t1w, sources, chosen, moved))
        about, people = dataset.description(root), dataset.participants(root)
        columns = dataset.columns(root)
    whole = not (participants or sessions or filters)
    if people is not None and not whole:  # who was left out on purpose does not belong to the cohort
        people = people[people["participant_id"].isin({acquisition.key.subject for acquisition in acquisitions})]
    _write_description(cohort, root, about, columns, [str(source) for source in sources])
    if people is not None:
        update(cohort, people)
    known = cohort.scans()
    judged = [(acquisition, _refused(acquisition)) for acquisition in acquisitions]
    ready = [acquisition for acquisition, row in judged if row is None]
    rows = [row for _, row in judged if row is not None]
    task = partial(ingest_scan, cohort, sign, combination.step(combining).parameters)
    sizes: dict[ScanKey, int] = {}
    unread: list[Row] = []
    outcomes = engine.map(
        task,
        _sized(ready, sizes, unread),
        memory=lambda acquisition: sizes.pop(acquisition.key),
        retries=1,
        timeout_s=timeout_s,
    )
    with Recorder(cohort) as recorder:
        recorder.add(rows)
        for row in rows:
            events.tell(row)

        def take(row: Row, worker: str = "") -> None:
            rows.append(row)
            recorder.add([_indexed(row)])
            events.tell(row, worker=worker)
            if progress is not None:
                progress(len(rows), len(acquisitions), row["scan"])

        for outcome in outcomes:
            take(outcome.value if outcome.ok else _failed_outcome(outcome), outcome.worker)
        for row in unread:
            take(row)
        present = {acquisition.key for acquisition in acquisitions}
        gone = [str(scan) for scan in known if scan not in present] if whole else []
        recorder.add(_forgotten(cohort, gone))
    return _summary(rows, gone, [*index.warnings, *_noted(acquisitions), *Participants(people).doubles()])


def _sized(acquisitions: Sequence[Acquisition], sizes: dict[ScanKey, int], unread: list[Row]) -> Iterator[Acquisition]:
    """Acquisitions whose memory `sizes` tells from then on; `unread` has rows of those whose header cannot be read."""
    for acquisition, found in outlines(acquisitions):
        if isinstance(found, InputError):
            unread.append(_row(acquisition, "failed", str(found)))
        else:
            sizes[acquisition.key] = conversion.projected_bytes(found)
            yield acquisition


@contextmanager
def _tree(place: Place) -> Iterator[tuple[Path, Callable[[Sequence[Acquisition]], Sequence[Acquisition]]]]:
    """Where the names of a dataset's files can be looked at, and what tells of its scans where they truly lie."""
    if place.folder is not None:
        yield place.folder, lambda acquisitions: acquisitions
        return
    with remote.mirrored(place.url) as mirror:
        yield mirror.root, mirror.located


def _below(spec: str, bids: str | Path, root: Path) -> str:
    """A derivatives folder of a dataset at a URL, in its tree on this machine."""
    if "://" not in spec:
        return spec
    url = str(bids).rstrip("/")
    if not spec.startswith(f"{url}/"):
        raise ConfigError(f"--derivatives {spec}: at a URL they lie below the dataset's, {url}")
    return f"{root}{spec.removeprefix(url)}"


def _pattern_below(text: str, bids: str | Path, root: Path) -> str:
    """A pattern of transforms of a dataset at a URL, in its tree on this machine."""
    names, mark, pattern = text.partition("=") if "=" in text.partition("/")[0] else ("", "", text)
    return f"{names}{mark}{_below(pattern, bids, root)}"


def ingest_scan(cohort: CohortStore, sign: PhaseSign, combining: Mapping[str, Any], acquisition: Acquisition) -> Row:
    """Convert one scan unless it is as it was; the task that workers execute.

    Returns the scan's row of the index, with `changed` telling whether it was converted.
    Unusable data is a row too; an unexpected error is raised, so that the engine may try
    again.
    """
    started = time.perf_counter()
    try:
        with ExitStack() as fetched:
            found = conversion.examine(cohort, acquisition, sign, combination.step(combining), fetched)
            if isinstance(found, Commit):
                return found.row() | {"changed": False}
            with PeakMemory() as peak:
                converted = found.read()
            return found.keep(converted, started, peak.bytes)
    except NoPhase as error:
        return _row(acquisition, "skipped", str(error))
    except (InputError, StageError) as error:
        return _row(acquisition, "failed", str(error)) | {"seconds": time.perf_counter() - started}


def _refused(acquisition: Acquisition) -> Row | None:
    """The row of a scan that need not be sent anywhere: its file names tell that it cannot be read."""
    try:
        choose_parts(acquisition, phase_needed=needs_phase(acquisition))
    except NoPhase as error:
        return _row(acquisition, "skipped", str(error))
    except InputError as error:
        return _row(acquisition, "failed", str(error))
    return _row(acquisition, "failed", acquisition.problem) if acquisition.problem else None


def _row(acquisition: Acquisition, state: str, reason: str) -> Row:
    blank = {"key": INGEST_KEY, "digest": "", "seconds": 0.0, "peak_bytes": 0, "facts": {}}
    return {"scan": str(acquisition.key), "node": "ingest", "state": state, "reason": reason, **blank}


def _failed_outcome(outcome: Outcome) -> Row:
    reason = outcome.error if outcome.error_type == "EngineError" else f"{outcome.error_type}: {outcome.error}"
    return _row(outcome.key, "failed", reason) | {"seconds": outcome.seconds}


def _indexed(row: Row) -> Row:
    """A row as the index keeps it."""
    return {name: value for name, value in row.items() if name != "changed"}


def _write_description(
    cohort: CohortStore, root: Path, about: Mapping[str, Any], columns: Mapping[str, Any], sources: Sequence[str]
) -> None:
    description = {
        "name": about.get("Name") or root.resolve().name,
        "folder": root.resolve().name,
        "bids_version": about.get("BIDSVersion"),
        "derivatives": list(sources),
        "participants": dict(columns),
    }
    cohort.write_document(DATASET, json_bytes(description))


def _noted(acquisitions: Sequence[Acquisition]) -> list[str]:
    """What is noted of several scans alike, such as a map that they lack: told once."""
    scans: dict[str, list[str]] = {}
    for acquisition in acquisitions:
        for note in acquisition.notes:
            scans.setdefault(note, []).append(str(acquisition.key))
    return [f"{note} for {len(found)} of {len(acquisitions)} scans: {some(found)}" for note, found in scans.items()]


def _forgotten(cohort: CohortStore, gone: Collection[str]) -> list[Row]:
    """Rows of scans that failed and that the dataset no longer holds: nobody can mend them any more."""
    index = cohort.index()
    failed = index[(index["node"] == "ingest") & (index["state"] == "failed") & index["scan"].isin(list(gone))]
    reason = "no longer in the dataset, and never usable"
    return [{"scan": scan, "node": "ingest", "state": "skipped", "reason": reason} for scan in failed["scan"]]


def _summary(rows: Sequence[Row], gone: Sequence[str], warnings: Sequence[str]) -> Summary:
    states = [row["state"] for row in rows]
    converted = sum(bool(row.get("changed")) for row in rows)
    found = list(warnings)
    if states and set(states) == {"skipped"}:
        found.append(f"none of the {len(states)} scans has phase images: there is nothing to process")
    return Summary(
        done=converted,
        unchanged=states.count("done") - converted,
        failed=states.count("failed"),
        skipped=states.count("skipped"),
        rows=tuple(sorted(rows, key=lambda row: str(row["scan"]))),
        gone=tuple(gone),
        warnings=tuple(found),
    )
