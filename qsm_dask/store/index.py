"""The cohort index: what happened to each node of each scan, in immutable Parquet segments.

The index is a cache; commits are the truth. Every driver appends segments under its own
name, so two drivers never write one object. Readers merge all segments and keep the
newest row of each (scan, node). When segments become many, whoever appends next merges
them: it writes one segment that holds them all, and only then removes them. A reader
lists until nobody has merged while it read; what others append meanwhile is met by the
next reader, so that hundreds of drivers do not keep one from ever ending.
"""

import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from qsm_dask.digests import canonical, checksum
from qsm_dask.errors import DamageError, StoreError
from qsm_dask.store.commit import plain
from qsm_dask.store.files import Files
from qsm_dask.store.layout import INDEX

STATES = ("done", "failed", "skipped")

SCHEMA = pa.schema(
    [
        ("scan", pa.string()),
        ("node", pa.string()),
        ("state", pa.string()),
        ("key", pa.string()),
        ("digest", pa.string()),
        ("seconds", pa.float64()),
        ("peak_bytes", pa.int64()),
        ("reason", pa.string()),
        ("facts", pa.string()),
        ("driver", pa.string()),
        ("time", pa.timestamp("us", tz="UTC")),
        ("n", pa.int64()),
    ]
)
"""`n` counts the rows of a driver: it orders those of one microsecond."""

_TEXTS = {"key": "", "digest": "", "reason": "", "facts": "{}"}
_MANY = 64
_PATIENCE = 20
_PAUSE_S = 0.2
_MERGED = "-merged-"
"""In the name of a segment that holds others: those may be gone."""


class Index:
    """The index of one cohort, as one driver sees and extends it.

    Parameters
    ----------
    files : the backend of the cohort.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self._driver = uuid4().hex
        self._segments = 0
        self._rows = 0
        self._forget()

    def _forget(self) -> None:
        """Hold nothing of what was read."""
        self._read: dict[str, pa.Table] = {}
        self._merged: tuple[tuple[str, ...], pd.DataFrame] = ((), _newest(SCHEMA.empty_table()))

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows as one new segment.

        Raises
        ------
        StoreError : a row lacks scan, node or state, or has a column or state that does not exist.
        """
        if not rows:
            return
        table = pa.Table.from_pylist([self._row(row) for row in rows], schema=SCHEMA)
        if self._segments % _MANY == 0 and len(self._names()) >= _MANY:
            self._compact()
        self._put(table)

    def _row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        unknown = [*(row.keys() - set(SCHEMA.names)), *({"scan", "node", "state"} - row.keys())]
        if unknown:
            raise StoreError(f"a row of the cohort index has {sorted(row)}; missing or unknown: {sorted(unknown)}")
        if row["state"] not in STATES:
            raise StoreError(f"{row['scan']} {row['node']}: state {row['state']!r} is none of {', '.join(STATES)}")
        self._rows += 1
        given = {name: value for name, value in row.items() if value is not None}
        return {
            **_TEXTS,
            "time": datetime.now(UTC),
            **given,
            "scan": str(row["scan"]),
            "facts": facts_text(row),
            "driver": self._driver,
            "n": self._rows,
        }

    def _put(self, table: pa.Table, kind: str = "-") -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        data = sink.getvalue().to_pybytes()
        # Parquet's own checksums leave out headers and footer: flipped bits there can change values unseen.
        self._files.put(f"{INDEX}/{self._driver}-{self._segments}{kind}{checksum(data)}.parquet", data)
        self._segments += 1

    def _compact(self) -> None:
        self._put(pa.Table.from_pandas(self.read(), schema=SCHEMA, preserve_index=False), _MERGED)
        # Only what the new segment holds may go: another driver may have added more by now.
        for name in self._merged[0]:
            self._files.remove(f"{INDEX}/{name}")
        self._forget()  # whoever appends seldom reads again, and a cohort's index is large
        pa.default_memory_pool().release_unused()

    def _names(self) -> list[str]:
        return [name for name in self._files.names(INDEX) if name.endswith(".parquet")]

    def _segment(self, name: str) -> pa.Table | None:
        data = self._files.get(f"{INDEX}/{name}")
        if data is None:
            return None
        if not name.endswith(f"-{checksum(data)}.parquet"):
            raise DamageError(
                f"{self._files.url}/{INDEX}/{name} is damaged: its checksum does not fit its name. The index is only a "
                f"cache: `qsm-dask verify {self._files.url} --repair` makes it anew from the commits"
            )
        return pq.read_table(pa.BufferReader(data)).cast(SCHEMA)

    def drop_damaged(self) -> list[str]:
        """Remove the segments that cannot be read; their names."""
        dropped = []
        for name in self._names():
            try:
                self._segment(name)
            except DamageError:
                self._files.remove(f"{INDEX}/{name}")
                dropped.append(name)
        self._forget()
        return dropped

    def read(self) -> pd.DataFrame:
        """The newest row of each (scan, node), sorted by them.

        Raises
        ------
        DamageError : a segment is torn or altered.
        """
        names = self._names()
        for _ in range(_PATIENCE):
            tables = {name: self._read[name] if name in self._read else self._segment(name) for name in names}
            self._read = {name: table for name, table in tables.items() if table is not None}
            # A listing is not one instant: it may have passed where a merged segment appeared, and met the merged ones
            # gone. Whatever a rival removed by then, the next listing shows what holds it.
            listed, names = names, self._names()
            merged = any(_MERGED in name for name in set(names).difference(listed))
            if len(self._read) == len(listed) and not merged:
                if self._merged[0] != tuple(listed):
                    tables_read = [SCHEMA.empty_table(), *self._read.values()]
                    self._merged = tuple(listed), _newest(pa.concat_tables(tables_read))
                return self._merged[1].copy()
            time.sleep(_PAUSE_S)
        raise StoreError(
            f"{self._files.url}/{INDEX} is merged faster than it can be read; are many drivers at work? Try again"
        )


def _newest(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
    frame = frame.sort_values(["scan", "node", "time", "n", "driver"], kind="stable")
    return frame.drop_duplicates(["scan", "node"], keep="last", ignore_index=True)


def facts_text(row: Mapping[str, Any]) -> str:
    """The facts of a row, as its column `facts` keeps them."""
    facts = row.get("facts") or {}
    return facts if isinstance(facts, str) else canonical(plain(facts)).decode()


def facts_of(text: str) -> dict[str, Any]:
    """The facts of an index row, from its column `facts`."""
    found = json.loads(text)
    return found if isinstance(found, dict) else {}
