"""Withdraw damaged commits, so that their nodes count as not done and are computed anew."""

from collections.abc import Iterable
from dataclasses import dataclass

from qsm_dask.pipeline import Pipeline
from qsm_dask.scan import ScanKey
from qsm_dask.store import CohortStore, Recorder
from qsm_dask.store.documents import PIPELINE, read_json
from qsm_dask.store.layout import CUBE

_AGAIN = "it was damaged and is withdrawn; run the same command again to compute it anew"
_INGEST_AGAIN = (
    "its ingest was damaged and is withdrawn: run the same `qsm-dask run` or `ingest` again to read it from the dataset"
)


@dataclass(frozen=True)
class Summary:
    """What a run of `repair` withdrew.

    Attributes
    ----------
    commits : how many.
    segments : of cubes, how many; their scans are to be appended again.
    scans : scans to process again, sorted; their ingest is whole.
    failures : reason by scan, of those whose ingest was withdrawn: only the dataset has what they need.
    pipeline : the one that the cohort names, with which to process; None if none was run yet.
    """

    commits: int
    segments: int
    scans: tuple[ScanKey, ...]
    failures: dict[str, str]
    pipeline: Pipeline | None


def run(cohort: CohortStore, damaged: Iterable[tuple[str, str, str]]) -> Summary:
    """Remove the commits of damaged nodes, and nothing else: what is whole stays, and `gc` sweeps the arrays.

    Parameters
    ----------
    cohort : the store.
    damaged : scan, node and key, as `verify` names them; repetitions do no harm.

    Raises
    ------
    StoreError : a commit cannot be removed.
    """
    index = cohort.index()
    named = set(zip(index["scan"], index["node"], index["key"], strict=True))
    nodes = sorted(set(damaged))
    segments = [(name, key) for scan, name, key in nodes if scan == CUBE]
    for name, key in segments:
        cohort.cubes.withdraw(name, key)
    nodes = [one for one in nodes if one[0] != CUBE]
    failures = {scan: _INGEST_AGAIN for scan, node, _ in nodes if node == "ingest"}
    with Recorder(cohort) as recorder:
        for scan, node, key in nodes:
            cohort.upkeep.withdraw(ScanKey.parse(scan), node, key)
            if (scan, node, key) in named:  # else the index speaks of a newer result, which stays
                reason = _INGEST_AGAIN if node == "ingest" else _AGAIN
                recorder.add([{"scan": scan, "node": node, "state": "failed", "key": key, "reason": reason}])
    source = read_json(cohort, PIPELINE)
    again = {ScanKey.parse(scan) for scan, _, _ in nodes if scan not in failures}
    pipeline = None if source is None else Pipeline.from_mapping(source)
    return Summary(len(nodes), len(segments), tuple(sorted(again)), failures, pipeline)
