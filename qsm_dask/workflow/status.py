"""Where every scan of a cohort stands: rows for scripts and for the command line."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from qsm_dask.cohort.standing import standings
from qsm_dask.pipeline import Pipeline
from qsm_dask.store import CohortStore


@dataclass(frozen=True)
class Status:
    """What `run` found.

    Attributes
    ----------
    rows : one a scan and node: scan, node, state, digest, seconds, peak_bytes, reason. The
        states are those of `standing.STATES`; `digest` is of decoded outputs only.
    sources : one a scan and quantity: scan, quantity, from ("raw", "derivatives" or
        "computed"), files (what it was read from) and node (where it is stored).
    left_out : one a scan and step of the pipeline that does not run on it: scan, reason.
    warnings : one a scan and thing to look at, noted when it was ingested or processed: scan, reason.
    all_done : whether every scan is done or skipped.
    """

    rows: list[dict[str, Any]]
    sources: list[dict[str, Any]]
    left_out: list[dict[str, str]]
    warnings: list[dict[str, str]]
    all_done: bool

    def __repr__(self) -> str:
        """How many nodes are in which state."""
        states = Counter(row["state"] for row in self.rows)
        return f"Status({', '.join(f'{count} {state}' for state, count in sorted(states.items()))})"


def run(cohort: CohortStore) -> Status:
    """Look up where every scan stands under the pipeline that was run last; nothing is computed.

    Raises
    ------
    DamageError : the index or a commit cannot be read.
    """
    rows: list[dict[str, Any]] = []
    sources: list[dict[str, Any]] = []
    left_out: list[dict[str, str]] = []
    warnings: list[dict[str, str]] = []
    all_done = True
    for standing in standings(cohort, Pipeline.from_mapping):
        scan = str(standing.scan)
        all_done &= standing.state in ("done", "skipped")
        rows += [
            {
                "scan": scan,
                "node": node.node,
                "state": node.state,
                "digest": node.digest,
                "seconds": node.seconds,
                "peak_bytes": node.peak_bytes,
                "reason": node.reason,
            }
            for node in standing.nodes
        ]
        for name, source in standing.sources.items():
            found = {"from": source["from"], "files": list(source.get("files", ())), "node": "ingest"}
            sources.append({"scan": scan, "quantity": name, **found})
        for name, node_name in standing.made.items():
            if (made := standing.node(node_name)) is not None and made.state == "done":
                sources.append({"scan": scan, "quantity": name, "from": "computed", "files": [], "node": node_name})
        left_out += [{"scan": scan, "reason": reason} for reason in standing.left_out]
        warnings += [{"scan": scan, "reason": text} for text in standing.warnings]
    return Status(rows, sources, left_out, warnings, all_done)
