"""Write the maps of a cohort as BIDS derivatives: NIfTI with sidecars, in ppm, 1/s, s and Hz."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsm_dask.cohort import participants
from qsm_dask.cohort.standing import Standing, standings
from qsm_dask.errors import DamageError
from qsm_dask.io import documents, outputs
from qsm_dask.io.itk import itk_affine, write_displacements
from qsm_dask.io.nifti import write_volume
from qsm_dask.kernels.reference import whole_brain
from qsm_dask.pipeline import Pipeline, Plan, Step
from qsm_dask.pipeline.plan import record
from qsm_dask.provenance import software
from qsm_dask.quantities import base_name
from qsm_dask.scan import Geometry, ScanKey
from qsm_dask.store import CohortStore, Commit
from qsm_dask.store.documents import DATASET, PIPELINE, read_json
from qsm_dask.units import ppm_to_hz

_NODES = ("regions", "registration", "maps", "field")
_INGESTED = ("phase", "magnitude", "mask", "local_field", "chi", "r2", "dseg")
_OTHERS = {
    "r2prime": ("R2primemap", "1/s"),
    "chi_para": ("desc-paramagnetic_Chimap", "ppm"),
    "chi_dia": ("desc-diamagnetic_Chimap", "ppm"),
    "swi": ("desc-swi_T2starw", "arbitrary"),
    "swi_mip": ("desc-swimip_T2starw", "arbitrary"),
}
"""Quantities that are written as they are: what follows the scan's entities, and their units."""


@dataclass(frozen=True)
class Summary:
    """What an export did.

    Attributes
    ----------
    exported : scans whose maps were written.
    without : reason by scan, of the others.
    removed : files of an earlier export that this one does not have.
    """

    exported: int
    without: dict[str, str]
    removed: int


@dataclass(frozen=True)
class _Image:
    """One file: datatype, what follows the scan's entities, voxels, sidecar, label table, whether it is a transform."""

    datatype: str
    suffix: str
    volume: NDArray[Any]
    sidecar: Mapping[str, Any]
    table: Sequence[tuple[int, str]] = ()
    displaces: bool = False


def run(cohort: CohortStore, out: str | Path, *, progress: Callable[[int, int, str], None] | None = None) -> Summary:
    """Export every scan whose maps are done under the present pipeline.

    Each scan gives, in its own space, `_Chimap` relative to the whole brain, one more with `desc-` for every other
    reference or branch of chi, `_R2starmap` and `_T2starmap` where there are several echoes, `_desc-brain_mask`, the
    local field with a magnitude beside it, and the label image if one was ingested; `_desc-paramagnetic_Chimap` and
    `_desc-diamagnetic_Chimap`, `_desc-swi_T2starw` and `_desc-swimip_T2starw`, and `_R2primemap`, a suffix that BIDS
    does not know and `.bidsignore` names, where the pipeline makes them.

    Parameters
    ----------
    cohort : the store.
    out : folder of the dataset: new, empty, or an earlier export, which is brought up to date.
    progress : called with (scans finished, scans in all, the scan's name).

    Raises
    ------
    ConfigError : the folder holds something else.
    DamageError : the index or an ingest cannot be read. Maps that cannot be read are a reason in the summary.
    """
    folder = Path(out)
    source = read_json(cohort, PIPELINE)
    pipeline = None if source is None else Pipeline.from_mapping(source)
    outputs.claim_folder(folder, _description(cohort, folder, "none" if pipeline is None else pipeline.name))
    found = list(standings(cohort, Pipeline.from_mapping))
    _write_participants(cohort, folder)
    entities = Counter(standing.scan.entities for standing in found)
    written: set[Path] = set()
    without: dict[str, str] = {}
    for count, standing in enumerate(found, start=1):
        try:
            scan = _Scan.open(cohort, standing, pipeline)
            if scan is None:
                without[str(standing.scan)] = standing.reason or "the pipeline makes no maps of it"
            else:
                written.update(scan.write(folder, apart=entities[standing.scan.entities] > 1))
        except DamageError as error:
            without[str(standing.scan)] = str(error)
        if progress is not None:
            progress(count, len(found), str(standing.scan))
    removed = outputs.remove_leftovers(folder, written)
    return Summary(len(found) - len(without), without, removed)


