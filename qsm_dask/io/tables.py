"""Tables as bytes: Parquet for programs, BIDS-style TSV for people and spreadsheets.

Both are byte-stable: the same rows give the same bytes.
"""

import io
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

MISSING = "n/a"
"""How BIDS writes a value that is missing."""


def parquet_bytes(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> bytes:
    """Write batches of rows as one Parquet file, a row group each.

    Parameters
    ----------
    batches : rows, taken one at a time.
    schema : their columns; metadata of columns is kept.

    Returns
    -------
    file : zstd-compressed Parquet.
    """
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)
    return bytes(sink.getvalue())


def frame_bytes(frame: pd.DataFrame) -> bytes:
    """Write a table without its index as a Parquet file; a column holds values of one type, or missing ones."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    return parquet_bytes(table.to_batches(), table.schema)


def read_parquet(
    data: bytes, columns: Sequence[str] | None = None, filters: Sequence[tuple[str, str, Any]] | None = None
) -> pd.DataFrame:
    """Read Parquet bytes.

    Parameters
    ----------
    data : the file.
    columns : the columns wanted; all when None.
    filters : conditions `(column, operator, value)` that rows meet, all of them.
    """
    table = pq.read_table(pa.BufferReader(data), columns=None if columns is None else list(columns), filters=filters)
    return pd.DataFrame(table.to_pandas())


def tsv_bytes(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """Write rows as tab-separated values with a header line.

    Missing values become `n/a`, reals keep nine significant digits (float32 loses
    nothing), and tabs or line ends inside a text become spaces: TSV has no quotes.
    """
    sink = io.StringIO()
    for line in _lines(columns, rows):
        sink.write(line)
    return sink.getvalue().encode()


def read_tsv(data: bytes) -> pd.DataFrame:
    """Read a table as BIDS has them, every cell as text; missing ones (`n/a`, or empty) are NaN."""
    return pd.read_csv(io.BytesIO(data), sep="\t", dtype=str, na_values=[MISSING, ""], keep_default_na=False)


def _lines(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    yield "\t".join(_cell(name) for name in columns) + "\n"
    for row in rows:
        yield "\t".join(_cell(value) for value in row) + "\n"


def _cell(value: Any) -> str:
    if value is None or value is pd.NA or value is pd.NaT:
        return MISSING
    if isinstance(value, str):
        return " ".join(value.split()) or MISSING
    if isinstance(value, float):  # NumPy's float64 is one
        return f"{value:.9g}" if math.isfinite(value) else MISSING
    return str(value)
