"""Commands that need no cohort: simulate, apply and the demonstration."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qsm_dask.cli import steps
from qsm_dask.cli.console import OUT, progress, say, table, waiting, write_json
from qsm_dask.cli.options import ClusterName, Json, Quiet, Selection
from qsm_dask.errors import ConfigError
from qsm_dask.place import Place

if TYPE_CHECKING:
    from qsm_dask.workflow.recovery import Recovered

DEMO_SUBJECTS = 4
_OUTSIDE = "OUTSIDE"


def simulate(
    out: Annotated[
        Path,
        typer.Argument(metavar="OUT", help="Folder of the BIDS dataset to write.", file_okay=False, show_default=False),
    ],
    subjects: Annotated[int, typer.Option(min=1, help="Number of participants.")] = DEMO_SUBJECTS,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same cohort.")] = 0,
    shape: Annotated[
        tuple[int, int, int], typer.Option(metavar="X Y Z", help="Matrix; the field of view stays 192x224x160 mm.")
    ] = (
        96,
        112,
        80,
    ),
    b0: Annotated[float, typer.Option(min=0.1, help="Field strength in tesla.")] = 3.0,
    oblique: Annotated[bool, typer.Option("--oblique", help="Tilt the slices against B0.")] = False,
    snr: Annotated[float, typer.Option(min=0.1, help="Signal to noise of the first echo.")] = 100.0,
    coils: Annotated[int, typer.Option(min=0, help="Receive coils kept apart, a file each; 0 combines them.")] = 0,
    spin_echo: Annotated[
        bool, typer.Option("--spin-echo", help="Measure R2 by spin echoes too; the maps go to derivatives/spinecho.")
    ] = False,
    calcified: Annotated[
        bool, typer.Option("--calcification/--no-calcification", help="A strong source in the left ventricle.")
    ] = True,
    atlas: Annotated[
        bool, typer.Option("--atlas", help="Write a template of such heads and its regions to derivatives/atlas.")
    ] = False,
    cluster: ClusterName = "local",
    quiet: Quiet = False,
) -> None:
    """Write a BIDS cohort of simulated heads, with the truth under derivatives/truth.

    Example: `qsm-dask simulate heads/ --subjects 8 --shape 64 74 54 --b0 7`
    """
    from qsm_dask.workflow import simulate as workflow

    with steps.open_cluster(cluster, quiet=quiet) as engine, progress("simulate", quiet=quiet) as shown:
        workflow.run(
            out,
            subjects=subjects,
            seed=seed,
            shape=shape,
            b0=b0,
            oblique=oblique,
            snr=snr,
            coils=coils,
            spin_echo=spin_echo,
            calcified=calcified,
            atlas=atlas,
            engine=engine,
            progress=shown,
        )
    say(f"dataset   {out}\ntruth     {out / 'derivatives' / 'truth'}")


def apply(
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="A stage of `qsm-dask stages`.", show_default=False)],
    *,
    inputs: Annotated[
        list[str], typer.Option("--input", "-i", metavar="NAME=FILE", help="The image of a quantity. May be repeated.")
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="DIR", help="Folder for the outputs.", file_okay=False, show_default=False),
    ],
    b0: Annotated[float | None, typer.Option(metavar="TESLA", help="Field strength in tesla.")] = None,
    b0_dir: Annotated[
        tuple[float, float, float] | None,
        typer.Option(help="Direction of B0 in array axes; from the affine unless given.", metavar="X Y Z"),
    ] = None,
    te: Annotated[
        list[float],
        typer.Option(
            default_factory=list, show_default=False, metavar="SECONDS", help="Echo time in seconds; once an echo."
        ),
    ],
    settings: Annotated[
        list[str],
        typer.Option(
            "--set",
            default_factory=list,
            show_default=False,
            metavar="KEY=VALUE",
            help="A parameter of the stage. May be repeated.",
        ),
    ],
    quiet: Quiet = False,
) -> None:
    """Run one stage on NIfTI files, without a cohort: each output becomes DIR/QUANTITY.nii.gz.

    `qsm-dask stages STAGE` tells what it reads, in which units. Quantities that it does not read are ignored.

    Example: `qsm-dask apply inversion.tkd -i local_field=f.nii.gz -i mask=m.nii.gz --set threshold=0.2 -o out`
    """
    from qsm_dask.workflow import apply as workflow

    with waiting(f"{stage} (compiled when it first runs on a machine)", quiet=quiet):
        written = workflow.run(
            stage,
            {name: Path(file) for name, file in _pairs("--input", inputs).items()},
            out,
            b0=b0,
            b0_dir=b0_dir,
            te=te,
            parameters=_pairs("--set", settings),
        )
    for path in written:
        OUT.print(str(path), highlight=False, markup=False)


def demo(
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="Folder for the dataset and the cohort.", file_okay=False)
    ] = Path("demo-output"),
    subjects: Annotated[int, typer.Option(min=1, help="Number of participants.")] = DEMO_SUBJECTS,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same cohort.")] = 0,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Simulate a small cohort, run everything on it, and print recovered against true susceptibility.

    It takes about two minutes; a second time, what is there already is not computed again.

    Exit code 1 if a scan failed or a region's mean is further from the truth than 15 % and 10 ppb.
    """
    from qsm_dask.workflow import recovery

    bids, cohort = out / "bids", Place.parse(out / "cohort")
    truth = bids / "derivatives" / "truth"
    quiet = quiet or as_json
    simulate(bids, subjects=subjects, seed=seed, quiet=quiet)
    chosen = Selection(derivatives=[f"{truth}:dseg"])
    consensus = steps.read_pipeline("consensus")
    _, summary, _, page = steps.run_all(Place(str(bids.absolute())), cohort, chosen, consensus, "local", quiet=quiet)
    with waiting("comparing with the truth", quiet=quiet):
        found = recovery.run(steps.open_store(cohort), truth)
    rows = _per_region(found)
    if as_json:
        write_json(rows)
    else:
        shown = ("region", "scans", "recovered_ppb", "true_ppb", "error_ppb", "worst_ppb", "verdict")
        OUT.print()
        table(
            "Mean susceptibility over the cohort (both maps minus their mean over the same mask)",
            shown,
            [_rounded(row) for row in rows],
            numbers=shown[1:-1],
        )
        OUT.print(f"\ntables   {cohort.of('tables')}\nreport   {page}", highlight=False)
    raise typer.Exit(1 if summary.failures or any(row["verdict"] == _OUTSIDE for row in rows) else 0)


