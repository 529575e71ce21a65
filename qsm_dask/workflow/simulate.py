"""Write a BIDS cohort of simulated heads, and the truth about them as derivatives."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qsm_dask import phantom
from qsm_dask.engine import Engine
from qsm_dask.errors import ConfigError, EngineError
from qsm_dask.io import documents
from qsm_dask.io.nifti import write_volume
from qsm_dask.provenance import software
from qsm_dask.units import GAMMA_MHZ_PER_T, ppm_to_hz

PhaseFormat = Literal["rescaled", "unsigned", "radians"]
Progress = Callable[[int, int, str], None]

TRUTH = Path("derivatives") / "truth"
_MAGNITUDE_TOP = 4095
_BYTES_PER_VOXEL = 300
_BYTES_PER_ECHO = 16


@dataclass(frozen=True)
class _Cohort:
    """What is the same for every subject; `ages` are by subject, where they are not drawn."""

    out: Path
    seed: int
    shape: tuple[int, int, int]
    b0: float
    oblique: bool
    snr: float
    te: tuple[float, ...]
    phase_format: PhaseFormat
    ages: tuple[float, ...] = field(default=())
    calcified: bool = True

    def age(self, number: int) -> float | None:
        """The age of a subject [years] if it was given."""
        return self.ages[number - 1] if self.ages else None

    def __str__(self) -> str:
        echoes = " ".join(f"{1000 * time:g}" for time in self.te)
        matrix = "x".join(map(str, self.shape))
        geometry = "oblique" if self.oblique else "axial"
        ages = f", ages {' '.join(f'{age:g}' for age in self.ages)}" if self.ages else ""
        without = "" if self.calcified else ", no calcification"
        return (
            f"simulated heads, seed {self.seed}, matrix {matrix}, {geometry}, {self.b0:g} T, TE {echoes} ms, "
            f"SNR {self.snr:g}, {self.phase_format} phase{ages}{without}"
        )


def run(
    out: str | Path,
    *,
    subjects: int,
    seed: int = 0,
    shape: tuple[int, int, int] = phantom.DEFAULT_SHAPE,
    b0: float = 3.0,
    oblique: bool = False,
    snr: float = 100.0,
    te: Sequence[float] = phantom.DEFAULT_TE,
    ages: Sequence[float] | None = None,
    calcified: bool = True,
    phase_format: PhaseFormat = "rescaled",
    engine: Engine | None = None,
    progress: Progress | None = None,
) -> Path:
    """Simulate a cohort.

    Parameters
    ----------
    out : folder of the dataset; new, empty, or holding the same simulation, which is then written again.
    subjects : how many. Subject 3 of seed 0 is the same in a cohort of any size.
    seed : of the cohort.
    shape : matrix of the field of view of 192 x 224 x 160 mm.
    b0 : field strength [T].
    oblique : tilt the slices, and the head with them, against B0; each subject otherwise.
    snr : mean magnitude of the brain at the first echo over the noise.
    te : echo times [s].
    ages : of the subjects [years]; drawn from 20 to 80 if not given.
    calcified : whether they have a calcification.
    phase_format : how phase is stored: 0 to 4095 that the header rescales to -4096..4094 as Siemens does,
        0 to 4095 as it is, or float radians.
    engine : runs a task a subject; without one they are simulated one after another.
    progress : called with (finished, in all, subject).

    Returns
    -------
    Path : folder of the truth.

    Raises
    ------
    ConfigError : the folder holds something else, or the parameters cannot be used.
    EngineError : subjects could not be simulated; the message names the first.
    """
    folder = Path(out)
    if subjects < 1:
        raise ConfigError(f"a cohort has at least one subject, got {subjects}")
    if ages is not None and len(ages) != subjects:
        raise ConfigError(f"{len(ages)} ages for {subjects} subjects: give one a subject")
    cohort = _Cohort(folder, seed, shape, b0, oblique, snr, tuple(te), phase_format, tuple(ages or ()), calcified)
    try:
        people = [phantom.draw_subject(number, seed, cohort.age(number)) for number in range(1, subjects + 1)]
        phantom.check_protocol(shape, te, b0, snr)
    except ValueError as error:
        raise ConfigError(f"simulate: {error}") from error
    _describe(cohort, people)
    for finished, number in enumerate(_subjects(cohort, subjects, engine), 1):
        if progress is not None:
            progress(finished, subjects, _name(number))
    return folder / TRUTH


def _subjects(cohort: _Cohort, subjects: int, engine: Engine | None) -> Iterator[int]:
    """Simulate every subject and yield its number when it is written."""
    task, numbers = partial(_simulate, cohort), range(1, subjects + 1)
    if engine is None:
        yield from map(task, numbers)
        return
    needed = math.prod(cohort.shape) * (_BYTES_PER_VOXEL + _BYTES_PER_ECHO * len(cohort.te))
    failures = []
    for outcome in engine.map(task, numbers, memory=lambda _number: needed):
        if not outcome.ok:
            failures.append(f"{_name(outcome.key)}: {outcome.error}")
        yield outcome.key
    if failures:
        raise EngineError(f"{len(failures)} of {subjects} subjects could not be simulated; {failures[0]}")


def _simulate(cohort: _Cohort, number: int) -> int:
    """Simulate and write one subject."""
    made = phantom.simulate(
        number,
        cohort.seed,
        shape=cohort.shape,
        te=cohort.te,
        b0=cohort.b0,
        oblique=cohort.oblique,
        snr=cohort.snr,
        age=cohort.age(number),
        calcified=cohort.calcified,
    )
    _write_raw(cohort, number, made)
    _write_truth(cohort, number, made)
    return number


def _name(number: int) -> str:
    return f"sub-{number:02d}"


def _describe(cohort: _Cohort, people: Sequence[phantom.Subject]) -> None:
    """Write what speaks of the whole dataset, unless the folder is another's."""
    said = f"{len(people)} {cohort}"
    version = software()["qsm-dask"]
    raw = {
        "Name": "Simulated multi-echo gradient-echo heads",
        "BIDSVersion": documents.BIDS_VERSION,
        "DatasetType": "raw",
        "License": "CC0-1.0",
        "GeneratedBy": [{"Name": "qsm_dask", "Version": version, "Description": said}],
    }
    description = cohort.out / "dataset_description.json"
    same = description.is_file() and description.read_bytes() == documents.json_bytes(raw)
    if not same and cohort.out.exists() and any(cohort.out.iterdir()):
        raise ConfigError(
            f"{cohort.out} is not empty and holds something other than this simulation: give another folder, "
            "or remove it first"
        )
    documents.write_json(description, raw)
    documents.write_bytes(cohort.out / "README", f"{said}.\n\nThe truth lies in {TRUTH}.\n".encode())
    rows = [(_name(number), person.age, person.sex) for number, person in enumerate(people, 1)]
    documents.write_tsv(cohort.out / "participants.tsv", ("participant_id", "age", "sex"), rows)
    documents.write_json(
        cohort.out / "participants.json",
        {
            "age": {"Description": "age of the participant", "Units": "year"},
            "sex": {"Description": "sex of the participant", "Levels": {"F": "female", "M": "male"}},
        },
    )
    truth = documents.derivative_description("Truth of simulated heads", version, said, {"raw": "../.."})
    documents.write_json(cohort.out / TRUTH / "dataset_description.json", truth)
    documents.write_bytes(
        cohort.out / TRUTH / "README",
        b"Susceptibility is relative to water. The local field is that of the susceptibility inside the brain\n"
        b"mask alone; the total field is that of the whole head after shimming. Regions whose `comparable` is\n"
        b"false are less than two voxels thick, or no deep grey matter.\n",
    )


