"""Commands that need no cohort: simulate, apply, demo, and what there is to choose from."""

import inspect
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qsm_dask.cli import cohorts
from qsm_dask.cli.cohorts import Json, Quiet
from qsm_dask.cli.console import OUT, progress, say, table, write_json
from qsm_dask.errors import ConfigError

if TYPE_CHECKING:
    from qsm_dask.stages import Stage
    from qsm_dask.workflow.recovery import Recovered

DEMO_SUBJECTS = 4


def simulate(
    out: Annotated[
        Path, typer.Argument(help="Folder of the BIDS dataset to write.", file_okay=False, show_default=False)
    ],
    subjects: Annotated[int, typer.Option(min=1, help="Number of participants.")] = DEMO_SUBJECTS,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same cohort.")] = 0,
    shape: Annotated[tuple[int, int, int], typer.Option(help="Matrix; the field of view stays 192x224x160 mm.")] = (
        96,
        112,
        80,
    ),
    b0: Annotated[float, typer.Option(min=0.1, help="Field strength in tesla.")] = 3.0,
    oblique: Annotated[bool, typer.Option("--oblique", help="Tilt the slices against B0.")] = False,
    snr: Annotated[float, typer.Option(min=0.1, help="Signal to noise of the first echo.")] = 100.0,
    calcified: Annotated[
        bool, typer.Option("--calcification/--no-calcification", help="A strong source in the left ventricle.")
    ] = True,
    cluster: cohorts.ClusterName = "local",
    quiet: Quiet = False,
) -> None:
    """Write a BIDS cohort of simulated heads, with the truth under derivatives/truth."""
    from qsm_dask.workflow import simulate as workflow

    with cohorts.open_cluster(cluster) as engine, progress("simulate", quiet=quiet) as shown:
        workflow.run(
            out,
            subjects=subjects,
            seed=seed,
            shape=shape,
            b0=b0,
            oblique=oblique,
            snr=snr,
            calcified=calcified,
            engine=engine,
            progress=shown,
        )
    say(f"dataset   {out}\ntruth     {out / 'derivatives' / 'truth'}")


def apply(
    stage: Annotated[str, typer.Argument(help="A stage of `qsm-dask stages`.", show_default=False)],
    inputs: Annotated[
        list[str], typer.Option("--input", "-i", metavar="NAME=FILE", help="The image of a quantity. May be repeated.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the outputs.", show_default=False)],
    b0: Annotated[float | None, typer.Option(help="Field strength in tesla.")] = None,
    b0_dir: Annotated[
        tuple[float, float, float] | None,
        typer.Option(help="Direction of B0 in array axes; from the affine unless given.", metavar="X Y Z"),
    ] = None,
    te: Annotated[list[float], typer.Option(help="Echo time in seconds; once an echo.")] = [],  # noqa: B006
    settings: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help="A parameter of the stage. May be repeated.")
    ] = [],  # noqa: B006
) -> None:
    """Run one stage on NIfTI files, without a cohort.

    Quantities that the stage does not read are ignored.

    Example: `qsm-dask apply inversion.tkd -i local_field=f.nii.gz -i mask=m.nii.gz --set threshold=0.2 -o out`
    """
    from qsm_dask.workflow import apply as workflow

    for path in workflow.run(
        stage,
        {name: Path(file) for name, file in _pairs("--input", inputs).items()},
        out,
        b0=b0,
        b0_dir=b0_dir,
        te=te,
        parameters=_pairs("--set", settings),
    ):
        OUT.print(str(path), highlight=False, markup=False)