def _per_region(found: "list[Recovered]") -> list[dict[str, Any]]:
    regions: dict[str, list[Recovered]] = {}
    for row in found:
        regions.setdefault(row.region, []).append(row)
    return [
        {
            "region": region,
            "scans": len(rows),
            "recovered_ppb": sum(row.recovered for row in rows) / len(rows),
            "true_ppb": sum(row.true for row in rows) / len(rows),
            "error_ppb": sum(row.error for row in rows) / len(rows),
            "worst_ppb": max((row.error for row in rows), key=abs),
            "verdict": _verdict(rows),
            "by_scan": {row.scan: {"recovered_ppb": row.recovered, "true_ppb": row.true} for row in rows},
        }
        for region, rows in regions.items()
    ]


def _verdict(rows: "list[Recovered]") -> str:
    """Whether the mean over the cohort lies within 15 % or 10 ppb of the truth."""
    error = abs(sum(row.error for row in rows) / len(rows))
    true = abs(sum(row.true for row in rows) / len(rows))
    return "within 15 % or 10 ppb" if error <= max(10.0, 0.15 * true) else _OUTSIDE


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {name: f"{value:.1f}" if isinstance(value, float) else value for name, value in row.items()}


def _pairs(option: str, items: list[str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name or not value:
            raise ConfigError(f"{option} {item}: expected NAME=VALUE")
        if name in pairs:
            raise ConfigError(f"{option} {item}: {name} is given twice")
        pairs[name] = value
    return pairs
