"""Which steps of a pipeline run on a scan, and which of them are committed together."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import NamedTuple

from qsm_dask.errors import ConfigError
from qsm_dask.pipeline.plan import Plan, PlanNode
from qsm_dask.pipeline.steps import Step
from qsm_dask.quantities import NODES, quantity
from qsm_dask.scan import Geometry


class _LeftOut(NamedTuple):
    """A step that does not run, and why."""

    step: Step
    reason: str

    def __str__(self) -> str:
        return f"{self.step.stage}: {self.reason}"


def make_plan(
    slots: Sequence[Sequence[Step]],
    goal: Collection[str],
    keep: Collection[str],
    geometry: Geometry,
    available: Collection[str],
) -> Plan:
    """Choose the steps that run on a scan and group them into nodes.

    A step is left out, with the reason, when the scan lacks what it needs, when what it
    makes was ingested already, or when nothing that remains reads its result. Regions that
    were ingested as probabilities stand in for a label image.

    Raises
    ------
    ConfigError : a quantity of `goal` cannot be had; the message says why.
    """
    active, left_out = _choose(slots, geometry, available)
    have = {*available, *(name for step in active for name in step.outputs)}
    if "probseg" in _ingested(available):
        have.add("dseg")
    for name in goal:
        if name not in have:
            raise ConfigError(f"{name} cannot be computed: {_why(name, slots, left_out, have)}")
    kept = {*goal, *keep}
    steps = _needed(active, {*kept, *_leaves(slots)}, kept, left_out)
    carried = max((step.probabilities for step in steps), default=0)
    if carried:  # in place of those that were ingested
        geometry = replace(geometry, probabilities=carried)
    made = {name for step in steps for name in step.outputs}
    lacking = frozenset(name for step in steps for name in step.inputs if name not in made and name not in available)
    return Plan(geometry, _group(steps, kept), tuple(map(str, left_out)), lacking)


def _ingested(available: Collection[str]) -> set[str]:
    """What else steps would make."""
    return {name for name in available if quantity(name).node != "ingest"}


def _why(name: str, slots: Sequence[Sequence[Step]], left_out: Sequence[_LeftOut], have: Collection[str]) -> str:
    """Of the steps that do not run those that would lead to a quantity, with their reasons."""
    lacking, found = {name}, list[str]()
    for slot in reversed(slots):
        steps = [step for step in slot if lacking & set(step.outputs)]
        lacking.update(read for step in steps for read in step.required if read not in have)
        found[:0] = [str(one) for one in left_out if any(one.step is step for step in steps)]
    return "; ".join(found)


def _choose(
    slots: Sequence[Sequence[Step]], geometry: Geometry, available: Collection[str]
) -> tuple[list[Step], list[_LeftOut]]:
    """Per slot the first step that can run; and why the others cannot."""
    ingested, have = _ingested(available), set(available)
    active, left_out = list[Step](), list[_LeftOut]()
    for slot in slots:
        reasons = []
        for step in slot:
            reason = _obstacle(step, geometry, have, ingested)
            if reason is None:
                active.append(step)
                have.update(step.outputs)
                break
            reasons.append(_LeftOut(step, reason))
        else:
            left_out += reasons
    return active, left_out


def _obstacle(step: Step, geometry: Geometry, have: Collection[str], ingested: Collection[str]) -> str | None:
    if step.outputs[0] in ingested and not step.refines:
        return f"{step.outputs[0]} was ingested"
    if step.method.outputs[0] == "dseg" and "probseg" in ingested:
        return "probseg was ingested, whose regions have numbers of their own"
    if "probseg" in step.method.outputs and step.pins and not step.probabilities:
        return "the atlas has no probabilities"
    missing = [name for name in step.required if name not in have]
    if missing:
        return f"lacks {', '.join(missing)}"
    return step.method.applies(geometry)


def _leaves(slots: Sequence[Sequence[Step]]) -> set[str]:
    """What the steps make that exist for their own sake: no later step needs any of it, though one may take it in."""
    leaves: set[str] = set()
    read_later: set[str] = set()
    for slot in reversed(slots):
        outputs = {name for step in slot for name in step.outputs}
        if not outputs & read_later:
            leaves.update(name for step in slot if not step.method.serves for name in step.outputs)
        read_later.update(name for step in slot for name in step.required)
    return leaves


def _needed(active: Sequence[Step], wanted: set[str], kept: set[str], left_out: list[_LeftOut]) -> list[Step]:
    """The steps that lead to what is wanted; a step runs for its first output, or for any that is kept.

    None runs only because another could take its result in, unless it is of no other use: a scan whose local field was
    given needs no total field, though region values would have its gradient.
    """
    needed, taken_in = set(wanted), set[str]()
    steps: list[Step] = []
    for step in reversed(active):
        first = step.outputs[0]
        if first in needed or kept & needed & set(step.outputs) or (step.method.serves and first in taken_in):
            needed -= set(step.outputs)
            needed |= set(step.required)
            taken_in |= set(step.inputs)
            steps.insert(0, step)
        else:
            left_out.append(_LeftOut(step, f"nothing that remains reads {first}"))
    return steps


def _group(steps: Sequence[Step], keep: Collection[str]) -> tuple[PlanNode, ...]:
    """Cut the list of steps where the next commit begins; order in the file is order of execution."""
    groups: dict[str, list[Step]] = {}
    index = 1
    for step in steps:
        index = max(index, NODES.index(quantity(step.outputs[0]).node))
        groups.setdefault(NODES[index], []).append(step)
    nodes: list[PlanNode] = []
    later: set[str] = set()
    for name, group in reversed(groups.items()):
        reads: list[str] = []
        written: dict[str, None] = {}
        for step in group:
            reads += [read for read in step.inputs if read not in written and read not in reads]
            written.update(dict.fromkeys(step.outputs))
        stores = tuple(item for item in written if item in later or item in keep or _always_stored(item))
        nodes.insert(0, PlanNode(name, tuple(group), tuple(reads), stores))
        later.update(reads)
    return tuple(nodes)


def _always_stored(name: str) -> bool:
    known = quantity(name)
    return known.stored and known.node != "ingest"
