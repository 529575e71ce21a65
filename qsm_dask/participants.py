"""The participants of a dataset beside its scans: who matches whom, and who does not."""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

_NAMED = 5


class Participants:
    """A participants table, looked up by subject; what does not match is kept to be told.

    Parameters
    ----------
    table : with a column participant_id (`sub-01`); None where the dataset has none.
    taken : names of columns that a joined table has already; a participants column of one
        of these names gets the prefix `participant_`.
    """

    def __init__(self, table: pd.DataFrame | None, taken: Iterable[str] = ()) -> None:
        self._taken = frozenset(taken)
        self._rows: dict[str, tuple[Any, ...]] = {}
        self._asked: set[str] = set()
        self._missing: set[str] = set()
        self._twice: set[str] = set()
        self._differ: set[str] = set()
        self.exists = table is not None
        frame = pd.DataFrame({"participant_id": []}) if table is None else table
        names = [str(name) for name in frame.columns if name != "participant_id"]
        self.columns = tuple(f"participant_{name}" if name in self._taken else name for name in names)
        identifiers = frame["participant_id"].astype(str)
        for subject, row in zip(identifiers, frame[names].itertuples(index=False), strict=True):
            values = tuple(None if pd.isna(value) else value for value in row)
            if subject in self._rows:
                self._twice.add(subject)
                if self._rows[subject] != values:
                    self._differ.add(subject)
            self._rows.setdefault(subject, values)
        self._nothing = (None,) * len(names)

    def state(self, subject: str) -> str:
        """`matched`, `missing` (no row) or `ambiguous` (rows that differ)."""
        if subject in self._differ:
            return "ambiguous"
        return "matched" if subject in self._rows else "missing"

    def values(self, subject: str) -> tuple[Any, ...]:
        """The columns of a subject; None throughout where there is not one answer."""
        self._asked.add(subject)
        state = self.state(subject)
        if state == "missing":
            self._missing.add(subject)
        return self._rows[subject] if state == "matched" else self._nothing

    def warnings(self) -> tuple[str, ...]:
        """What did not match, once every scan's subject has been asked for."""
        found = []
        if not self.exists:
            return ()
        if self._missing:
            found.append(f"participants.tsv has no row for {_named(self._missing)}: their columns are n/a")
        if self._differ:
            found.append(
                f"participants.tsv has rows that differ for {_named(self._differ)}: "
                "their columns are n/a; keep one row a participant"
            )
        if self._twice - self._differ:
            found.append(f"participants.tsv has the same row more than once for {_named(self._twice - self._differ)}")
        if without := set(self._rows) - self._asked:
            found.append(f"no scan belongs to {_named(without)} of participants.tsv")
        return tuple(found)


def _named(subjects: Iterable[str]) -> str:
    """Some names, and how many more."""
    ordered: Sequence[str] = sorted(subjects)
    more = len(ordered) - _NAMED
    return ", ".join(ordered[:_NAMED]) + (f" and {more} more" if more > 0 else "")
