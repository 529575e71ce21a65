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
from tests.benchmarks.accuracy.cases import Case

FAMILIES = ("inversion", "background", "unwrap", "field", "relaxometry")
FRONT = ("offset", "unwrap", "field", "background", "inversion")
STANDARD = "consensus"
PPB = 1000.0

Sink = Callable[[str, str, NDArray[np.float64]], None]


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
    """

    group: str
    case: str
    method: str
    mode: str
    figures: Mapping[str, float]
    seconds: float = 0.0
    reason: str = ""

    def plain(self) -> dict[str, Any]:
        """Values for JSON."""
        return asdict(self)


def family_of(method: str) -> str:
    """`inversion` of `inversion.tkd`."""
    return method.partition(".")[0]


def methods(patterns: Sequence[str]) -> list[str]:
    """The stages of the table that have a truth to be compared with, and the shipped pipelines."""
    known = [name for family in FAMILIES for name in STAGES if family_of(name) == family]
    known += [f"pipeline.{name}" for name in resources.names("pipelines") if "chi" in Pipeline.from_yaml(name).goal]
    return [name for name in known if any(fnmatch(name, f"*{pattern}*") for pattern in patterns)]


def run(case: Case, chosen: Iterable[str], keep: Sink) -> Iterator[Row]:
    """Every chosen method on a case; `keep` is given each map, by mode and method."""
    names = list(chosen)
    stages = [name for name in names if name in STAGES]
    for name in stages:
        yield _row(case, name, "isolated", lambda name=name: _chain([_step(name)], dict(case.known)), keep)
    front = _Front(case)
    for name in stages:
        if family_of(name) in FRONT:
            yield _row(case, name, "composed", lambda name=name: front.composed(name), keep)
    for name in names:
        if name.startswith("pipeline."):
            yield _row(case, name, "pipeline", lambda name=name: _pipeline(case, name), keep)


def _row(case: Case, method: str, mode: str, make: Callable[[], Mapping[str, Any]], keep: Sink) -> Row:
    started = time.process_time()
    try:
        outputs = make()
        seconds = time.process_time() - started
        goal = STAGES[method].outputs[0] if mode == "isolated" else "chi"
        figures, found = compare(case, goal, outputs, core=mode == "isolated" and goal == "local_field")
    except (QsmError, KeyError) as error:
        said = f"lacks {error.args[0]}" if isinstance(error, KeyError) else str(error)
        return Row(case.group, case.name, method, mode, {}, reason=said)
    keep(mode, method, found)
    return Row(case.group, case.name, method, mode, figures, seconds)


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
    """The standard pipeline's steps from wrapped phase to susceptibility, with one method exchanged at a time."""

    def __init__(self, case: Case) -> None:
        slots = Pipeline.from_yaml(STANDARD).slots
        self._steps = [slot[0] for slot in slots if family_of(slot[0].stage) in FRONT]
        self._start = {**case.scan, "dseg": case.truth["dseg"], "mask": case.truth["mask"]}
        self._done: dict[str, dict[str, Any]] = {}

    def composed(self, method: str) -> dict[str, Any]:
        family, step = family_of(method), _step(method)
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


def _pipeline(case: Case, method: str) -> dict[str, Any]:
    pipeline = Pipeline.from_yaml(method.partition(".")[2])
    have = {**{name: case.scan[name] for name in RAW}, "dseg": case.truth["dseg"]}
    plan = pipeline.plan(case.geometry, tuple(have))
    for result in plan.run(lambda _node, name: have.get(name), [node.name for node in plan.nodes]):
        have.update(result.outputs)
    return have


def compare(
    case: Case, goal: str, outputs: Mapping[str, Any], *, core: bool
) -> tuple[dict[str, float], NDArray[np.float64]]:
    """The figures of what was found, lost voxels counted as zero, and the map that they are about.

    Fields and susceptibility are compared without their means; rates and times as they are.
    """
    found, whole = outputs[goal], case.truth["mask"]
    mask = case.core if core else whole
    kept = np.asarray(outputs["mask"]) & whole
    if goal == "unwrapped_phase":
        return _phase_figures(case, found, mask), (found[-1] - case.truth[goal][-1]).astype(np.float64) * mask
    if goal == "chi":
        kept &= found != 0.0
    absolute = goal in {"r2star", "t2star"}
    if absolute:
        one, truth = (np.where(mask, part, 0.0).astype(np.float64) for part in (found, case.truth[goal]))
    else:
        one, truth = metrics.prepared(found, mask, kept), metrics.prepared(case.truth[goal], mask)
    figures = {
        "nrmse": metrics.nrmse(one, truth, mask),
        "detrended": metrics.detrended_nrmse(one, truth, mask),
        "correlation": metrics.correlation(one, truth, mask),
        "keeps": 100.0 * float(np.count_nonzero(kept) / np.count_nonzero(whole)),
    }
    if not absolute:
        figures["rmse_ppb"] = PPB * float(np.sqrt(np.mean((one - truth)[mask] ** 2)))
        figures["xsim"] = metrics.xsim(one, truth, mask)
        figures["hfen"] = metrics.hfen(one, truth, mask)
    if goal == "chi":
        figures["slope"] = metrics.linearity(one, truth, case.truth["dseg"], case.regions)
        figures["nrmse_core"] = _core_error(case, one)
        figures["streak"] = metrics.streak(one, truth, case.source, mask)
    return figures, one


def _core_error(case: Case, found: NDArray[np.float64]) -> float:
    """NRMSE of susceptibility [%] away from the surface, both without their mean there."""
    one, truth = (metrics.prepared(part, case.core) for part in (found, case.truth["chi"]))
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
