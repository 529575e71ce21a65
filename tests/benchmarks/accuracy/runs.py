"""Run methods on a case and measure what they return."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsm_dask import metrics, resources
from qsm_dask.errors import QsmError
from qsm_dask.pipeline import Pipeline
from qsm_dask.pipeline.plan import call
from qsm_dask.pipeline.schema import read_step
from qsm_dask.pipeline.steps import Step
from qsm_dask.quantities import RAW
from qsm_dask.stages import STAGES
from tests.benchmarks.accuracy.cases import Case, two_maps

FAMILIES = ("inversion", "background", "unwrap", "field", "relaxometry", "separation")
FRONT = ("offset", "unwrap", "field", "background", "inversion")
SOURCES = ("chi_para", "chi_dia")
ABSOLUTE = frozenset({"r2star", "r2prime", "t2star", *SOURCES})
"""Compared as they are, without taking the mean away."""

STANDARD = "consensus"
PPB = 1000.0


@dataclass(frozen=True)
class Row:
    """One method on one case.

    Attributes
    ----------
    group, case : see `Case`; method : a stage or a pipeline.
    mode : `isolated` (true input), `composed` (in the place of the standard pipeline's method of its family, from
        wrapped phase, the true mask given) or `pipeline` (a shipped one, which finds its own mask).
    figures : by measure; `keeps` is the share of the mask [%].
    seconds : of computing, all threads.
    reason : why there are no figures.
    quantity : what was compared.
    """

    group: str
    case: str
    method: str
    mode: str
    figures: Mapping[str, float]
    seconds: float = 0.0
    reason: str = ""
    quantity: str = ""

    def plain(self) -> dict[str, Any]:
        """Values for JSON."""
        return asdict(self)


Sink = Callable[[Row, NDArray[np.float64]], None]
"""Takes what a row is about: the map as it was compared."""


def family_of(method: str) -> str:
    """`inversion` of `inversion.tkd`."""
    return method.partition(".")[0]


def methods(patterns: Sequence[str]) -> list[str]:
    """The stages of the table that have a truth to be compared with, and the shipped pipelines."""
    known = [name for family in FAMILIES for name in STAGES if family_of(name) == family]
    known += [f"pipeline.{name}" for name in resources.names("pipelines") if _aims(name)]
    return [name for name in known if any(fnmatch(name, f"*{pattern}*") for pattern in patterns)]


def _aims(pipeline: str) -> tuple[str, ...]:
    """What a shipped pipeline is compared by, if there is a truth to its goal."""
    goal = Pipeline.from_yaml(pipeline).goal
    return ("chi",) if "chi" in goal else tuple(name for name in SOURCES if SOURCES[0] in goal)


def _quantities(method: str, mode: str) -> tuple[str, ...]:
    """What a method is compared by: both sources where it tells them apart."""
    if mode == "pipeline":
        return _aims(method.partition(".")[2])
    outputs = STAGES[method].outputs
    if outputs[0] == SOURCES[0]:
        return SOURCES
    return outputs[:1] if mode == "isolated" else ("chi",)


def run(case: Case, chosen: Iterable[str], keep: Sink) -> Iterator[Row]:
    """Every chosen method on a case; `keep` is given each row that has figures, with its map."""
    names = list(chosen)
    stages = [name for name in names if name in STAGES]
    for name in stages:
        yield from _rows(case, name, "isolated", lambda name=name: _isolated(case, name), keep)
    front = _Front(case)
    for name in stages:
        if family_of(name) in {*FRONT, "separation"}:
            yield from _rows(case, name, "composed", lambda name=name: front.composed(name), keep)
    for name in names:
        if name.startswith("pipeline."):
            yield from _rows(case, name, "pipeline", lambda name=name: _pipeline(case, name), keep)


def _rows(case: Case, method: str, mode: str, make: Callable[[], Mapping[str, Any]], keep: Sink) -> Iterator[Row]:
    """A row a quantity that the method is compared by; one alone if it fails."""
    quantities = _quantities(method, mode)
    about = (case.group, case.name, method, mode)
    unknown = [goal for goal in quantities if goal not in case.truth]
    if unknown:
        yield Row(*about, {}, reason=f"lacks the true {unknown[0]}", quantity=unknown[0])
        return
    started = time.process_time()
    try:
        outputs = make()
        seconds = time.process_time() - started
        made = [compare(case, goal, outputs, core=mode == "isolated" and goal == "local_field") for goal in quantities]
    except (QsmError, KeyError) as error:
        said = f"lacks {error.args[0]}" if isinstance(error, KeyError) else str(error)
        yield Row(*about, {}, reason=said, quantity=quantities[0])
        return
    for goal, (figures, found) in zip(quantities, made, strict=True):
        row = Row(*about, figures, seconds, quantity=goal)
        keep(row, found)
        yield row


def _isolated(case: Case, method: str) -> dict[str, Any]:
    step = _step(method)
    return _chain([step], {**case.known, **(two_maps(case) if "chi_filled" in step.required else {})})


def _step(name: str) -> Step:
    return read_step("accuracy", name)


def _chain(steps: Iterable[Step], have: dict[str, Any]) -> dict[str, Any]:
    """Run steps one after another; what they write replaces what there was."""
    for step in steps:
        for name in step.required:
            if name not in have:
                raise KeyError(name)
        have.update(call(step, [have.get(name) for name in step.inputs])[0])
    return have


class _Front:
    """The standard pipeline's steps from wrapped phase to susceptibility, with one method exchanged at a time.

    What has no place there is composed in the shipped pipeline that holds it.
    """

    def __init__(self, case: Case) -> None:
        slots = Pipeline.from_yaml(STANDARD).slots
        self._steps = [slot[0] for slot in slots if family_of(slot[0].stage) in FRONT]
        self._start = {**case.scan, "dseg": case.truth["dseg"], "mask": case.truth["mask"]}
        self._done: dict[str, dict[str, Any]] = {}
        self._made = {name for step in self._steps for name in step.outputs} | set(self._start)

    def composed(self, method: str) -> dict[str, Any]:
        family, step = family_of(method), _step(method)
        missing = set(step.required) - self._made
        if missing or family not in FRONT:
            return _chain(_way_to(method, missing), dict(self._start))
        rest = [later for later in self._steps if FRONT.index(family_of(later.stage)) > FRONT.index(family)]
        return _chain([step, *rest], dict(self._before(self._place(step))))

    def _place(self, step: Step) -> Step:
        """The standard's step in whose place a method begins: the first whose result it does not ask for."""
        reads = {"background": "unwrapped_phase", "inversion": "local_field"}
        family = family_of(step.stage)
        if family in reads and "total_field" in step.required:
            family = "background"
        elif family in reads and "phase" in step.required and reads[family] not in step.required:
            family = "unwrap"
        return next(found for found in self._steps if family_of(found.stage) == family)

    def _before(self, step: Step) -> dict[str, Any]:
        """What there is before a step of the standard; computed once."""
        if step.stage not in self._done:
            index = self._steps.index(step)
            have = self._start
            if index:
                have = _chain([self._steps[index - 1]], dict(self._before(self._steps[index - 1])))
            self._done[step.stage] = have
        return self._done[step.stage]