def _write_raw(cohort: _Cohort, number: int, made: phantom.Phantom) -> None:
    magnitude, phase, affine = made.arrays["magnitude"], made.arrays["phase"], made.arrays["affine"]
    gain = _MAGNITUDE_TOP / float(magnitude.max())
    folder = cohort.out / _name(number) / "anat"
    folder.mkdir(parents=True, exist_ok=True)
    common = {
        "MagneticFieldStrength": cohort.b0,
        "ImagingFrequency": round(GAMMA_MHZ_PER_T * cohort.b0, 6),
        "Manufacturer": "Simulated",
        "MRAcquisitionType": "3D",
    }
    for echo, time in enumerate(cohort.te):
        stem = f"{_name(number)}_echo-{echo + 1}_part-"
        sidecar = {"EchoTime": time, **common}
        write_volume(folder / f"{stem}mag_MEGRE.nii.gz", np.rint(gain * magnitude[echo]).astype(np.uint16), affine)
        documents.write_json(folder / f"{stem}mag_MEGRE.json", sidecar)
        stored, units, scaling = _stored_phase(phase[echo], cohort.phase_format)
        write_volume(folder / f"{stem}phase_MEGRE.nii.gz", stored, affine, scaling=scaling)
        documents.write_json(folder / f"{stem}phase_MEGRE.json", {**sidecar, "Units": units})


