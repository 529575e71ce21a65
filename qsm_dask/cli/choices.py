"""Commands that tell what there is to choose from: stages and pipelines."""

from collections.abc import Mapping
from dataclasses import asdict
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from qsm_dask.cli.console import OUT, write_json
from qsm_dask.cli.options import Json
from qsm_dask.errors import ConfigError

if TYPE_CHECKING:
    from qsm_dask.catalogue import Description, Parameter
    from qsm_dask.stages import Stage


def stages(
    name: Annotated[
        str,
        typer.Argument(
            metavar="STAGE", help="One stage, told in full, or one family such as `inversion`.", show_default=False
        ),
    ] = "",
    as_json: Json = False,
) -> None:
    """List every stage: what it reads and writes, each parameter with its default and meaning, memory and DOI.

    Example: `qsm-dask stages inversion.rts`
    """
    from qsm_dask.catalogue import describe
    from qsm_dask.stages import STAGES

    described = [describe(one, stage) for one, stage in sorted(_chosen(name, STAGES).items())]
    if as_json:
        write_json([_as_dict(one) for one in described])
    elif name in STAGES:
        _show_whole(described[0])
    else:
        for one in described:
            _show(one)
        OUT.print(f"\n{len(described)} stages; `qsm-dask stages STAGE` tells one in full.", highlight=False)


def _chosen(name: str, table: "Mapping[str, Stage]") -> "Mapping[str, Stage]":
    if name in table:
        return {name: table[name]}
    found = {one: stage for one, stage in table.items() if not name or one.startswith(f"{name.rstrip('.')}.")}
    if not found:
        families = sorted({one.partition(".")[0] for one in table})
        close = [one for one in table if one.endswith(f".{name}")] or get_close_matches(name, [*table, *families], 1)
        hint = f"did you mean {close[0]!r}?" if close else f"families are {', '.join(families)}"
        raise ConfigError(f"no stage {name!r}; {hint}")
    return found


def _as_dict(one: "Description") -> dict[str, Any]:
    told = asdict(one)
    parameters = {parameter.pop("name"): parameter for parameter in told.pop("parameters")}
    memory = {"bytes": told.pop("memory_bytes"), "float32_volumes": one.memory_volumes, "scan": _head()}
    return {**told, "doi": one.doi or None, "parameters": parameters, "memory": memory}


def _show(one: "Description") -> None:
    """One stage of the list: a line for each fact."""
    OUT.print(f"[bold]{one.stage}[/]  {escape(one.summary)}", highlight=False)
    reads = ", ".join(f"{read.name} (optional)" if read.optional else read.name for read in one.reads)
    _line(f"reads {reads}; writes {', '.join(written.name for written in one.writes)}")
    for parameter in one.parameters:
        _line(f"{_setting(parameter)}  [dim]{escape(parameter.brief)}[/]", markup=True)
    _line(f"[dim]{escape(_costs(one))}[/]", markup=True)


def _show_whole(one: "Description") -> None:
    """One stage in full, with how to call it."""
    OUT.print(f"[bold]{one.stage}[/]  {escape(one.summary)}\n", highlight=False)
    if one.details:
        OUT.print(f"{escape(one.details)}\n", highlight=False)
    OUT.print("[bold]reads[/]")
    for read in one.reads:
        _line(f"{read.name}{' (optional)' if read.optional else ''}, {_units(read.units)}: {read.meaning}")
    OUT.print("[bold]writes[/]")
    for written in one.writes:
        _line(f"{written.name}, {_units(written.units)}: {written.meaning}")
    OUT.print("[bold]parameters[/]" if one.parameters else "[bold]parameters[/]  none")
    for parameter in one.parameters:
        _line(_setting(parameter), markup=True)
        _line(f"    {parameter.meaning}")
    OUT.print("[bold]cost and source[/]")
    _line(_costs(one))
    OUT.print("[bold]by hand[/]")
    _line(f"qsm-dask apply {one.stage} {' '.join(_by_hand(one))} -o DIR")


def _by_hand(one: "Description") -> list[str]:
    """What `qsm-dask apply` must be given; the affine of an image gives the rest."""
    flags = {"b0": "--b0 TESLA", "te": "--te SECONDS"}
    needed = [read for read in one.reads if not read.optional]
    return [
        *(f"-i {read.name}=FILE" for read in needed if read.image),
        *(flags[read.name] for read in needed if read.name in flags),
        *(f"--set {parameter.name}=VALUE" for parameter in one.parameters if parameter.required),
    ]


def _line(text: str, *, markup: bool = False) -> None:
    OUT.print(f"    {text}", highlight=False, markup=markup)


def _setting(parameter: "Parameter") -> str:
    value = ", required" if parameter.required else f" = {parameter.written}"
    return escape(f"{parameter.name}: {parameter.type}{value} {parameter.units}".rstrip())


def _units(units: str) -> str:
    return "no unit" if units == "1" else units


def _costs(one: "Description") -> str:
    source = f"doi {one.doi}" if one.doi else "no paper to cite"
    return (
        f"takes at most {one.memory_volumes:g} float32 volumes beside its inputs "
        f"({one.memory_bytes / 2**20:.0f} MiB at {_head()}); {source}"
    )


def _head() -> str:
    from qsm_dask.catalogue import HEAD

    return f"{'x'.join(map(str, HEAD.shape))}, {HEAD.echoes} echoes"


def pipelines(as_json: Json = False) -> None:
    """List the pipelines that are shipped, with their steps.

    Example: `qsm-dask pipelines --json`
    """
    from qsm_dask import resources
    from qsm_dask.pipeline import Pipeline

    found = [Pipeline.from_yaml(name) for name in resources.names("pipelines")]
    if as_json:
        write_json([dict(pipeline.source) for pipeline in found])
        return
    for pipeline in found:
        OUT.print(f"[bold]{pipeline.name}[/]  {escape(pipeline.summary)}", highlight=False)
        chain = " > ".join(" or ".join(step.stage for step in slot) for slot in pipeline.slots)
        OUT.print(f"    {chain}", highlight=False)