def _way_to(method: str, missing: Iterable[str]) -> list[Step]:
    """The steps of the shipped pipeline that holds a method up to it, without those that make the mask."""
    for name in resources.names("pipelines"):
        before: list[Step] = []
        for slot in Pipeline.from_yaml(name).slots:
            found = [step for step in slot if step.stage == method]
            if found:
                return [*before, found[0]]
            if family_of(slot[0].stage) != "mask" or "mask" not in slot[0].outputs:
                before.append(slot[0])
    raise KeyError(", ".join(sorted(missing)))


def _pipeline(case: Case, method: str) -> dict[str, Any]:
    pipeline = Pipeline.from_yaml(method.partition(".")[2])
    given = (name for name in (*RAW, "r2") if name in case.scan)
    have = {**{name: case.scan[name] for name in given}, "dseg": case.truth["dseg"]}
    plan = pipeline.plan(case.geometry, tuple(have))
    for result in plan.run(lambda _node, name: have.get(name), [node.name for node in plan.nodes]):
        have.update(result.outputs)
    return have


def compare(
    case: Case, goal: str, outputs: Mapping[str, Any], *, core: bool
) -> tuple[dict[str, float], NDArray[np.float64]]:
    """The figures of what was found, lost voxels counted as zero, and the map that they are about.

    Fields and susceptibility are compared without their means; rates, times and sources as they are.
    """
    found, whole = outputs[goal], case.truth["mask"]
    mask = case.core if core else whole
    kept = np.asarray(outputs["mask"]) & whole
    if goal == "unwrapped_phase":
        return _phase_figures(case, found, mask), (found[-1] - case.truth[goal][-1]).astype(np.float64) * mask
    if goal == "chi":
        kept &= found != 0.0
    one, truth = prepared(goal, found, mask, kept), prepared(goal, case.truth[goal], mask)
    figures = {
        "nrmse": metrics.nrmse(one, truth, mask),
        "detrended": metrics.detrended_nrmse(one, truth, mask),
        "correlation": metrics.correlation(one, truth, mask),
        "keeps": 100.0 * float(np.count_nonzero(kept) / np.count_nonzero(whole)),
    }
    if goal not in ABSOLUTE or goal in SOURCES:
        figures["rmse_ppb"] = PPB * float(np.sqrt(np.mean((one - truth)[mask] ** 2)))
        figures["xsim"] = metrics.xsim(one, truth, mask)
        figures["hfen"] = metrics.hfen(one, truth, mask)
    if goal == "chi" or goal in ABSOLUTE:
        figures["slope"] = metrics.linearity(one, truth, case.truth["dseg"], case.regions)
        figures["nrmse_core"] = _core_error(case, goal, one)
    if goal == "chi":
        figures["streak"] = metrics.streak(one, truth, case.source, mask)
    return figures, one