def _stored_phase(
    phase: NDArray[np.float32], phase_format: PhaseFormat
) -> tuple[NDArray[Any], str, tuple[float, float] | None]:
    if phase_format == "radians":
        return phase, "rad", None
    scaling = (2.0, -4096.0) if phase_format == "rescaled" else None
    return phantom.phase_to_integers(phase), "arbitrary", scaling


def _write_truth(cohort: _Cohort, number: int, made: phantom.Phantom) -> None:
    truth, affine, name = made.truth, made.arrays["affine"], _name(number)
    anat, fmap = (cohort.out / TRUTH / name / folder for folder in ("anat", "fmap"))
    for folder in (anat, fmap):
        folder.mkdir(parents=True, exist_ok=True)
    sources = [
        f"bids:raw:{name}/anat/{name}_echo-{echo + 1}_part-{part}_MEGRE.nii.gz"
        for echo in range(len(cohort.te))
        for part in ("mag", "phase")
    ]
    stripped, whole = {"SkullStripped": True}, {"SkullStripped": False}
    total, local = (ppm_to_hz(truth[quantity], cohort.b0) for quantity in ("total_field", "local_field"))
    magnitude = made.arrays["magnitude"][0]
    for folder, suffix, volume, sidecar in (
        (anat, "Chimap", truth["chi"], {"Units": "ppm", **stripped, "ReferenceRegion": "water"}),
        (anat, "R2starmap", truth["r2star"], {"Units": "1/s", **stripped}),
        (anat, "desc-brain_mask", truth["mask"], {"Type": "Brain"}),
        (anat, "dseg", truth["dseg"].astype(np.uint8), {"Manual": False, **_COLUMNS}),
        (fmap, "desc-local_fieldmap", local, {"Units": "Hz", **whole}),
        (fmap, "desc-local_magnitude", magnitude, whole),
        (fmap, "desc-total_fieldmap", total, {"Units": "Hz", **whole}),
        (fmap, "desc-total_magnitude", magnitude, whole),
    ):
        write_volume(folder / f"{name}_{suffix}.nii.gz", volume, affine)
        documents.write_json(folder / f"{name}_{suffix}.json", {**sidecar, "Sources": sources})
    columns = ("index", "name", "comparable", "volume_mm3", "mean_chi_ppm")
    documents.write_tsv(anat / f"{name}_dseg.tsv", columns, _region_rows(cohort, made))


_COLUMNS = {
    "comparable": {
        "Description": "deep grey matter at least two voxels thick: its mean can be compared with a reconstruction",
        "Levels": {"true": "compare it", "false": "leave it out"},
    },
    "volume_mm3": {"Description": "volume of the labelled voxels", "Units": "mm^3"},
    "mean_chi_ppm": {"Description": "mean susceptibility of the labelled voxels relative to water", "Units": "ppm"},
}


def _region_rows(cohort: _Cohort, made: phantom.Phantom) -> list[tuple[int, str, str, float, float | None]]:
    spacing = phantom.voxel_size(cohort.shape)
    labels = made.truth["dseg"].ravel()
    size = 1 + max(phantom.LABELS)
    counts = np.bincount(labels, minlength=size)
    sums = np.bincount(labels, weights=made.truth["chi"].ravel(), minlength=size)
    rows = []
    for label, name in phantom.LABELS.items():
        count = int(counts[label])
        comparable = label in phantom.DEEP_GREY and phantom.resolved(label, spacing) and count > 0
        mean = float(sums[label]) / count if count else None
        rows.append((label, name, str(comparable).lower(), count * float(np.prod(spacing)), mean))
    return rows
