"""Free the space of what nobody will read: attempts that crashed, and results that others have replaced."""

from collections.abc import Callable
from dataclasses import dataclass

from qsm_dask.cohort.standing import standings
from qsm_dask.errors import ConfigError
from qsm_dask.pipeline import Pipeline
from qsm_dask.scan import ScanKey
from qsm_dask.store import CohortStore, Leftover

GRACE_H = 24.0
"""Hours for which what nobody names is left alone: longer than any scan is written."""


@dataclass(frozen=True)
class Summary:
    """What a run of `gc` found.

    Attributes
    ----------
    found : what may go, sorted by scan; then of the cohort cube.
    removed : whether it is gone.
    """

    found: tuple[Leftover, ...]
    removed: bool

    @property
    def size(self) -> int:
        """Of all that was found [bytes]."""
        return sum(one.size for one in self.found)


def run(
    cohort: CohortStore,
    *,
    older_than_h: float = GRACE_H,
    superseded: bool = False,
    delete: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> Summary:
    """Find what may go, and remove it if asked to.

    Parameters
    ----------
    cohort : the store; others may work on it meanwhile.
    older_than_h : what is younger [hours] stays: its writer may be at work.
    superseded : whether results of earlier pipelines and inputs may go too, of nodes whose present result is whole.
    delete : whether to remove what is found.
    progress : called with (scans looked through, scans in all, the scan's name).

    Raises
    ------
    ConfigError : the hours are negative.
    StoreError : the store cannot be listed, or something cannot be removed.
    """
    if not older_than_h >= 0:
        raise ConfigError(f"--older-than {older_than_h:g}: give hours, zero or more")
    replaced = _replaced(cohort) if superseded else {}
    scans = cohort.upkeep.stored_scans()
    found: list[Leftover] = []
    for count, scan in enumerate(scans, start=1):
        mine = cohort.upkeep.leftovers(scan, 3600.0 * older_than_h, replaced.get(scan, ()))
        if delete:
            for one in mine:
                cohort.upkeep.discard(one)
        found += mine
        if progress is not None:
            progress(count, len(scans), str(scan))
    for one in (cube := cohort.cubes.leftovers(3600.0 * older_than_h, superseded=superseded)):
        if delete:
            cohort.upkeep.discard(one)
    found += cube
    return Summary(tuple(found), delete)


def _replaced(cohort: CohortStore) -> dict[ScanKey, list[tuple[str, str]]]:
    """Commits of each scan in whose place the present pipeline's own is there, whole; the index names none of them."""
    index = cohort.index()
    named = set(zip(index["scan"], index["node"], index["key"], strict=True))
    replaced: dict[ScanKey, list[tuple[str, str]]] = {}
    for standing in standings(cohort, Pipeline.from_mapping):
        scan = standing.scan
        present = {
            node.node: node.key
            for node in standing.nodes
            if node.node != "ingest" and node.state == "done" and cohort.intact(scan, node.node, node.key) is not None
        }
        replaced[scan] = [
            (node, key)
            for node, key in cohort.committed(scan)
            if node in present and key != present[node] and (str(scan), node, key) not in named
        ]
    return replaced