@dataclass(frozen=True)
class _Scan:
    """The committed quantities of one scan and how they came about."""

    cohort: CohortStore
    key: ScanKey
    commits: Sequence[Commit]  # the last producer of a name first
    header: Mapping[str, Any]
    plan: Plan
    labels: Mapping[str, str]
    sources: Mapping[str, Mapping[str, Any]]

    @classmethod
    def open(cls, cohort: CohortStore, standing: Standing, pipeline: Pipeline | None) -> "_Scan | None":
        """The scan, or None if its maps are not done."""
        maps = standing.commit(cohort, "maps")
        if maps is None or standing.ingest is None or pipeline is None:
            return None
        found = [standing.commit(cohort, node) for node in _NODES]
        attributes = standing.ingest.attributes
        plan = pipeline.plan(Geometry.from_dict(attributes["geometry"]), attributes["digests"])
        commits = [*(commit for commit in found if commit is not None), standing.ingest]
        return cls(cohort, standing.scan, commits, attributes["header"], plan, standing.labels, standing.sources)

    def __contains__(self, name: str) -> bool:
        return any(name in commit.arrays for commit in self.commits)

    def __getitem__(self, name: str) -> NDArray[Any]:
        commit = next(commit for commit in self.commits if name in commit.arrays)
        return self.cohort.read(commit, (name,))[name]

    def write(self, folder: Path, *, apart: bool) -> list[Path]:
        """Write every file of the scan; the paths written."""
        written = []
        for image in self._images():
            path = folder / outputs.file_path(self.key, image.datatype, image.suffix, apart=apart)
            path.parent.mkdir(parents=True, exist_ok=True)
            names = [path.with_name(f"{path.name}{ending}") for ending in (".nii.gz", ".json", ".tsv")]
            write = write_displacements if image.displaces else write_volume
            write(names[0], image.volume, self.header["affine"])
            documents.write_json(names[1], image.sidecar)
            if image.table:
                documents.write_tsv(names[2], ("index", "name"), image.table)
            written += names if image.table else names[:2]
        if "t1w_from_scan" in self and np.isfinite(self["t1w_from_scan"]).all():
            path = folder / outputs.file_path(self.key, "anat", "from-T1w_to-scan_mode-image_xfm", apart=apart)
            path.parent.mkdir(parents=True, exist_ok=True)
            names = [path.with_name(f"{path.name}{ending}") for ending in (".txt", ".json")]
            documents.write_bytes(names[0], itk_affine(self["t1w_from_scan"]))
            documents.write_json(names[1], self._sidecar("t1w_from_scan", Units="mm"))
            written += names
        return written

    def _images(self) -> Iterator[_Image]:
        mask = self["mask"]
        yield _Image("anat", "desc-brain_mask", mask, self._sidecar("mask", Type="Brain"))
        for name in self._maps("chi"):
            yield from self._susceptibility(name, mask)
        if "r2star" in self:
            yield from self._relaxation(mask)
        for name, (suffix, units) in _OTHERS.items():
            if name in self:
                yield _Image("anat", suffix, self[name], self._sidecar(name, Units=units, SkullStripped=True))
        if "local_field" in self and "magnitude" in self:
            yield from self._field()
        if "template_position" in self:
            about = self._sidecar("template_position", Units="mm")
            suffix = "from-template_to-scan_mode-image_xfm"
            yield _Image("anat", suffix, self["template_position"], about, displaces=True)
        if "dseg" in self:
            table = outputs.label_table(self.labels)
            yield _Image("anat", "dseg", self["dseg"], self._sidecar("dseg"), table)

    def _maps(self, base: str) -> list[str]:
        names = {name for commit in self.commits for name in commit.arrays}
        return sorted(name for name in names if base_name(name) == base)

    def _susceptibility(self, name: str, mask: NDArray[np.bool_]) -> Iterator[_Image]:
        chi = self[name]
        step = self.plan.reference_of(name)
        about = self._sidecar(name, Units="ppm", SkullStripped=True)
        if step is not None:
            about |= _reference(_region(step, self.labels), self[step.outputs[1]])
        if name != "chi":
            yield _Image("anat", f"desc-{name.removeprefix('chi_')}_Chimap", chi, about)
            return
        if step is not None and step.stage == "reference.whole_brain":
            yield _Image("anat", "Chimap", chi, about)
            return
        if step is not None:
            label = "".join(c for c in _region(step, self.labels) if c.isalnum())
            yield _Image("anat", f"desc-{label}_Chimap", chi, about)
        relative, moments = whole_brain(chi, mask)
        yield _Image("anat", "Chimap", relative, about | _reference("whole_brain", moments))

    def _relaxation(self, mask: NDArray[np.bool_]) -> Iterator[_Image]:
        rate = self["r2star"]
        usable = mask & (rate > 0.0)
        time = np.divide(np.float32(1.0), rate, out=np.zeros_like(rate), where=usable)
        yield _Image("anat", "R2starmap", rate, self._sidecar("r2star", Units="1/s", SkullStripped=True))
        yield _Image("anat", "T2starmap", time, self._sidecar("r2star", Units="s", SkullStripped=True))

    def _field(self) -> Iterator[_Image]:
        hertz = ppm_to_hz(self["local_field"], float(self.header["b0"])).astype(np.float32)
        yield _Image("fmap", "desc-local_fieldmap", hertz, self._sidecar("local_field", Units="Hz", SkullStripped=True))
        commit = next(commit for commit in self.commits if "magnitude" in commit.arrays)
        first = self.cohort.read_rows(commit, "magnitude", slice(0, 1))[0]
        sidecar = {"SkullStripped": False, "Sources": self._uris(("magnitude",)), "EchoTime": self.header["te"][0]}
        yield _Image("fmap", "desc-local_magnitude", first, sidecar)

    def _uris(self, names: Iterable[str]) -> list[str]:
        return outputs.uris(self.sources[name] for name in names if name in self.sources)

    def _sidecar(self, name: str, **given: Any) -> dict[str, Any]:
        """What every sidecar says: inputs, methods with parameters and DOIs, and the scan's physics."""
        steps = self.plan.lineage(name)
        read = {item for step in steps for item in step.inputs} | {name}
        about = {**given, "Sources": self._uris(source for source in _INGESTED if source in read)}
        if not steps:
            return about
        records = [record(step, 0.0, None) for step in steps]
        if read & {"phase", "magnitude"}:  # what ingest made of single coils
            records = [*self.commits[-1].provenance.get("steps", []), *records]
        cited = dict.fromkeys(one["cite"] for one in records if one["cite"])
        return {
            **about,
            "EstimationAlgorithm": ", ".join(one["stage"] for one in records),
            "EstimationReference": ", ".join(f"doi:{doi}" for doi in cited),
            "MagneticFieldStrength": self.header["b0"],
            "B0Direction": self.header["b0_dir"],
            "EchoTime": self.header["te"],
            "ProcessingSteps": [
                {"Stage": one["stage"], "Version": one["version"], "Parameters": one["parameters"]} for one in records
            ],
        }


