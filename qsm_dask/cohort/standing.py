"""Where every scan of a cohort stands, under the pipeline that the cohort has now.

The index knows what happened last to each node; a commit counts only under the key that
the present pipeline and the present inputs give it. So a table never mixes the results
of two pipelines: what another one made is pending until it is computed again.
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import pandas as pd

from qsm_dask.errors import ConfigError, DamageError
from qsm_dask.scan import Geometry, ScanKey
from qsm_dask.store import INGEST_KEY, CohortStore, Commit
from qsm_dask.store.documents import PIPELINE, read_json

STATES = ("failed", "pending", "skipped", "done")
"""Of a node and of a scan; a scan has the first of them that any of its nodes has."""


_READERS, _BATCH = 16, 256


class Planner(Protocol):
    """What is asked of a pipeline; `pipeline.Pipeline` is one."""

    def plan(self, geometry: Geometry, available: Collection[str]) -> Any:
        """What runs on one scan, as `pipeline.Plan` says it: nodes, left_out and digests."""


ReadPipeline = Callable[[Mapping[str, Any]], Planner]
"""`Pipeline.from_mapping`, handed in by the workflow: this module knows the store only."""


@dataclass(frozen=True)
class NodeState:
    """What became of one node of a scan.

    Attributes
    ----------
    node, state : its name, and one of `STATES`.
    key : of its commit.
    digest : of the outputs it committed; empty unless done.
    seconds, peak_bytes : what it cost.
    reason : why it is not done.
    warnings : what its result asks to be looked at.
    labels : names of the labels of a label image that it made.
    figures : what its stages told of their results, by stage.
    """

    node: str
    state: str
    key: str = ""
    digest: str = ""
    seconds: float = 0.0
    peak_bytes: int = 0
    reason: str = ""
    warnings: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Standing:
    """What became of one scan.

    Attributes
    ----------
    scan : its key.
    nodes : in order; those that the present pipeline runs on it.
    ingest : its ingest commit, None where there is none.
    made : quantity -> node that stores it.
    left_out : steps of the pipeline that do not run on it, each with the reason.
    plan : what the pipeline runs on it, as `pipeline.Plan`; None where there is none.
    """

    scan: ScanKey
    nodes: tuple[NodeState, ...]
    ingest: Commit | None = None
    made: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    plan: Any = None

    @property
    def state(self) -> str:
        """The scan's state: the first of `STATES` that one of its nodes has."""
        return min((node.state for node in self.nodes), key=STATES.index)

    @property
    def reason(self) -> str:
        """Why the scan is not done; empty if it is."""
        return next((node.reason for node in self.nodes if node.state == self.state), "")

    @property
    def sources(self) -> Mapping[str, Mapping[str, Any]]:
        """Where its ingested quantities came from."""
        found: Mapping[str, Mapping[str, Any]] = (
            {} if self.ingest is None else self.ingest.attributes.get("sources", {})
        )
        return found

    @property
    def labels(self) -> Mapping[str, str]:
        """Names of the labels of its label image: of the one that a step made, or of the one ingested."""
        made = next((node.labels for node in reversed(self.nodes) if node.labels), None)
        if made is not None:
            return made
        found: Mapping[str, str] = {} if self.ingest is None else self.ingest.attributes.get("labels", {})
        return found

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was noted when it was ingested and while it was processed."""
        noted = () if self.ingest is None else tuple(self.ingest.attributes.get("warnings", ()))
        return (*noted, *(warning for node in self.nodes for warning in node.warnings))

    def node(self, name: str) -> NodeState | None:
        """The state of one node; None if the pipeline does not run it on this scan."""
        return next((node for node in self.nodes if node.node == name), None)

    def commit(self, cohort: CohortStore, name: str) -> Commit | None:
        """The commit of a node that is done; None of another."""
        node = self.node(name)
        return None if node is None or node.state != "done" else cohort.commit(self.scan, name, node.key)


def standings(cohort: CohortStore, read_pipeline: ReadPipeline) -> Iterator[Standing]:
    """Where every scan stands under the cohort's own pipeline; see `standings_under`.

    Parameters
    ----------
    cohort : the store.
    read_pipeline : turns the document `PIPELINE` into a pipeline.
    """
    source = read_json(cohort, PIPELINE)
    yield from standings_under(cohort, None if source is None else read_pipeline(source))


def standings_under(cohort: CohortStore, pipeline: Planner | None) -> Iterator[Standing]:
    """Where every scan stands, sorted by scan; one small GET a scan, more where the index knows too little.

    Parameters
    ----------
    cohort : the store.
    pipeline : under which commits count; None where there was none yet.
    """
    index = cohort.index()
    names = [str(name) for name in index.columns]
    records = (dict(zip(names, values, strict=True)) for values in index.itertuples(index=False))
    rows = {(str(row["scan"]), str(row["node"])): row for row in records}
    # The index is a cache: a driver that was killed did not record its last scans.
    scans = sorted({ScanKey.parse(scan) for scan, _ in rows} | set(cohort.upkeep.unindexed(index)))
    with ThreadPoolExecutor(_READERS, "standing") as readers:  # an object store answers many at once as soon as one
        for start in range(0, len(scans), _BATCH):
            batch = scans[start : start + _BATCH]
            ingests = readers.map(partial(_ingest, cohort, rows), batch)
            for scan, ingest in zip(batch, ingests, strict=True):
                yield _standing(cohort, pipeline, scan, ingest, rows)


def _ingest(
    cohort: CohortStore, rows: Mapping[tuple[str, str], Mapping[str, Any]], scan: ScanKey
) -> Commit | NodeState:
    """The ingest commit of a scan, or why it has none that can be read."""
    row = rows.get((str(scan), "ingest"))
    if row is not None and row["state"] != "done":
        return _from_row(row)
    try:
        ingest = cohort.commit(scan, "ingest", INGEST_KEY)
    except DamageError as error:
        return NodeState("ingest", "failed", INGEST_KEY, reason=str(error))
    if ingest is None and row is None:
        return NodeState("ingest", "pending", reason="its ingest has not ended: run `qsm-dask ingest` again")
    return ingest or NodeState("ingest", "failed", reason="its ingest is gone: run `qsm-dask ingest` again")


def _standing(
    cohort: CohortStore,
    pipeline: Planner | None,
    scan: ScanKey,
    ingest: Commit | NodeState,
    rows: Mapping[tuple[str, str], Mapping[str, Any]],
) -> Standing:
    if isinstance(ingest, NodeState):
        return Standing(scan, (ingest,))
    first = _from_commit(ingest)
    if pipeline is None:
        return Standing(scan, (first, NodeState("field", "pending", reason="not processed yet")), ingest)
    digests = ingest.attributes["digests"]
    try:
        plan = pipeline.plan(Geometry.from_dict(ingest.attributes["geometry"]), digests)
    except ConfigError as error:
        return Standing(scan, (first, NodeState("field", "failed", reason=str(error))), ingest)
    nodes = [first]
    for name, key in plan.digests(digests).items():
        nodes.append(_node(cohort, scan, name, key, rows.get((str(scan), name)), nodes))
    made = {quantity: node.name for node in plan.nodes for quantity in node.stores}
    return Standing(scan, tuple(nodes), ingest, made, plan.left_out, plan)


def _node(
    cohort: CohortStore,
    scan: ScanKey,
    name: str,
    key: str,
    row: Mapping[str, Any] | None,
    before: Sequence[NodeState],
) -> NodeState:
    if row is not None and row["key"] == key and row["state"] == "done":
        return _from_row(row)
    try:
        commit = cohort.commit(scan, name, key)
    except DamageError as error:
        return NodeState(name, "failed", key, reason=str(error))
    if commit is not None:  # the index is a cache; the commit is the truth
        return _from_commit(commit)
    # an engine's failure (a worker died) has no key: it never came to the node's own work
    if row is not None and row["key"] in (key, "") and row["state"] != "done":
        return _from_row(row)
    obstacle = next((node for node in before if node.state != "done"), None)
    if obstacle is not None:
        return NodeState(name, "pending", key, reason=f"waits for {obstacle.node}, which is {obstacle.state}")
    return NodeState(name, "pending", key, reason="not computed with the present pipeline and inputs")


def _from_row(row: Mapping[str, Any]) -> NodeState:
    return NodeState(
        node=str(row["node"]),
        state=str(row["state"]),
        key=str(row["key"]),
        digest=str(row["digest"]),
        seconds=_number(row["seconds"]),
        peak_bytes=int(_number(row["peak_bytes"])),
        reason=str(row["reason"]),
        **_told(row["node"], json.loads(row["facts"])),
    )


def _from_commit(commit: Commit) -> NodeState:
    told = _told(commit.node, commit.row()["facts"])
    return NodeState(commit.node, "done", commit.key, commit.digest, commit.seconds, commit.peak_bytes, **told)


def _told(node: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a result says of itself; what an ingest says, `Standing` reads from its commit."""
    if node == "ingest":
        return {}
    told = {name: facts.get(name, {}) for name in ("labels", "figures")}
    return {**told, "warnings": tuple(facts.get("warnings", ()))}


def _number(value: Any) -> float:
    """A number of the index, where one that is missing is null."""
    return 0.0 if pd.isna(value) else float(value)
