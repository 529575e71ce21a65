"""The participants of a cohort beside its scans: who they are, who matches whom, and who does not."""

from collections.abc import Iterable
from typing import Any

import pandas as pd
from pandas.api.types import is_numeric_dtype

from qsm_dask.io.tables import frame_bytes, read_parquet
from qsm_dask.store import CohortStore
from qsm_dask.store.documents import PARTICIPANTS
from qsm_dask.wording import some

_NAMED = 5


def read(cohort: CohortStore) -> pd.DataFrame | None:
    """The participants table of a cohort, or None where its datasets have none."""
    document = cohort.read_document(PARTICIPANTS)
    return None if document is None else read_parquet(document)


def update(cohort: CohortStore, table: pd.DataFrame) -> None:
    """Take over the rows of a dataset's table; participants whom it does not name stay, as their scans do.

    A column that is text in one of the two tables and numbers in the other (`89+`) becomes text.
    """
    before = read(cohort)
    if before is not None:
        before = before[~before["participant_id"].isin(table["participant_id"])]
    if before is not None and len(before):
        for name in before.columns.intersection(table.columns):
            if is_numeric_dtype(before[name]) != is_numeric_dtype(table[name]):
                before, table = before.assign(**{name: _text(before[name])}), table.assign(**{name: _text(table[name])})
        table = pd.concat([table, before], ignore_index=True)
    cohort.write_document(PARTICIPANTS, frame_bytes(table.sort_values("participant_id", kind="stable")))


def _text(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """A column as text; 40.0, which stands for 40 where others are missing, is `40`."""
    return column.map(lambda value: f"{value:.15g}" if isinstance(value, float) else str(value), na_action="ignore")


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
        self._table = table

    @property
    def unambiguous(self) -> pd.DataFrame | None:
        """The table with one row a participant, without those whose rows differ; None where there is no table."""
        if self._table is None:
            return None
        return self._table[~self._table["participant_id"].isin(self._differ)].drop_duplicates("participant_id")

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

    def doubles(self) -> tuple[str, ...]:
        """Who stands in the table more than once."""
        found = []
        if self._differ:
            found.append(
                f"participants.tsv has rows that differ for {_named(self._differ)}: "
                "their columns are n/a; keep one row a participant"
            )
        if self._twice - self._differ:
            found.append(f"participants.tsv has the same row more than once for {_named(self._twice - self._differ)}")
        return tuple(found)

    def warnings(self) -> tuple[str, ...]:
        """What did not match, once every scan's subject has been asked for."""
        if self._table is None:
            return ()
        found = list(self.doubles())
        if self._missing:
            found.append(f"participants.tsv has no row for {_named(self._missing)}: their columns are n/a")
        if without := set(self._rows) - self._asked:
            found.append(f"no scan belongs to {_named(without)} of participants.tsv")
        return tuple(found)


def _named(subjects: Iterable[str]) -> str:
    return some(sorted(subjects), _NAMED)
