"""The command that tells what a run would cost."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from qsm_dask.cli import steps
from qsm_dask.cli.console import OUT, say, table, waiting, write_json
from qsm_dask.cli.options import AtlasName, ClusterName, Json, PipelineName, Quiet
from qsm_dask.errors import ConfigError
from qsm_dask.place import Place

if TYPE_CHECKING:
    from qsm_dask.cohort.costs import Sample
    from qsm_dask.pipeline import Pipeline
    from qsm_dask.store import CohortStore, Commit
    from qsm_dask.workflow.plan import Forecast, Works

_ECHO_S = 0.006
_STUDY, _CLUSTER, _COSTS = "A study that does not exist yet", "The cluster", "Where costs come from"


def plan(
    cohort: Annotated[
        Place | None,
        typer.Argument(
            metavar="COHORT",
            help="Folder or URL of a cohort: what is left to do on its scans. Without it, describe a study.",
            parser=Place.parse,
            show_default=False,
        ),
    ] = None,
    *,
    pipeline: PipelineName = "consensus",
    atlas: AtlasName = None,
    cluster: ClusterName = "local",
    nodes: Annotated[int | None, typer.Option(min=1, help="Machines of the cluster.", rich_help_panel=_CLUSTER)] = None,
    node_cpus: Annotated[
        int | None, typer.Option(min=1, help="Processors of one machine.", rich_help_panel=_CLUSTER)
    ] = None,
    node_memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Memory of one machine, such as `128 GiB`.", rich_help_panel=_CLUSTER),
    ] = None,
    price: Annotated[
        float | None,
        typer.Option(min=0.0, help="Price of one machine for an hour, in any currency.", rich_help_panel=_CLUSTER),
    ] = None,
    speed: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="How fast a processor of the cluster is, relative to the one on which costs were measured.",
            rich_help_panel=_CLUSTER,
        ),
    ] = None,
    scans: Annotated[int | None, typer.Option(min=1, help="Number of scans.", rich_help_panel=_STUDY)] = None,
    shape: Annotated[
        tuple[int, int, int] | None,
        typer.Option(metavar="X Y Z", help="Matrix of a scan.", rich_help_panel=_STUDY),
    ] = None,
    voxel_size: Annotated[
        tuple[float, float, float], typer.Option(metavar="X Y Z", help="Voxels in mm.", rich_help_panel=_STUDY)
    ] = (1.0, 1.0, 1.0),
    echoes: Annotated[int, typer.Option(min=1, help="Echoes of a scan.", rich_help_panel=_STUDY)] = 3,
    coils: Annotated[
        int,
        typer.Option(min=1, help="Receive coils kept apart in the files; 1: combined.", rich_help_panel=_STUDY),
    ] = 1,
    measured: Annotated[
        list[str],
        typer.Option(
            "--measured",
            default_factory=list,
            show_default=False,
            metavar="COHORT",
            help="Take costs from scans of this cohort too. May be repeated.",
            rich_help_panel=_COSTS,
        ),
    ],
    rounds: Annotated[
        int,
        typer.Option(
            "--calibrate",
            min=1,
            metavar="N",
            help="Where a step was never measured: N scans on each of a few workers here, in a scratch folder.",
            rich_help_panel=_COSTS,
        ),
    ] = 3,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Predict what a run costs before it is started: hours, node-hours, money, store size, objects, network.

    Costs are those of scans that were processed before, in this cohort or another (`--measured`); where there are none,
    a few scans are processed here first, on up to four processors. The memory that stages declare decides how many
    scans share a node. Node size and price may stand in the cluster file as well:
    `node: {count: 100, cpus: 32, memory: 128 GiB, price: 1.5}`.

    Exit code 0: every scan fits; 1: some are too large for a worker; 2: wrong usage.

    Example: `qsm-dask plan study.qsm -c slurm --nodes 10 --node-cpus 32 --node-memory "128 GiB" --price 1.5`, or
    `qsm-dask plan --scans 40000 --shape 256 288 48 --voxel-size .8 .8 3 --echoes 2 --coils 32 -c slurm --nodes 100`
    """
    from qsm_dask.cohort.costs import Costs, samples
    from qsm_dask.engine import read_spec
    from qsm_dask.engine.fleet import Node, fleet
    from qsm_dask.engine.sizing import worker_for
    from qsm_dask.workflow import plan as workflow

    quiet = quiet or as_json
    if (cohort is None) == (scans is None and shape is None) or (scans is None) != (shape is None):
        raise ConfigError("plan: give a COHORT, or --scans and --shape of a study that does not exist yet")
    chosen, spec = workflow.settled(steps.read_pipeline(pipeline, atlas)), read_spec(cluster)
    node = Node.of(spec, count=nodes, cpus=node_cpus, memory=node_memory, price=price, speed=speed)
    known = [one for url in measured for one in samples(steps.open_store(Place.parse(url)))]
    store = None if cohort is None else steps.open_store(cohort)
    examples: Sequence[Commit] = ()
    said: dict[str, int] = {}
    if store is not None:
        with waiting("reading the cohort", quiet=quiet):
            found = workflow.pending(store, chosen)
            known += samples(store)
        works, examples, said = found.works, found.examples, {"done": found.done, "refused": found.refused}
    else:
        works = _described(scans or 0, shape or (0, 0, 0), voxel_size, echoes, coils, chosen)
    size = workflow.largest_task(works)
    machines = fleet(spec, node, size)  # a cluster that is described wrongly is told before anything is measured
    if lacking := workflow.unmeasured(works, Costs.of(known)):
        likes = [examples[one] for one in lacking if store]
        known += _calibrate(store, likes, works, chosen, steps.threads_of(cluster), rounds, quiet=quiet)
    forecast = workflow.run(works, Costs.of(known), machines, needed_bytes=worker_for(size))
    if as_json:
        write_json(said | workflow.as_dict(forecast))
    else:
        _show(forecast, said)
    raise typer.Exit(1 if forecast.too_large or said.get("refused") else 0)


