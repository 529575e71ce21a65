"""Converting one scan: whether its files have changed since they were read, and what is kept of them.

A scan whose files have not changed is not read again. What counts as a change is the
voxels, the header fields used and the resolved values of the sidecar keys used: a comment
in a sidecar, a copy with new times or another compression changes nothing downstream.
"""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from qsm_dask.cohort import combination
from qsm_dask.digests import digest_of, digest_of_array
from qsm_dask.io import changes, remote, structural
from qsm_dask.io.acquisition import Acquisition
from qsm_dask.io.phase import PhaseSign
from qsm_dask.io.series import Outline, Reading, needs_phase, read, with_maps
from qsm_dask.io.sidecars import resolve
from qsm_dask.pipeline.steps import Step
from qsm_dask.provenance import software
from qsm_dask.scan import Geometry
from qsm_dask.store import INGEST_KEY, CohortStore, Commit
from qsm_dask.store.commit import plain

VERSION = 2
"""Raised when the same files give other arrays, so that they are read again."""

_CACHED = ("request", "images", "files", "metadata", "combined")
"""Attributes by which the next ingest knows whether anything changed; no result depends on them."""

_PACKED_BYTES = 64 * 2**20
_PACKING = 4
_PLACING_BYTES = 64 * 2**20
"""Positions of the planes of a scan that are resampled together, and what transforms make of them."""


def projected_bytes(found: Outline) -> int:
    """Peak memory of one scan's task, the process's own not included.

    The arrays, and what the store holds while it packs and checks them: a few times what
    it packs at once, which is a volume, or several while they are small; or what the
    combination of coils takes, however many there are.
    """
    volume = 4 * found.header.voxels
    stored = found.header.voxels * found.header.dtype.itemsize
    arrays = volume * (found.parts * found.echoes + found.maps) + found.t1w
    placing = _PLACING_BYTES + found.beside if found.maps else 0
    packing = arrays + max(placing, _PACKING * max(volume, stored, found.t1w, min(arrays, _PACKED_BYTES)))
    if found.coils == 1:
        return packing
    return max(packing, combination.projected_bytes(found) + found.maps * volume + found.t1w)


@dataclass(frozen=True)
class Converted:
    """What reading a scan delivered.

    Attributes
    ----------
    reading : arrays and header.
    steps : provenance of the combination of its coils; empty where there are none.
    results : attributes of its commit that depend on what was read only.
    """

    reading: Reading
    steps: list[dict[str, Any]]
    results: dict[str, Any]


@dataclass(frozen=True)
class Conversion:
    """A scan that must be read, or its maps alone.

    Attributes
    ----------
    cohort : where it goes.
    acquisition : its files; those to be read lie on this machine's disk.
    sign : of its phase.
    combining : the stage that combines coils.
    commit : what the cohort holds of it, intact; None if nothing.
    stored : that commit if its images are as they were, so that maps alone are read; else None.
    cached : attributes by which the next ingest knows whether anything changed.
    """

    cohort: CohortStore
    acquisition: Acquisition
    sign: PhaseSign
    combining: Step
    commit: Commit | None
    stored: Commit | None
    cached: Mapping[str, Any]

    def read(self) -> Converted:
        """Read the files, and combine coils.

        Raises
        ------
        NoPhase : there is no phase, though it is needed.
        InputError : a file cannot be used.
        StageError : the coils cannot be combined.
        """
        metadata = self.cached["metadata"]
        if self.stored is None:
            reading, steps = combination.run(self.combining, read(self.acquisition, metadata, self.sign))
        else:
            reading = with_maps(_images(self.cohort, self.stored), self.acquisition, metadata)
            steps = self.stored.provenance["steps"]
        return Converted(reading, steps, _attributes(reading))

    def keep(self, converted: Converted, started: float, peak_bytes: int) -> dict[str, Any]:
        """Commit what was read, unless the cohort holds the same.

        Parameters
        ----------
        converted : what `read` delivered.
        started : when the work on this scan began, by `time.perf_counter` [s].
        peak_bytes : memory that reading took.

        Returns
        -------
        dict : the scan's row of the index, with `changed` telling whether its arrays or header are other ones.

        Raises
        ------
        StoreError : writing failed.
        """
        commit, results = self.commit, converted.results
        cached = {**self.cached, "combined": _how(self.combining) if converted.steps else None}
        if commit and all(commit.attributes.get(name) == value for name, value in plain(results).items()):
            self.cohort.remember(commit, cached)
            return commit.row() | {"changed": False}
        made = self.cohort.write(
            self.acquisition.key,
            "ingest",
            INGEST_KEY,
            converted.reading.arrays,
            attributes={**cached, **results},
            provenance={"steps": converted.steps, "software": software(), "time": time.time()},
            seconds=time.perf_counter() - started + (self.stored.seconds if self.stored else 0.0),
            peak_bytes=peak_bytes,
        )
        return made.row() | {"changed": commit is None or commit.attributes.get("digests") != results["digests"]}


