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
ATLAS = Path("derivatives") / "atlas"
TEMPLATE = "phantom"
SPIN_ECHO = Path("derivatives") / "spinecho"
_MAGNITUDE_TOP = 4095
_BYTES_PER_VOXEL = 300
_BYTES_PER_ECHO = 16
_BYTES_PER_ECHO_OF_A_COIL = 8


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
    coils: int
    spin_echo: bool
    ages: tuple[float, ...] = field(default=())
    calcified: bool = True
    atlas: bool = False

    def age(self, number: int) -> float | None:
        """The age of a subject [years] if it was given."""
        return self.ages[number - 1] if self.ages else None

    def __str__(self) -> str:
        echoes = " ".join(f"{1000 * time:g}" for time in self.te)
        matrix = "x".join(map(str, self.shape))
        geometry = "oblique" if self.oblique else "axial"
        ages = f", ages {' '.join(f'{age:g}' for age in self.ages)}" if self.ages else ""
        coils = f", {self.coils} receive coils kept apart" if self.coils else ""
        spin_echo = ", R2 by spin echoes" if self.spin_echo else ""
        atlas = ", with a template and its regions" if self.atlas else ""
        without = "" if self.calcified else ", no calcification"
        return (
            f"simulated heads, seed {self.seed}, matrix {matrix}, {geometry}, {self.b0:g} T, TE {echoes} ms, "
            f"SNR {self.snr:g}, {self.phase_format} phase{coils}{spin_echo}{ages}{without}{atlas}"
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
    coils: int = 0,
    spin_echo: bool = False,
    atlas: bool = False,
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
    coils : keep that many receive coils apart, a file each (`coil-01`); 0 writes combined images. Combined
        without loss they have the same SNR.
    spin_echo : also measure R2 by spin echoes; the maps go to `derivatives/spinecho`.
    atlas : write a template of such heads, without deformation, and its regions to `derivatives/atlas/tpl-phantom`.
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
    if coils < 0 or (coils and len(te) < 2):
        raise ConfigError(f"{coils} coils, {len(te)} echoes: coils need two echoes or more to be combined")
    cohort = _Cohort(
        *(folder, seed, shape, b0, oblique, snr, tuple(te), phase_format, coils, spin_echo),
        *(tuple(ages or ()), calcified, atlas),
    )
    try:
        people = [phantom.draw_subject(number, seed, cohort.age(number)) for number in range(1, subjects + 1)]
        phantom.check_protocol(shape, te, b0, snr)
    except ValueError as error:
        raise ConfigError(f"simulate: {error}") from error
    _describe(cohort, people)
    if atlas:
        _write_atlas(cohort)
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
    of_echo = _BYTES_PER_ECHO + (_BYTES_PER_ECHO_OF_A_COIL if cohort.coils else 0)
    needed = math.prod(cohort.shape) * (_BYTES_PER_VOXEL + of_echo * len(cohort.te))
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
        spin_echo=cohort.spin_echo,
        calcified=cohort.calcified,
    )
    if cohort.coils:
        for coil, (magnitude, phase) in enumerate(made.coils(cohort.coils), 1):
            _write_raw(cohort, number, made, magnitude, phase, f"_coil-{coil:02d}")
    else:
        _write_raw(cohort, number, made, made.arrays["magnitude"], made.arrays["phase"])
    if cohort.spin_echo:
        _write_r2(cohort, number, made)
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
    if cohort.coils:  # BIDS has no entity of that name yet
        documents.write_bytes(cohort.out / ".bidsignore", b"**/*_coil-*\n")
    rows = [(_name(number), person.age, person.sex) for number, person in enumerate(people, 1)]
    documents.write_tsv(cohort.out / "participants.tsv", ("participant_id", "age", "sex"), rows)
    documents.write_json(
        cohort.out / "participants.json",
        {
            "age": {"Description": "age of the participant", "Units": "year"},
            "sex": {"Description": "sex of the participant", "Levels": {"F": "female", "M": "male"}},
        },
    )
    if cohort.spin_echo:
        measured = documents.derivative_description("R2 of simulated heads", version, said, {"raw": "../.."})
        documents.write_json(cohort.out / SPIN_ECHO / "dataset_description.json", measured)
        documents.write_bytes(
            cohort.out / SPIN_ECHO / "README", b"R2 as spin echoes of the noise of the gradient echoes measure it.\n"
        )
    truth = documents.derivative_description("Truth of simulated heads", version, said, {"raw": "../.."})
    documents.write_json(cohort.out / TRUTH / "dataset_description.json", truth)
    documents.write_bytes(
        cohort.out / TRUTH / "README",
        b"Susceptibility is relative to water. The local field is that of the susceptibility inside the brain\n"
        b"mask alone; the total field is that of the whole head after shimming. Regions whose `comparable` is\n"
        b"false are less than two voxels thick, or no deep grey matter.\n",
    )