def stages(as_json: Json = False) -> None:
    """List every stage: what it reads and writes, parameters with units and defaults, memory and DOI."""
    from qsm_dask.stages import STAGES

    described = [_describe(name, stage) for name, stage in sorted(STAGES.items())]
    if as_json:
        write_json(described)
        return
    for one in described:
        OUT.print(f"[bold]{one['stage']}[/]  {one['summary']}", highlight=False)
        OUT.print(f"    reads {', '.join(one['reads'])}; writes {', '.join(one['writes'])}", highlight=False)
        for name, known in one["parameters"].items():
            OUT.print(f"    {name} = {known['default']}  [dim]{known['units']}[/]", highlight=False)
        OUT.print(f"    [dim]{one['memory']} volumes at most beside its inputs; {one['doi']}[/]", highlight=False)


def pipelines(as_json: Json = False) -> None:
    """List the pipelines that are shipped, with their steps."""
    from qsm_dask import resources
    from qsm_dask.pipeline import Pipeline

    found = [Pipeline.from_yaml(name) for name in resources.names("pipelines")]
    if as_json:
        write_json([dict(pipeline.source) for pipeline in found])
        return
    for pipeline in found:
        OUT.print(f"[bold]{pipeline.name}[/]  {pipeline.summary}", highlight=False)
        steps = " > ".join(" or ".join(step.stage for step in slot) for slot in pipeline.slots)
        OUT.print(f"    {steps}", highlight=False)


def demo(
    out: Annotated[Path, typer.Argument(help="Folder for the dataset and the cohort.")] = Path("demo-output"),
    subjects: Annotated[int, typer.Option(min=1, help="Number of participants.")] = DEMO_SUBJECTS,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same cohort.")] = 0,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Simulate a small cohort, run everything on it, and print recovered against true susceptibility."""
    from qsm_dask.workflow import recovery

    bids, cohort = out / "bids", out / "cohort"
    quiet = quiet or as_json
    simulate(bids, subjects=subjects, seed=seed, quiet=quiet)
    chosen = cohorts.Selection(derivatives=[f"{bids / 'derivatives' / 'truth'}:dseg"])
    _, summary, page = cohorts.run_all(bids, cohort, chosen, quiet=quiet)
    found = recovery.run(cohorts.open_store(cohort), bids / "derivatives" / "truth")
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
        OUT.print(f"\ntables   {cohort / 'tables'}\nreport   {page}", highlight=False)
    raise typer.Exit(1 if summary.failures else 0)


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
    return "within 15 % or 10 ppb" if error <= max(10.0, 0.15 * true) else "OUTSIDE"


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {name: f"{value:.1f}" if isinstance(value, float) else value for name, value in row.items()}


def _pairs(option: str, items: list[str]) -> dict[str, str]:
    pairs = {}
    for item in items:
        name, equals, value = item.partition("=")
        if not equals or not name or not value:
            raise ConfigError(f"{option} {item}: expected NAME=VALUE")
        pairs[name] = value
    return pairs


class _Unit(Enum):
    """Units that the name of a parameter carries."""

    PPM_MM = ("_ppm_mm", "ppm mm")
    MM = ("_mm", "mm")
    PER_S = ("_per_s", "1/s")
    S = ("_s", "s")
    PPM = ("_ppm", "ppm")


def _describe(name: str, stage: "Stage") -> dict[str, Any]:
    from qsm_dask.scan import Geometry

    geometry = Geometry((192, 224, 160), (1.0, 1.0, 1.0), (0.005, 0.010, 0.015, 0.020))
    volumes = stage.memory(geometry, stage.parameters) / (4 * geometry.voxels)
    return {
        "stage": name,
        "summary": stage.summary,
        "reads": [f"{one} (optional)" if one in stage.optional else one for one in stage.inputs],
        "writes": list(stage.outputs),
        "parameters": {
            one: {"default": "required" if default is inspect.Parameter.empty else default, "units": _units(one)}
            for one, default in stage.parameters.items()
        },
        "memory": round(volumes, 1),
        "doi": stage.cite or "no citation",
        "version": stage.version,
    }


def _units(parameter: str) -> str:
    return next((unit.value[1] for unit in _Unit if parameter.endswith(unit.value[0])), "")
