"""Deterministic JSON, parquet and CSV (the same values give the same bytes), and digests."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq


def to_json(value: Any) -> bytes:
    """Return a value as JSON with sorted keys; equal values give equal bytes."""
    return (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def from_json(text: bytes) -> Any:
    """Return the value of a JSON text; raises ValueError if it is invalid or nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: Path) -> Any:
    """Return the value of a JSON file; raises ValueError if it is invalid."""
    return from_json(path.read_bytes())


def to_parquet(columns: Mapping[str, Any]) -> bytes:
    """Return a parquet file of the columns; equal values give equal bytes."""
    table = _table(columns)
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _table(columns: Mapping[str, Any]) -> pa.Table:
    return pa.table({name: _column(values) for name, values in columns.items()})


def _column(values: Any) -> pa.Array:
    """Return numbers or texts as an Arrow array.

    `pa.array` imports pandas to recognize a Series, which takes longer than writing the files of a small shrink.
    """
    types = set(map(type, values)) if isinstance(values, list) else set()
    if types == {str}:
        texts = [value.encode() for value in values]
        ends = np.cumsum([0, *map(len, texts)])
        if ends[-1] <= np.iinfo(np.int32).max:
            offsets, data = pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(b"".join(texts))
            return pa.StringArray.from_buffers(len(texts), offsets, data)
    if types in ({int}, {float}):
        values = np.array(values)
    if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "iuf":
        buffer = pa.py_buffer(np.ascontiguousarray(values))
        return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, buffer])
    return pa.array(values)


def to_parquet_parts(parts: Iterable[Mapping[str, Any]]) -> bytes:
    """Return a parquet file of parts with the same columns, written in order."""
    sink, writer = io.BytesIO(), None
    for part in parts:
        table = _table(part)
        writer = writer or pq.ParquetWriter(sink, table.schema, compression="zstd")
        writer.write_table(table)
    if writer is None:
        raise ValueError("a parquet file needs at least one part")
    writer.close()
    return sink.getvalue()


def to_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return a CSV file of rows with a header; floats at full precision, an empty cell for None."""
    sink = io.BytesIO()
    csv.write_csv(pa.Table.from_pylist(_filled(rows)), sink, csv.WriteOptions(quoting_style="needed"))
    return sink.getvalue()


def read_csv(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file written by `to_csv`, None for an empty cell."""
    rows: list[dict[str, Any]] = csv.read_csv(path).to_pylist()
    return rows


def to_markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table of texts, without a newline after the last row."""
    lines = [[cell.replace("|", "\\|") for cell in cells] for cells in (columns, ["---"] * len(columns), *rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def rows_to_parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return a parquet file of rows, null for the columns that a row lacks."""
    filled = _filled(rows)
    return to_parquet({name: [row[name] for row in filled] for name in filled[0]})


def _filled(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    names = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in names} for row in rows]


def sha256(data: bytes) -> str:
    """Return the hexadecimal digest."""
    return hashlib.sha256(data).hexdigest()


def digest(value: Any) -> str:
    """Return a digest of a JSON-serializable value."""
    return sha256(to_json(value))
