"""Commands for maps in a template's space."""

from pathlib import Path
from typing import Annotated

import typer

from qsm_dask.cli import steps
from qsm_dask.cli.console import say, write_json
from qsm_dask.cli.options import ClusterName, Cohort, Json, Pseudonymise, Quiet


def cube(
    cohort: Cohort,
    *,
    compact: Annotated[
        bool,
        typer.Option(
            "--compact",
            help="Also write the scans of small segments together, as one more: where scans came a few at a time, "
            "bricks are read in fewer pieces. `gc --superseded` then removes the small ones.",
        ),
    ] = False,
    cluster: ClusterName = "serial",
    pseudonymise: Pseudonymise = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Append the maps of scans in standard space to the cohort cube, which is read by brick.

    What is in the cube already is not touched. Scans have such maps where the pipeline has `anatomy.standard`.

    Exit code 0: all are in the cube; 1: some could not be appended.

    Example: `qsm-dask cube study.qsm --cluster local`
    """
    store = steps.open_store(cohort)
    with steps.open_cluster(cluster, quiet=quiet or as_json, pseudonymise=pseudonymise) as engine:
        summary = steps.append_cube(store, engine, compact=compact, quiet=quiet or as_json)
    if as_json:
        write_json(vars(summary))
    raise typer.Exit(1 if summary.failures else 0)


def template(
    cohort: Cohort,
    out: Annotated[
        Path,
        typer.Argument(
            metavar="OUT",
            help="Folder of the template, which `--atlas` takes then.",
            file_okay=False,
            show_default=False,
        ),
    ],
    *,
    iterations: Annotated[int, typer.Option(min=1, help="How often scans are registered and averaged.")] = 3,
    name: Annotated[str, typer.Option(help="Of the template's space: letters and digits.")] = "study",
    cluster: ClusterName = "local",
    pseudonymise: Pseudonymise = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Build a template from the cohort's own scans, for populations that no atlas fits.

    It starts from the template of the cohort's pipeline, which must have `anatomy.standard`. Scans are averaged, the
    average is given their mean shape, they are registered to it, and so on. The cohort's own results stay.

    Exit code 0: the template is written; 2: the cohort's pipeline does not bring scans to a template.

    Example: `qsm-dask template study.qsm templates/tpl-study`
    """
    from qsm_dask.api import build_template
    from qsm_dask.workflow.template import Average

    def tell(number: int, made: Average) -> None:
        if not quiet and not as_json:
            say(f"template  {number} of {iterations}: {made.scans} scans, mean shape {made.shape_mm:.2f} mm away")

    store = steps.open_store(cohort)
    with steps.open_cluster(cluster, quiet=quiet or as_json, pseudonymise=pseudonymise) as engine:
        found = build_template(store, engine, out, iterations=iterations, name=name, progress=tell)
    if as_json:
        write_json([vars(one) for one in found])