def _region(step: Step, labels: Mapping[str, str]) -> str:
    """What a step of referencing refers to: `whole_brain`, or the names of its labels."""
    chosen = step.parameters.get("labels", ())
    return "+".join(labels.get(str(label), f"label{label}") for label in chosen) or step.stage.partition(".")[2]


def _reference(region: str, moments: NDArray[np.float64]) -> dict[str, Any]:
    """What a map of susceptibility is relative to; BIDS has no keys for it."""
    offset, spread, count = (float(moment) for moment in moments)
    return {
        "ReferenceRegion": region,
        "ReferenceOffset": offset,
        "ReferenceStandardDeviation": spread,
        "ReferenceVoxels": int(count),
    }


def _description(cohort: CohortStore, folder: Path, pipeline: str) -> dict[str, Any]:
    about = read_json(cohort, DATASET) or {}
    return documents.derivative_description(
        f"Susceptibility maps of {about.get('name') or 'a cohort'}",
        software()["qsm-dask"],
        f"pipeline {pipeline}",
        outputs.links(about, folder.absolute(), cohort.place.folder),
    )


def _write_participants(cohort: CohortStore, folder: Path) -> None:
    table = participants.read(cohort)
    if table is not None:
        columns = ["participant_id", *(name for name in table.columns if name != "participant_id")]
        rows = table[columns].itertuples(index=False)
        documents.write_tsv(folder / "participants.tsv", [str(name) for name in columns], rows)
        said = (read_json(cohort, DATASET) or {}).get("participants", {})
        told = {str(name): said.get(name) or _of_column(str(name)) for name in columns}
        documents.write_json(folder / "participants.json", told)


def _of_column(name: str) -> dict[str, str]:
    """What can be said of a column that the dataset itself does not describe."""
    known = {"participant_id": "The participant: the label of the folder `sub-`"}
    return {"Description": known.get(name, f"{name} of the participant, as in the raw dataset's participants.tsv")}
