"""Files of labels as columns of text: CSV in the forms that people have it, and parquet."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lissnas.core.errors import ConfigError, first_line, short
from lissnas.core.memory_limit import limit_memory

MAX_PROBLEMS = 20
"""Problems listed in a message; more are counted."""
MAX_ROWS = 2_000_000
"""Maximum rows of a parquet file, in which repeated values take almost no space."""
MAX_CELLS = 50_000_000
"""Maximum cells of a parquet file."""
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
"""Characters that can separate the columns of a CSV file."""
COMMENT = "#"
"""The first character of a line that is not read."""
LINE_BREAK = re.compile(r"\r\n|\r|\n")
OTHER_FILES = {
    b"PK\x03\x04": "a zip archive or an Excel workbook; export it as CSV",
    b"\x1f\x8b": "compressed by gzip; decompress it",
}
"""The first bytes of files of other kinds, and what these are."""
OTHER_ENDINGS = {
    (".gz", ".bz2", ".xz", ".zst", ".zip"): "decompress it",
    (".xlsx", ".xls", ".ods"): "export the sheet as CSV",
    (".json", ".jsonl", ".pkl", ".pickle", ".feather", ".tsv", ".txt"): "convert it, for example with pandas' to_csv",
}
"""Endings of files of other kinds, and what to do with these."""
MARKED = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
"""Byte order marks of other encodings."""


@dataclass
class Table:
    """A file as columns of text, the problems found in it so far, and notes on how it was read."""

    path: Path
    columns: dict[str, list[str]]
    lines: Sequence[int]
    """The line of each row; for parquet, the row number counted from 1."""
    problems: list[tuple[int, str]] = field(default_factory=list)
    """Line (1 for the whole file) and what is wrong."""
    notes: list[str] = field(default_factory=list)
    by_row: bool = False
    """Whether places are row numbers instead of lines."""

    def add_problem(self, row: int | None, what: str) -> None:
        """Add a problem of a row, or of the whole file if `row` is None."""
        self.problems.append((1 if row is None else self.lines[row], what))

    def place(self, row: int) -> str:
        """Return where a row is, e.g. `line 7`."""
        return f"{'row' if self.by_row else 'line'} {self.lines[row]}"

    def raise_any(self) -> None:
        """Raise ConfigError if there are problems, with the first ones by line and the number of the others."""
        if self.problems:
            prefix = f"{self.path.name}:" + ("row " if self.by_row else "")
            listed = [f"{prefix}{line}: {what}" for line, what in sorted(self.problems)]
            more = len(listed) - MAX_PROBLEMS
            raise ConfigError(str(self.path), listed[:MAX_PROBLEMS] + ([f"and {more:,} more"] if more > 0 else []))

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all other rows."""
        if len(rows) < len(self.lines):
            self.columns = {name: [cells[i] for i in rows] for name, cells in self.columns.items()}
            self.lines = [self.lines[i] for i in rows]


def read_table(path: Path, known: Collection[str], comments: bool = True) -> Table:
    """Return the cells of a file as text; raises ConfigError if it can't be read.

    `known` are names of columns: the delimiter is the one that separates most of them in the header. Texts are
    normalized (NFC) and stripped; rows and unnamed columns without any text are dropped, as are repeated headers
    and, unless `comments` is False, lines that start with `#`.
    """
    kind = path.suffix.lower()
    if kind not in (".csv", ".parquet"):
        fix = next((f"; {fix}" for endings, fix in OTHER_ENDINGS.items() if kind in endings), "")
        raise ConfigError(str(path), [f"{path.name}: expected a file that ends in .csv or .parquet{fix}"])
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(str(path), ["no such file"]) from None
    except OSError as error:
        raise ConfigError(str(path), [f"can't be read: {error.strerror}"]) from None
    is_parquet = kind == ".parquet" or (data.startswith(b"PAR1") and data.endswith(b"PAR1"))
    table = read_parquet(path, data) if is_parquet else read_csv(path, data, known, comments)
    if kind == ".csv" and is_parquet:
        table.notes.append("the file is parquet, not CSV, and was read so")
    if not table.lines and not table.problems:
        table.add_problem(None, "the file has no rows")
    return table


