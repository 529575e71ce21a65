"""Commands about descriptions of clusters."""

from typing import Annotated

import typer

from qsm_dask.cli.console import OUT


def check(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE|ADDRESS",
            help="A shipped cluster, your own YAML file, or a scheduler's address.",
            show_default=False,
        ),
    ],
) -> None:
    """Check a cluster's description, and print the job script that would be submitted; submit nothing.

    Example: `qsm-dask cluster check slurm`
    """
    from qsm_dask.engine import parse, read_spec

    OUT.print(parse(read_spec(name)).describe(), highlight=False, markup=False, soft_wrap=True)
