"""What a scan's folder holds that nobody will read: attempts that were never committed, results that were replaced."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from qsm_dask.scan import ScanKey
from qsm_dask.store.commit import Commit
from qsm_dask.store.files import Files
from qsm_dask.store.layout import MARKER, NOTES, SCANS, SEGMENT, marker, node_folder


@dataclass(frozen=True)
class Leftover:
    """Something that may go.

    Attributes
    ----------
    scan, node, key : what it was made for; of the cohort cube no scan, and the map for a node.
    kind : `orphan` (no commit names it) or `superseded` (a commit that another has replaced).
    place : store key of its folder or file.
    size : of all its objects [bytes].
    age_s : of the newest of them [s], by the store's clock.
    """

    scan: ScanKey | None
    node: str
    key: str
    kind: Literal["orphan", "superseded"]
    place: str
    size: int
    age_s: float


def leftovers(
    files: Files, scan: ScanKey, older_than_s: float, replaced: Collection[tuple[str, str]] = ()
) -> list[Leftover]:
    """What may go of one scan.

    Parameters
    ----------
    files : the backend of the cohort.
    scan : whose folder to look through.
    older_than_s : younger objects stay: their writer may be at work.
    replaced : (node, key) of commits that may go, each with all its attempts.
    """
    top = f"{SCANS}/{scan}"
    ages = files.ages(top)  # before any commit is read: an attempt that is committed meanwhile is then seen to be named
    sizes = files.sizes(top)
    groups: dict[tuple[str, str], dict[str, list[str]]] = {}
    for item in ages:
        node, key, entry, *_ = [*item.removeprefix(f"{top}/").split("/"), "", ""]
        if entry:
            groups.setdefault((node, key), {}).setdefault(entry, []).append(item)

    def found(node: str, key: str, kind: Literal["orphan", "superseded"], place: str, items: list[str]) -> Leftover:
        size = sum(sizes.get(item, 0) for item in items)
        return Leftover(scan, node, key, kind, place, size, min(ages[item] for item in items))

    candidates = []
    for (node, key), entries in sorted(groups.items()):
        folder = node_folder(scan, node, key)
        if (node, key) in replaced:
            everything = [item for items in entries.values() for item in items]
            candidates.append(found(node, key, "superseded", folder, everything))
        elif (kept := _kept(files, scan, node, key)) is not None:
            candidates += [
                found(node, key, "orphan", f"{folder}/{entry}", items)
                for entry, items in sorted(entries.items())
                if entry not in kept
            ]
    return [one for one in candidates if one.age_s >= older_than_s]


def _kept(files: Files, scan: ScanKey, node: str, key: str) -> tuple[str, ...] | None:
    """The entries of a key's folder that count; None where its commit cannot be read, which `verify` tells."""
    data = files.get(marker(scan, node, key))
    if data is None:
        return ()
    try:
        attempt = Commit.from_json(data, (str(scan), node, key)).attempt
    except (ValueError, KeyError):
        return None
    return MARKER, attempt, f"{attempt}{NOTES}"


def discard(files: Files, leftover: Leftover) -> None:
    """Remove a leftover; of a commit its marker first, so that no reader meets one whose arrays are gone."""
    if leftover.kind == "superseded":
        files.remove(f"{leftover.place}/{MARKER if leftover.scan else SEGMENT}")
    files.remove(leftover.place)