# -- CSV ---------------------------------------------------------------------------------------------
def read_csv(path: Path, data: bytes, known: Collection[str], comments: bool = True) -> Table:
    """Return the cells of a CSV file as text."""
    text = unicodedata.normalize("NFC", _decoded(path, data))
    text, skipped, delimiter = _without_preamble(text)
    if not text:
        raise ConfigError(str(path), [f"{path.name}:1: the file is empty"])
    table = Table(path, {}, [])
    if delimiter is None:
        delimiter = max(DELIMITERS, key=lambda d: _n_known(text, d, known))
    if delimiter != ",":
        table.notes.append(f"columns are separated by {DELIMITERS.get(delimiter, repr(delimiter))}")
    _check_quotes(path, text, delimiter, skipped)
    cells, invalid = _parsed(path, text, delimiter)
    header = [name.strip() for name in next(zip(*cells, strict=True))]
    lines = _lines_of_rows(text, cells, invalid, skipped)
    wrong = {number for number, _, _ in invalid}
    table.lines = [line for i, line in lines.items() if i not in wrong][1:]
    table.problems += _duplicates([name for name in header if name])
    columns = [[cell.strip() for cell in column[1:]] for column in cells]
    named = [(n, c) for n, c in zip(header, columns, strict=True) if n or any(c)]
    table.columns = dict(named)
    kept = [i for i, cell in enumerate(columns[0]) if not (comments and cell.startswith(COMMENT))]
    n_comments = len(table.lines) - len(kept)
    table.keep(kept)
    for number, width, row in invalid:
        if comments and row.lstrip().startswith(COMMENT):
            n_comments += 1
            continue
        found = {cell.strip() for cell in row.split(delimiter)}
        what = f"{width:,} cells, where the header has {len(header):,}"
        what = f"a second header, of other columns ({what})" if found <= {*header} else what
        table.problems.append((lines[number], what))
    if n_comments:
        table.notes.append(f"{n_comments:,} comment line{'s' if n_comments > 1 else ''} left out")
    _drop_headers(table, header)
    table.keep([i for i, row in enumerate(zip(*table.columns.values(), strict=True)) if any(row)])
    return table


def _decoded(path: Path, data: bytes) -> str:
    other = next((what for start, what in OTHER_FILES.items() if data.startswith(start)), "")
    if other:
        raise ConfigError(str(path), [f"{path.name}:1: not CSV: the file is {other}"])
    encoding = next((name for mark, name in MARKED.items() if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        what = f"not {encoding.upper()}; save the file as UTF-8"
        raise ConfigError(str(path), [f"{path.name}:{line}: {what}"]) from None


def _without_preamble(text: str) -> tuple[str, int, str | None]:
    """Return the text from its header on, the number of lines before it, and the delimiter of a line `sep=;`."""
    skipped, delimiter = 0, None
    while text:
        line = LINE_BREAK.split(text, maxsplit=1)[0]
        declared = re.fullmatch(r"\s*\"?sep=(.)\"?\s*", line)
        if declared:
            delimiter = declared[1]
        elif line.strip(" \t,;") and not line.lstrip().startswith(COMMENT):
            break
        text = text[len(line) :]
        ending = LINE_BREAK.match(text)
        text, skipped = text[ending.end() if ending else 0 :], skipped + 1
    return text, skipped, delimiter


def _n_known(text: str, delimiter: str, known: Collection[str]) -> int:
    """Return how many columns of the header are known if they are separated by `delimiter`."""
    line = LINE_BREAK.split(text, maxsplit=1)[0]
    names = {name.strip(' \t"').casefold() for name in line.split(delimiter)}
    return len(names & {name.casefold() for name in known})


def _check_quotes(path: Path, text: str, delimiter: str, skipped: int) -> None:
    """Raise ConfigError for quotes that don't match, which pyarrow accepts: `"2"1` would be 21."""
    if '"' not in text:
        return
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for _ in reader:
            pass
    except csv.Error as error:
        raise ConfigError(str(path), [f"{path.name}:{skipped + reader.line_num}: not CSV: {error}"]) from None


def _parsed(path: Path, text: str, delimiter: str) -> tuple[list[list[str]], list[tuple[int, int, str]]]:
    """Return the columns, header included, and the rows of another width: number from 1, cells and text."""
    import pyarrow.csv  # few commands need it

    invalid: list[tuple[int, int, str]] = []

    def skip(row: pyarrow.csv.InvalidRow) -> str:
        invalid.append((row.number, row.actual_columns, row.text))
        return "skip"

    data = f"{text.rstrip(chr(10))}\n".encode()
    width = max(LINE_BREAK.split(text, maxsplit=1)[0].count(delimiter), text[:65_536].count(delimiter)) + 1
    names = [f"f{i}" for i in range(width)]
    try:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(data),
            pyarrow.csv.ReadOptions(use_threads=False, block_size=len(data) + 1, autogenerate_column_names=True),
            pyarrow.csv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, ignore_empty_lines=False, invalid_row_handler=skip
            ),
            pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), null_values=[]),
        )
    except (pa.ArrowException, OverflowError) as error:
        raise ConfigError(str(path), [f"{path.name}:1: not CSV: {first_line(error)}"]) from None
    return [column.to_pylist() for column in table.columns], invalid