def _described(
    scans: int,
    shape: tuple[int, int, int],
    voxel_size: tuple[float, float, float],
    echoes: int,
    coils: int,
    pipeline: "Pipeline",
) -> "Works":
    """The work of a study that does not exist yet."""
    from qsm_dask.scan import Geometry
    from qsm_dask.workflow import plan as workflow

    if min(shape) < 1 or min(voxel_size) <= 0.0:
        raise ConfigError("plan: --shape and --voxel-size are numbers above zero")
    te = tuple(_ECHO_S * (echo + 1) for echo in range(echoes))
    return workflow.described(Geometry(shape, voxel_size, te), coils, scans, pipeline)


def _calibrate(
    store: "CohortStore | None",
    examples: "Sequence[Commit]",
    works: "Works",
    pipeline: "Pipeline",
    threads: int,
    rounds: int,
    *,
    quiet: bool,
) -> "list[Sample]":
    """Measure on copies of scans of the cohort, or on a simulated head."""
    from qsm_dask import calibration

    steps.compile_kernels(pipeline, threads, quiet=quiet)
    if not quiet:
        say("nothing like it was processed before: a few scans are measured on this machine")
    with waiting("measuring", quiet=quiet):
        if store is not None:
            return calibration.on_copies(store, examples, pipeline, threads=threads, rounds=rounds)
        work = works[0][0]
        return calibration.on_simulated(work.plan.geometry, work.coils, pipeline, threads=threads, rounds=rounds)


def _show(forecast: "Forecast", said: Mapping[str, int]) -> None:
    """The figures, and what the seconds go to."""
    rows = [{"": name, "predicted": value} for name, value in _figures(forecast)]
    table("", ("", "predicted"), rows, numbers=("predicted",))
    total = sum(forecast.seconds.values())
    OUT.print()
    shares = sorted(forecast.seconds.items(), key=lambda item: -item[1])
    table(
        "One scan on one worker",
        ("step", "seconds", "share"),
        [{"step": step, "seconds": f"{s:.2f}", "share": f"{s / total:.0%}"} for step, s in shares if s > 0],
        numbers=("seconds", "share"),
    )
    say(f"costs of {forecast.measured_scans} measured scans")
    if forecast.worker_bytes > 2 * forecast.needed_bytes:
        say(
            f"a worker needs {forecast.needed_bytes / 2**30:.1f} GiB and has {forecast.worker_bytes / 2**30:.1f} GiB: "
            "with less `memory` in the cluster file more of them may share a node"
        )
    if said.get("done"):
        say(f"{said['done']} scans are done or skipped, and not counted")
    if said.get("refused"):
        say(f"{said['refused']} scans cannot be processed: `qsm-dask status` says why")
    if forecast.too_large:
        say(
            f"{forecast.too_large} scans do not fit a worker of {forecast.worker_bytes / 2**30:.1f} GiB, and are not "
            f"counted: the largest needs `memory` of {forecast.needed_bytes / 2**30:.1f} GiB"
        )


def _figures(forecast: "Forecast") -> list[tuple[str, str]]:
    per = f"{forecast.nodes} x {forecast.slots_per_node}"
    worker = f"{forecast.worker_bytes / 2**30:.1f} GiB ({forecast.needed_bytes / 2**30:.1f} GiB needed)"
    figures = [
        ("scans", f"{forecast.scans}"),
        ("nodes x scans at once", per),
        ("memory of a worker", worker),
        *((f"{phase.name}", _hours(phase.wall_hours)) for phase in forecast.phases),
        ("wall time", _hours(forecast.wall_hours)),
        ("node-hours (of these busy)", f"{forecast.node_hours:.2f} ({forecast.busy_node_hours:.2f})"),
        ("store grows by", f"{_bytes(forecast.store_bytes)} in {forecast.store_objects} objects"),
        ("network: read", _bytes(forecast.read_bytes)),
        ("network: written", _bytes(forecast.written_bytes)),
    ]
    if forecast.cost is not None:
        figures.append(("cost", f"{forecast.cost:.2f}"))
    return figures


def _hours(hours: float) -> str:
    if hours < 0.1:
        return f"{3600 * hours:.0f} s"
    return f"{60 * hours:.0f} min" if hours < 2 else f"{hours:.1f} h"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.4g} {unit}"
        count /= 1000
    return f"{count:.4g} TB"