def _write_r2(cohort: _Cohort, number: int, made: phantom.Phantom) -> None:
    folder = cohort.out / SPIN_ECHO / _name(number) / "anat"
    folder.mkdir(parents=True, exist_ok=True)
    write_volume(folder / f"{_name(number)}_R2map.nii.gz", made.arrays["r2"], made.arrays["affine"])
    documents.write_json(folder / f"{_name(number)}_R2map.json", {"Units": "1/s", "SkullStripped": True})


def _write_atlas(cohort: _Cohort) -> None:
    """Write the template and its regions, named as TemplateFlow names them."""
    made = phantom.template(cohort.shape, cohort.te, cohort.b0)
    folder, stem = cohort.out / ATLAS / f"tpl-{TEMPLATE}", f"tpl-{TEMPLATE}"
    folder.mkdir(parents=True, exist_ok=True)
    stripped = {"SkullStripped": True}
    for suffix, volume, sidecar in (
        ("T2starw", made["magnitude"], {"SkullStripped": False}),
        ("Chimap", made["chi"], {"Units": "ppm", **stripped}),
        ("desc-brain_mask", made["mask"], {"Type": "Brain"}),
        ("atlas-nuclei_dseg", np.where(made["dseg"] <= max(phantom.DEEP_GREY), made["dseg"], 0).astype(np.uint8), {}),
    ):
        write_volume(folder / f"{stem}_{suffix}.nii.gz", volume, made["affine"])
        documents.write_json(folder / f"{stem}_{suffix}.json", sidecar)
    documents.write_tsv(folder / f"{stem}_atlas-nuclei_dseg.tsv", ("index", "name"), phantom.DEEP_GREY.items())
    documents.write_json(
        folder / "template_description.json",
        {"Identifier": TEMPLATE, "Name": "Parametric head without deformation", "License": "CC0-1.0"},
    )
    documents.write_json(
        cohort.out / ATLAS / "atlas-nuclei_description.json",
        {"Name": "Deep grey nuclei of the parametric head", "License": "CC0-1.0", "SampleSize": 0},
    )
    about = documents.derivative_description("Template of simulated heads", software()["qsm-dask"], str(cohort), {})
    documents.write_json(cohort.out / ATLAS / "dataset_description.json", about)
    documents.write_bytes(cohort.out / ATLAS / "README", b"The mean of heads that differ in their furrows only.\n")


def _write_raw(
    cohort: _Cohort,
    number: int,
    made: phantom.Phantom,
    magnitude: NDArray[np.float32],
    phase: NDArray[np.float32],
    coil: str = "",
) -> None:
    affine = made.arrays["affine"]
    gain = _MAGNITUDE_TOP / float(made.arrays["magnitude"].max())
    folder = cohort.out / _name(number) / "anat"
    folder.mkdir(parents=True, exist_ok=True)
    common = {
        "MagneticFieldStrength": cohort.b0,
        "ImagingFrequency": round(GAMMA_MHZ_PER_T * cohort.b0, 6),
        "Manufacturer": "Simulated",
        "MRAcquisitionType": "3D",
    }
    for echo, time in enumerate(cohort.te):
        stem = f"{_name(number)}{coil}_echo-{echo + 1}_part-"
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
        f"bids:raw:{name}/anat/{name}{coil}_echo-{echo + 1}_part-{part}_MEGRE.nii.gz"
        for coil in ([f"_coil-{coil + 1:02d}" for coil in range(cohort.coils)] or [""])
        for echo in range(len(cohort.te))
        for part in ("mag", "phase")
    ]
    stripped, whole = {"SkullStripped": True}, {"SkullStripped": False}
    total, local = (ppm_to_hz(truth[quantity], cohort.b0) for quantity in ("total_field", "local_field"))
    magnitude = made.arrays["magnitude"][0]
    for folder, suffix, volume, sidecar in (
        (anat, "Chimap", truth["chi"], {"Units": "ppm", **stripped, "ReferenceRegion": "water"}),
        (anat, "desc-paramagnetic_Chimap", truth["chi_para"], {"Units": "ppm", **stripped}),
        (anat, "desc-diamagnetic_Chimap", truth["chi_dia"], {"Units": "ppm", **stripped}),
        (anat, "R2starmap", truth["r2star"], {"Units": "1/s", **stripped}),
        (anat, "R2map", truth["r2"], {"Units": "1/s", **stripped}),
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
