"""Tables as bytes, against what pandas reads back and against text written by hand."""

import io
import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from qsm_dask.io.tables import parquet_bytes, read_parquet, read_tsv, tsv_bytes

SCHEMA = pa.schema([("scan", pa.string()), ("value", pa.float64())])


def batches() -> list[pa.RecordBatch]:
    first = pa.record_batch([["a", "b"], [0.5, None]], schema=SCHEMA)
    return [first, pa.record_batch([["c"], [2.0]], schema=SCHEMA)]


def test_tsv_is_what_bids_asks_for() -> None:
    rows = [
        ["sub-01", 0.1, 3, None],
        ["sub-02", math.nan, np.float64(1e-7), "two\twords\nhere"],
        ["", True, pd.NA, -0.0],
    ]
    text = tsv_bytes(["scan", "x", "n", "note"], rows).decode()
    assert text == ("scan\tx\tn\tnote\nsub-01\t0.1\t3\tn/a\nsub-02\tn/a\t1e-07\ttwo words here\nn/a\tTrue\tn/a\t-0\n")


def test_nine_digits_bring_every_float32_back() -> None:
    values = np.random.default_rng(1).normal(size=500).astype(np.float32)
    text = tsv_bytes(["x"], [[float(v)] for v in values])
    back = pd.read_csv(io.BytesIO(text), sep="\t")["x"].to_numpy(np.float32)
    assert np.array_equal(back, values)


def test_parquet_keeps_rows_nulls_and_one_group_a_batch() -> None:
    data = parquet_bytes(batches(), SCHEMA)
    table = pq.read_table(pa.BufferReader(data))
    assert table.to_pydict() == {"scan": ["a", "b", "c"], "value": [0.5, None, 2.0]}
    assert pq.ParquetFile(pa.BufferReader(data)).num_row_groups == 2
    assert parquet_bytes(batches(), SCHEMA) == data


def test_reading_part_of_a_parquet_file() -> None:
    found = read_parquet(parquet_bytes(batches(), SCHEMA), columns=("scan",), filters=[("value", ">", 1.0)])
    assert found.to_dict("list") == {"scan": ["c"]}


def test_reading_a_tsv_back_keeps_texts_as_they_are() -> None:
    found = read_tsv(tsv_bytes(["scan", "code"], [["sub-01", "007"], ["sub-02", None], ["sub-03", "NA"]]))
    assert found["code"].tolist()[::2] == ["007", "NA"]
    assert found["code"].isna().tolist() == [False, True, False]


def test_tables_of_others_may_leave_cells_empty_and_begin_with_a_mark() -> None:
    """Spreadsheets write a byte order mark; `NA` is a name, `01` a code, and only `n/a` or nothing is missing."""
    table = read_tsv(b"\xef\xbb\xbfname\tcode\tage\nNA\t01\t\nb\tn/a\t7\n")
    found = {name: table[name].fillna("missing").tolist() for name in table}
    assert found == {"name": ["NA", "b"], "code": ["01", "missing"], "age": ["missing", "7"]}
