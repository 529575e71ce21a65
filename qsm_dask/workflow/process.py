"""Run a pipeline on every scan of a cohort: one task a scan, one commit a node."""

import json
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import scipy.fft

from qsm_dask import events
from qsm_dask.digests import checksum
from qsm_dask.engine.base import Engine, Outcome
from qsm_dask.engine.resources import PeakMemory
from qsm_dask.errors import ConfigError, DamageError, QsmError
from qsm_dask.io import atlas
from qsm_dask.io.documents import json_bytes
from qsm_dask.pipeline import NodeResult, Pipeline, Plan
from qsm_dask.provenance import software
from qsm_dask.quantities import COORDINATES
from qsm_dask.scan import Geometry, ScanKey
from qsm_dask.shard import Shard
from qsm_dask.store import INGEST_KEY, CohortStore, Commit, Recorder
from qsm_dask.store.documents import PIPELINE

Row = dict[str, Any]

_LOG = logging.getLogger(__name__)


@dataclass
class Summary:
    """What a run of `process` did.

    Attributes
    ----------
    done, skipped : scans.
    computed, reused : nodes committed by this run, and found committed already.
    without_labels : scans that have no label image, and so a whole-brain row only.
    failures : scan name to reason.
    """

    done: int = 0
    skipped: int = 0
    computed: int = 0
    reused: int = 0
    without_labels: int = 0
    failures: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Counts, and the first failure as an example."""
        first = next(iter(self.failures.items()), None)
        example = "" if first is None else f", as {first[0]}: {first[1]}"
        nodes = f"nodes computed={self.computed}, reused={self.reused}"
        return f"Summary(done={self.done}, skipped={self.skipped}, failed={len(self.failures)}{example}; {nodes})"


def run(
    cohort: CohortStore,
    engine: Engine,
    pipeline: Pipeline,
    *,
    participants: Sequence[str] = (),
    sessions: Sequence[str] = (),
    scans: Collection[ScanKey] | None = None,
    shard: Shard | None = None,
    retries: int = 1,
    timeout_s: float | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Summary:
    """Reconstruct every ingested scan; committed nodes are not computed again.

    Parameters
    ----------
    cohort : the store, already ingested.
    engine : where tasks run.
    pipeline : what they run.
    participants, sessions : labels to which the run is restricted; all when empty.
    scans : those to which it is restricted; all when None.
    shard : the part of all these that is run, the same whenever the same scans are ingested; all when None.
    retries : how often a task that failed with an unexpected error is tried again.
    timeout_s : seconds after which a scan is given up.
    progress : called with (scans finished, scans in all, the scan's name).

    Raises
    ------
    ConfigError : no scan was ingested, the filters match none, or a package that a step needs is not installed.
    """
    if Pipeline.from_mapping(pipeline.source) != pipeline:
        raise ConfigError(
            f"pipeline {pipeline.name} holds methods that workers do not know: add them to `stages.STAGES`"
        )
    pipeline = pipeline.settled(atlas.pin)
    summary = Summary()
    chosen = _chosen(cohort, participants, sessions, scans)
    plans, refused = _plans(chosen if shard is None else shard.of(chosen), pipeline, summary)
    engine.require({name: extra for plan in plans.values() for name, extra in plan.packages.items()})
    document = json_bytes(pipeline.source)
    before = cohort.read_document(PIPELINE)
    if before not in (None, document) and len(chosen) < len(cohort.scans()):
        _LOG.warning(
            "the cohort had another pipeline: its scans outside this selection are pending, and in no table, until "
            "they are processed with %s too", pipeline.name,
        )  # fmt: skip
    cohort.write_document(PIPELINE, document)
    task = partial(process_scan, cohort, dict(pipeline.source), checksum(document), engine.threads)
    outcomes = engine.map(task, plans, memory=partial(_projected, plans), retries=retries, timeout_s=timeout_s)
    with Recorder(cohort) as recorder:
        recorder.add(refused)
        for row in refused:
            events.tell(row)
        for count, outcome in enumerate(outcomes, start=1):
            recorder.add(_account(cohort, outcome, summary, plans))
            if progress is not None:
                progress(count, len(plans), str(outcome.key))
    return summary


def process_scan(
    cohort: CohortStore, source: Mapping[str, Any], pipeline_digest: str, threads: int, key: ScanKey
) -> list[Row]:
    """Run the nodes of one scan that are not committed yet; the task that workers execute.

    Returns one row a node, whose facts say under which pipeline and input it counts. A
    kernel's refusal is a row too; an unexpected error is raised, so that the engine may try
    again.
    """
    try:
        ingest = cohort.commit(key, "ingest", INGEST_KEY)
    except DamageError as error:
        return [_failed(key, "ingest", str(error))]
    if ingest is None:
        return [_failed(key, "ingest", "its ingest is gone: run `qsm-dask ingest` again")]
    digests = ingest.attributes["digests"]
    plan = Pipeline.from_mapping(source).plan(Geometry.from_dict(ingest.attributes["geometry"]), digests)
    keys = plan.digests(digests)
    commits = {node: cohort.intact(key, node, node_key) for node, node_key in keys.items()}
    missing = [node for node, commit in commits.items() if commit is None]
    run_facts = {"run": [pipeline_digest, ingest.digest]}
    rows = [_done(commit, run_facts, computed=False) for commit in commits.values() if commit is not None]
    commits["ingest"] = ingest
    peak = PeakMemory()
    with _threads(threads):
        results = plan.run(partial(_load, cohort, commits), missing, atlas.read)
        for node in missing:
            try:
                with peak:
                    result = next(results)
            except QsmError as error:
                rows.append(_failed(key, node, str(error), node_key=keys[node], peak_bytes=peak.bytes))
                break
            commit = _commit(cohort, key, keys[node], result, plan, peak.bytes)
            commits[node] = commit
            rows.append(_done(commit, run_facts, computed=True) | {"steps": result.steps})
    return rows


def _load(cohort: CohortStore, commits: Mapping[str, Commit | None], node: str, name: str) -> Any:
    """A quantity as a node committed it; None where the scan lacks it."""
    commit = commits.get(node)
    if commit is None:
        raise QsmError(f"{name} of the node {node} is not committed: run the same command again")
    if name in commit.arrays:
        return cohort.read(commit, (name,))[name]
    value = commit.attributes.get("header", {}).get(name)
    return np.asarray(value, dtype=np.float64) if isinstance(value, list) else value


def _done(commit: Commit, facts: Mapping[str, Any], *, computed: bool) -> Row:
    row = commit.row()
    return {**row, "facts": {**row["facts"], **facts}, "computed": computed}


def _commit(
    cohort: CohortStore, key: ScanKey, node_key: str, result: NodeResult, plan: Plan, peak_bytes: int
) -> Commit:
    warnings = [
        f"{step['stage']} stopped after {step['solved']['iterations']} iterations without converging"
        for step in result.steps
        if "solved" in step and not step["solved"]["converged"]
    ]
    warnings += [f"{step['stage']}: {warning}" for step in result.steps for warning in step.get("warnings", ())]
    facts: dict[str, Any] = {"left_out": list(plan.left_out), "warnings": warnings}
    figures = {step["stage"]: step["figures"] for step in result.steps if "figures" in step}
    labels = {label: name for step in result.steps for label, name in step.get("labels", {}).items()}
    return cohort.write(
        key,
        result.node,
        node_key,
        result.outputs,
        attributes={
            "facts": {**facts, **({"figures": figures} if figures else {}), **_maps_of(result)},
            **({"labels": labels} if labels else {}),
        },
        provenance={"steps": [dict(step) for step in result.steps], "software": software(), "time": time.time()},
        seconds=result.seconds,
        peak_bytes=peak_bytes,
    )


def _maps_of(result: NodeResult) -> dict[str, list[str]]:
    """Which maps the region values are of, for those who open a cohort without reading any."""
    values = result.outputs.get("region_values")
    if values is None:
        return {}
    return {"maps": [name for name, rows in zip(COORDINATES["map"], values, strict=True) if np.isfinite(rows).any()]}


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Bound the threads of transforms and of compiled loops; kernels never choose them."""
    import numba

    before = numba.get_num_threads()
    numba.set_num_threads(min(count, before))
    try:
        with scipy.fft.set_workers(count):
            yield
    finally:
        numba.set_num_threads(before)


def _failed(key: ScanKey, node: str, reason: str, **known: Any) -> Row:
    blank = {"key": known.pop("node_key", ""), "digest": "", "seconds": 0.0, "peak_bytes": 0, "facts": {}}
    return {"scan": str(key), "node": node, "state": "failed", "reason": reason, **blank, **known}


def _account(cohort: CohortStore, outcome: Outcome, summary: Summary, plans: Mapping[ScanKey, Plan]) -> list[Row]:
    """Count an outcome and turn it into the rows that the index keeps."""
    if outcome.ok:
        rows: list[Row] = outcome.value
    else:
        node, node_key = _unfinished(cohort, outcome.key, plans[outcome.key])
        rows = [_failed(outcome.key, node, outcome.error, node_key=node_key, seconds=outcome.seconds)]
    for row in rows:
        steps, computed = row.pop("steps", ()), row.pop("computed", False)
        if row["state"] == "failed":
            summary.failures[row["scan"]] = row["reason"]
        elif computed:
            summary.computed += 1
        else:
            summary.reused += 1
        told = row if computed or row["state"] == "failed" else {**row, "state": "found committed", "seconds": 0.0}
        events.tell(told, worker=outcome.worker, steps=steps)
    summary.done += all(row["state"] == "done" for row in rows)
    return rows


def _unfinished(cohort: CohortStore, key: ScanKey, plan: Plan) -> tuple[str, str]:
    """The node in which a scan's task ended that could not say so itself, and its key: the first without a commit."""
    ingest = cohort.intact(key, "ingest", INGEST_KEY)
    if ingest is None:
        return "ingest", INGEST_KEY
    keys = plan.digests(ingest.attributes["digests"])
    return next(
        ((node, k) for node, k in keys.items() if cohort.intact(key, node, k) is None), next(iter(keys.items()))
    )


def _projected(plans: Mapping[ScanKey, Plan], key: ScanKey) -> int:
    """Peak memory of the scan's pipeline [bytes], the process's own not included."""
    return plans[key].task_bytes()


def _chosen(
    cohort: CohortStore, participants: Collection[str], sessions: Collection[str], scans: Collection[ScanKey] | None
) -> list[tuple[ScanKey, Any]]:
    """Every ingested scan that the filters select, with its row of the index; those that can be processed first.

    A job array deals them out in this order, so that its parts are of one size.
    """
    cohort.upkeep.catch_up()
    index = cohort.index()
    ingested = index[index["node"] == "ingest"]
    if ingested.empty:
        raise ConfigError(f"{cohort.place} holds no scan yet: run `qsm-dask ingest BIDS {cohort.place}` first")
    chosen = [
        (key, record)
        for record in ingested.itertuples()
        if _selected(key := ScanKey.parse(str(record.scan)), participants, sessions)
    ]
    if not chosen:
        wanted = ", ".join((*participants, *sessions))
        raise ConfigError(f"no scan of {cohort.place} matches {wanted}: see `qsm-dask status {cohort.place}`")
    return sorted(
        ((key, record) for key, record in chosen if scans is None or key in scans),
        key=lambda one: (one[1].state != "done", one[0]),
    )


def _plans(
    chosen: Sequence[tuple[ScanKey, Any]], pipeline: Pipeline, summary: Summary
) -> tuple[dict[ScanKey, Plan], list[Row]]:
    """The plan of every scan, and rows for those that have none."""
    plans: dict[ScanKey, Plan] = {}
    refused: list[Row] = []
    for key, record in chosen:
        if record.state == "skipped":
            summary.skipped += 1
        elif record.state != "done":
            summary.failures[str(key)] = str(record.reason)
        else:
            facts = json.loads(str(record.facts))
            try:
                plans[key] = pipeline.plan(Geometry.from_dict(facts["geometry"]), facts["sources"])
                made = {name for node in plans[key].nodes for name in node.stores}
                summary.without_labels += not {"dseg", "probseg"} & (made | set(facts["sources"]))
            except ConfigError as error:
                summary.failures[str(key)] = str(error)
                refused.append(_failed(key, "field", str(error)))
    return plans, refused


def _selected(key: ScanKey, participants: Collection[str], sessions: Collection[str]) -> bool:
    by_subject = not participants or key.entities[0][1] in {p.removeprefix("sub-") for p in participants}
    by_session = not sessions or key.get("ses") in {s.removeprefix("ses-") for s in sessions}
    return by_subject and by_session
