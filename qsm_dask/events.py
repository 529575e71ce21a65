"""What becomes of scans, as lines of the log: each carries the scan, the node and the step beside its text.

They are told at level INFO, failures at ERROR, by the logger `qsm_dask.events`; `--log` writes them to a
file, and a program may listen with a handler of its own.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

LOGGER = "qsm_dask.events"
FIELDS = ("scan", "node", "step", "state", "seconds", "worker")
"""What a line may carry; None where it does not apply."""

_LOG = logging.getLogger(LOGGER)


def tell(row: Mapping[str, Any], *, worker: str = "", steps: Sequence[Mapping[str, Any]] = ()) -> None:
    """Tell how a node of a scan ended, and each step that it ran.

    Parameters
    ----------
    row : of the cohort's index: `scan`, `node`, `state`, `reason`, `seconds`.
    worker : where it ran.
    steps : `stage` and `seconds` of what was run, in order.
    """
    facts = {"scan": row["scan"], "node": row["node"], "state": row["state"], "worker": worker or None}
    for step in steps:
        known = {**facts, "step": step["stage"], "seconds": step["seconds"]}
        _LOG.info("%s: %s took %.2f s", row["scan"], step["stage"], step["seconds"], extra=known)
    failed = row["state"] == "failed"
    how = f"failed: {row['reason']}" if failed else row["state"]
    level = logging.ERROR if failed else logging.INFO
    _LOG.log(level, "%s: %s %s", row["scan"], row["node"], how, extra={**facts, "seconds": row["seconds"]})