def examine(
    cohort: CohortStore, acquisition: Acquisition, sign: PhaseSign, combining: Step, fetched: ExitStack
) -> Commit | Conversion:
    """Find out whether a scan must be read.

    Parameters
    ----------
    cohort : where it goes.
    acquisition : its files, wherever they lie.
    sign : of its phase.
    combining : the stage that combines coils, with its parameters.
    fetched : keeps the files that are brought to this machine's disk until it is closed.

    Returns
    -------
    Commit or Conversion : what the cohort holds of it if that is what its files say; else how to convert it.

    Raises
    ------
    InputError : a file is gone or cannot be read.
    """
    commit = cohort.intact(acquisition.key, "ingest", INGEST_KEY)
    request, images = _requests(acquisition, sign)
    noted = {**commit.attributes, **cohort.recall(commit)} if commit else {}
    if noted.get("combined") not in (None, _how(combining)):
        noted = {}
    known = noted.get("files", {})
    asked_before = noted.get("request") == request
    stats = changes.stats(acquisition.files)
    if commit and asked_before and changes.unchanged(stats, known):
        return commit
    stored = commit if noted.get("images") == images and _as_they_were(acquisition, stats, known, commit) else None
    acquisition = _at_hand(acquisition, fetched, maps_only=stored is not None)
    files = changes.with_content(acquisition.files, stats, known)
    metadata = {item.file.label: resolve(item.sidecars) for item in acquisition.maps}
    for image in acquisition.images:
        label = image.file.label
        metadata[label] = resolve(image.sidecars) if stored is None else noted["metadata"][label]
    if (
        commit
        and asked_before
        and noted.get("metadata") == metadata
        and changes.same_content(_data(acquisition), files, known)
    ):
        cohort.remember(commit, {name: noted.get(name) for name in _CACHED} | {"files": files})
        return commit
    cached = {"request": request, "images": images, "files": files, "metadata": metadata}
    return Conversion(cohort, acquisition, sign, combining, commit, stored, cached)


def _how(combining: Step) -> list[Any]:
    """The stage that combines coils as commits tell of it."""
    return [combining.stage, combining.method.version, dict(combining.parameters)]


def _as_they_were(
    acquisition: Acquisition,
    stats: Mapping[str, changes.Fingerprint],
    known: Mapping[str, changes.Fingerprint],
    commit: Commit | None,
) -> bool:
    """Whether the images of a scan need not be read: none has another size or time, and they are in the store."""
    if commit is None or (needs_phase(acquisition) and "phase" not in commit.arrays):
        return False
    labels = [file.label for file in replace(acquisition, maps=()).files]
    return all(label in known for label in labels) and changes.unchanged(
        {label: stats[label] for label in labels}, {label: known[label] for label in labels}
    )


def _at_hand(acquisition: Acquisition, fetched: ExitStack, *, maps_only: bool) -> Acquisition:
    """The acquisition with its files on this machine's disk, or those of its maps."""
    if not maps_only:
        return fetched.enter_context(remote.at_hand(acquisition))
    found = fetched.enter_context(remote.at_hand(replace(acquisition, images=())))
    return replace(found, images=acquisition.images)


def _images(cohort: CohortStore, commit: Commit) -> Reading:
    """What the images of a scan delivered when they were read, from its commit."""
    attributes = commit.attributes
    sources = {
        name: source
        for name, source in attributes["sources"].items()
        if source["from"] == "raw" and name not in structural.QUANTITIES
    }
    return Reading(
        cohort.read(commit, [name for name in commit.arrays if name in sources]),
        attributes["header"],
        Geometry.from_dict(attributes["geometry"]),
        sources,
        image_warnings=tuple(attributes["image_warnings"]),
    )


def _requests(acquisition: Acquisition, sign: PhaseSign) -> tuple[str, str]:
    """Digests of what is asked for, in all and of the images: which files in which roles, and the options."""
    images = [(i.file.label, i.part, i.echo, [s.label for s in i.sidecars]) for i in acquisition.images]
    found = [
        (m.quantity, [f.label for f in m.content], [s.label for s in m.sidecars], m.units, bool(m.transform))
        for m in acquisition.maps
    ]
    of_images = digest_of([VERSION, images, sign.to_dict(acquisition.key)])
    sessions = [m.any_session for m in acquisition.maps]
    return digest_of([of_images, found, sessions, acquisition.notes]), of_images


def _data(acquisition: Acquisition) -> list[str]:
    """Labels of the files that are not sidecars: their content counts, not a few of their keys."""
    return [i.file.label for i in acquisition.images] + [f.label for m in acquisition.maps for f in m.content]


def _attributes(reading: Reading) -> dict[str, Any]:
    leaves = {name: digest_of(value) for name, value in reading.header.items()}
    leaves |= {name: digest_of_array(array) for name, array in reading.arrays.items()}
    geometry = reading.geometry.to_dict()
    # The index holds ten thousand scans: it says where a quantity comes from, but names files of derivatives only.
    brief = {
        name: {field: value for field, value in source.items() if field != "files" or source["from"] != "raw"}
        for name, source in reading.sources.items()
    }
    return {
        "header": dict(reading.header),
        "digests": leaves,
        "sources": dict(reading.sources),
        "labels": {str(number): name for number, name in reading.labels.items()},
        "image_warnings": list(reading.image_warnings),
        "warnings": list(reading.warnings),
        "geometry": geometry,
        "facts": {"geometry": geometry, "sources": brief, "warnings": list(reading.warnings)},
    }