def _lines_of_rows(
    text: str, cells: list[list[str]], invalid: list[tuple[int, int, str]], skipped: int
) -> dict[int, int]:
    """Return the line of each row by its number, the last line if a cell has line breaks."""
    wrong = {number: row for number, _, row in invalid}
    n = len(cells[0]) + len(wrong)
    if '"' not in text:
        return {i: skipped + i for i in range(1, n + 1)}
    valid = (i for i in range(1, n + 1) if i not in wrong)
    texts = wrong | {i: "".join(row) for i, row in zip(valid, zip(*cells, strict=True), strict=True)}
    more = accumulate(len(LINE_BREAK.findall(texts[i])) for i in range(1, n + 1))
    return {i: skipped + i + breaks for i, breaks in enumerate(more, 1)}


def _drop_headers(table: Table, header: Sequence[str]) -> None:
    """Drop rows that repeat the header; one in another order is a problem."""
    names = [*table.columns]
    kept, dropped = [], 0
    for i, row in enumerate(zip(*table.columns.values(), strict=True)):
        repeats = [*row] == names
        dropped += repeats
        if not repeats:
            kept.append(i)
        if not repeats and len(names) > 1 and sorted(row) == sorted(names):
            table.add_problem(i, "a second header, with the columns in another order")
    if dropped:
        table.keep(kept)
        table.notes.append(f"{dropped:,} repeated header{'s' if dropped > 1 else ''} left out")


# -- parquet -----------------------------------------------------------------------------------------
def read_parquet(path: Path, data: bytes) -> Table:
    """Return the cells of a parquet file as text: null as empty text, nested values as their type."""
    columns: dict[str, list[str]] = {}
    name = ""
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        rows, wide, schema = file.metadata.num_rows, file.metadata.num_columns, file.schema_arrow
        if not 0 <= rows <= MAX_ROWS or rows * wide > MAX_CELLS:
            size = f"{rows:,} rows of {wide:,} columns"
            limit = f"{MAX_ROWS:,} rows and {MAX_CELLS:,} cells"
            raise ConfigError(str(path), [f"{path.name}: {size}, at most {limit} are read"])
        # A dictionary stores a repeated text in memory only once.
        texts = [f.name for f in schema if pa.types.is_string(f.type) or pa.types.is_binary(f.type)]
        file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=texts)
        with limit_memory(len(data) + rows * wide):
            table = file.read([f.name for f in schema if not _is_nested(f.type)], use_threads=False)
            table.validate(full=True)  # the reader accepts dictionaries that lack the values of their rows
            if table.num_columns and table.num_rows != rows:
                found = f"{table.num_rows:,} rows, but its footer has {rows:,}"
                raise ConfigError(str(path), [f"{path.name}: {found}"])
            for name, column in zip(table.column_names, table.columns, strict=True):
                columns[unicodedata.normalize("NFC", name.strip())] = _texts(column)
            columns |= {
                unicodedata.normalize("NFC", f.name.strip()): [f"<{f.type}>"] * rows
                for f in schema
                if _is_nested(f.type)
            }
    except MemoryError:
        raise ConfigError(str(path), [f"{path.name}: takes more memory than a valid file of its size"]) from None
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(str(path), [f"{path.name}: not parquet: {first_line(error)}"]) from None
    except (ValueError, OverflowError, KeyError) as error:  # invalid text or dates
        column = short(repr(name))
        raise ConfigError(str(path), [f"{path.name}: the column {column} can't be read: {first_line(error)}"]) from None
    names = [unicodedata.normalize("NFC", name.strip()) for name in schema.names]
    return Table(path, columns, range(1, rows + 1), _duplicates(names), by_row=True)


def _is_nested(kind: pa.DataType) -> bool:
    return bool(pa.types.is_nested(kind.value_type if pa.types.is_dictionary(kind) else kind))


def _texts(column: pa.ChunkedArray) -> list[str]:
    """Return cells as text; equal cells of a dictionary share one string."""
    out: list[str] = []
    for chunk in column.chunks:
        if pa.types.is_dictionary(chunk.type):
            known = [*map(_text, chunk.dictionary.to_pylist()), ""]
            out += [known[-1 if i is None else i] for i in chunk.indices.to_pylist()]
        elif pa.types.is_float32(chunk.type):  # .1, not .10000000149
            out += map(_text, chunk.cast(pa.string()).to_pylist())
        else:
            out += map(_text, chunk.to_pylist())
    return out


def _text(cell: object) -> str:
    return "" if cell is None else unicodedata.normalize("NFC", str(cell).strip())


def _duplicates(names: Sequence[str]) -> list[tuple[int, str]]:
    """Return a problem for each duplicate column."""
    return [(1, f"duplicate column {short(repr(name))}") for name, n in Counter(names).items() if n > 1]
