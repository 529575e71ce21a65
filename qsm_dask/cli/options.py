"""Arguments and options that several commands share."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from qsm_dask.place import Place
from qsm_dask.shard import Shard


def _dataset(text: str) -> Place:
    place = Place.parse(text)
    if place.folder is not None and not place.folder.is_dir():
        raise typer.BadParameter(f"there is no folder {text}")
    return place


Bids = Annotated[
    Place,
    typer.Argument(
        metavar="BIDS",
        help="Folder of the raw BIDS dataset, or its URL (`s3://bucket/name`, `gs://...`, `az://...`).",
        parser=_dataset,
        show_default=False,
    ),
]
NewCohort = Annotated[
    Place,
    typer.Argument(
        metavar="COHORT",
        help="Folder of the cohort store, or its URL (`s3://bucket/name`, `gs://...`, `az://...`); made if it is not "
        "there.",
        parser=Place.parse,
        show_default=False,
    ),
]
Cohort = Annotated[
    Place,
    typer.Argument(
        metavar="COHORT",
        help="Folder or URL of a cohort store that `qsm-dask run` or `ingest` made.",
        parser=Place.parse,
        show_default=False,
    ),
]
PipelineName = Annotated[
    str,
    typer.Option(
        "--pipeline", "-p", metavar="NAME|FILE", help="A shipped pipeline (`qsm-dask pipelines`) or your own YAML file."
    ),
]
AtlasName = Annotated[
    str | None,
    typer.Option(
        "--atlas",
        metavar="NAME",
        help="The atlas of the pipeline's anatomy steps, in place of what it names: a folder, `templateflow:NAME` (as "
        "fetched before) or `package:NAME/FOLDER`.",
    ),
]
ClusterName = Annotated[
    str,
    typer.Option(
        "--cluster",
        "-c",
        metavar="NAME|FILE|ADDRESS",
        help="Where the work runs: `local` (one process a core), `serial` (this process), your own YAML file "
        "(`qsm-dask cluster check`), or a running scheduler (`tls://HOST:PORT`).",
    ),
]
ShardOption = Annotated[
    Shard | None,
    typer.Option(
        "--shard",
        metavar="i/N",
        parser=Shard.parse,
        help="Only the i-th of N equal parts of the scans, in this process: for job arrays without Dask.",
    ),
]
Derivatives = Annotated[
    list[str],
    typer.Option(
        "--derivatives",
        "-d",
        default_factory=list,
        show_default=False,
        metavar="DIR[:NAMES]",
        help="Take what exists already from this derivatives folder: NAMES are `dseg`, `probseg`, `mask`, `chi`, "
        "`local_field` or `r2`, separated by commas (`dseg,mask` unless given), each with its units where the sidecar "
        "lacks them (`chi=ppb`), or with a pattern of files (`dseg=mri/aseg.mgz`, `dseg={sub}/{ses}/labels.nii.gz`). "
        "Found by themselves are BIDS names, and label images of FreeSurfer, FastSurfer, SynthSeg and FIRST. May be "
        "repeated.",
    ),
]
TransformPatterns = Annotated[
    list[str],
    typer.Option(
        "--transform",
        default_factory=list,
        show_default=False,
        metavar="[NAMES=]PATTERN",
        help="Files that resample the label images and probabilities of --derivatives onto the scans "
        "(`xfm/{sub}.lta`): LTA, ITK (`.txt`, `.mat`, `.h5`, displacements `.nii.gz`) or FSL (`.mat`). Without one, "
        "headers tell where they lie. NAMES are `dseg,probseg` unless given; `mask` may be among them.",
    ),
]
Participants = Annotated[
    list[str],
    typer.Option(
        "--participant-label",
        default_factory=list,
        show_default=False,
        metavar="LABEL",
        help="Only this participant, with or without `sub-`. May be repeated.",
    ),
]
Sessions = Annotated[
    list[str],
    typer.Option(
        "--session-id",
        default_factory=list,
        show_default=False,
        metavar="LABEL",
        help="Only this session, with or without `ses-`. May be repeated.",
    ),
]
Filters = Annotated[
    Path | None,
    typer.Option("--bids-filter-file", metavar="FILE", help="JSON file of BIDS entities that the scans must have."),
]
PhaseSign = Annotated[
    str,
    typer.Option(
        metavar="SIGN",
        help="Sign of the phase: `auto`, `+1`, `-1`, or by manufacturer or scan (`auto,GE=-1`). "
        "Veins must be positive.",
    ),
]
CoilSmoothing = Annotated[
    float | None,
    typer.Option(
        "--coil-smoothing",
        min=0.1,
        metavar="MM",
        help="Where coils are combined: smoothing of their phase offsets (`qsm-dask stages`: coils.mcpc3ds).",
    ),
]
Pseudonymise = Annotated[
    bool,
    typer.Option(
        "--pseudonymise",
        help="Name tasks, which the dashboard shows, by pseudonyms: an HMAC of the scan with the secret in "
        "QSM_DASK_PSEUDONYM_SECRET.",
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        min=0.01,
        metavar="MINUTES",
        help="Give up a scan that is worked on for longer than this; it fails with that reason, and the others go on. "
        "Never, unless given.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars; warnings and errors only.")]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output; implies --quiet.")]


@dataclass(frozen=True)
class Selection:
    """Which scans and maps of a dataset a command takes in, and how it reads their phase and combines their coils."""

    derivatives: Sequence[str] = ()
    transforms: Sequence[str] = ()
    participants: Sequence[str] = ()
    sessions: Sequence[str] = ()
    filters: Path | None = None
    phase_sign: str = "auto"
    coil_smoothing_mm: float | None = None