def prepared(
    goal: str, values: NDArray[Any], mask: NDArray[np.bool_], kept: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """A map as it is compared: without its mean, if that is arbitrary, and zero where it is lost."""
    if goal not in ABSOLUTE:
        return metrics.prepared(values, mask, kept)
    return np.where(mask if kept is None else mask & kept, values, 0.0).astype(np.float64)


def _core_error(case: Case, goal: str, found: NDArray[np.float64]) -> float:
    """NRMSE [%] away from the surface."""
    one, truth = (prepared(goal, part, case.core) for part in (found, case.truth[goal]))
    return metrics.nrmse(one, truth, case.core)


def _phase_figures(case: Case, found: NDArray[Any], mask: NDArray[np.bool_]) -> dict[str, float]:
    """Of unwrapped phase, echo by echo without its mean turn, which the echoes share no more than the truth does."""
    truth = case.truth["unwrapped_phase"]
    errors = [(one - other)[mask].astype(np.float64) for one, other in zip(found, truth, strict=True)]
    turns = [error - 2.0 * np.pi * np.rint(np.median(error) / (2.0 * np.pi)) for error in errors]
    away = [error - error.mean() for error in errors]
    size = [part[mask] - part[mask].mean(dtype=np.float64) for part in truth]
    wrong = np.mean([np.mean(np.abs(turn) > np.pi) for turn in turns])
    return {
        "nrmse": 100.0 * float(np.linalg.norm(np.concatenate(away)) / np.linalg.norm(np.concatenate(size))),
        "wrong_turns": 100.0 * float(wrong),
        "keeps": 100.0,
    }
