"""Label tables: files of architectures and their measured metric, validated completely before use."""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lissnas.config import MIN_LABELS
from lissnas.core.errors import ConfigError, InvalidArchitecture, UserError, closest, first_line, short
from lissnas.core.memory_limit import limit_memory
from lissnas.spaces.base import Archs, FloatArray, IntArray, Space
from lissnas.spaces.declared import DeclaredSpace

if TYPE_CHECKING:
    import pandas as pd

ARCH = "arch"
"""The column of architecture names."""
STATUS = "status"
"""The column of outcomes."""
FAILED = "failed"
"""The outcome of a training without a label."""
VALUE = "value"
"""The default name of the metric's column."""
MAX_PROBLEMS = 20
"""Problems listed in a message; more are counted."""
MAX_ROWS = 2_000_000
"""Maximum rows of a parquet file, in which repeated values take almost no space."""
MAX_CELLS = 50_000_000
"""Maximum cells of a parquet file."""
NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
"""The accepted numbers; `float` accepts more: 1_0, digits of other scripts."""


@dataclass(frozen=True)
class Labels:
    """Distinct networks, sorted by row, and the mean of each network's labels, higher is better."""

    archs: Archs
    values: FloatArray
    repeats: IntArray
    """The number of labels in each mean."""
    metric: str
    unlabelled: Mapping[str, Archs]
    """Networks of rows without a label: `empty` have no metric yet, `failed` have that value in the column `status`.

    They can have a label in another row.
    """
    negated: bool = False
    """Whether the metric is minimized, so that `values` are its negative."""

    def describe(self) -> str:
        """Return a one-line summary."""
        repeated = int((self.repeats > 1).sum())
        parts = [f"{len(self.archs):,} networks with {self.metric} from {int(self.repeats.sum()):,} rows"]
        parts += [f"{repeated:,} of them the mean of several"] if repeated else []
        parts += [f"{len(archs):,} rows {why}" for why, archs in self.unlabelled.items() if len(archs)]
        parts += [negation_note(self.metric)] if self.negated else []
        return "; ".join(parts)


def negation_note(metric: str) -> str:
    """Return the note for a minimized metric, of which the negative is used."""
    return f"less {metric} is better, so that its negative is used"


@dataclass
class _Table:
    """A file as columns of text, and the problems found in it so far."""

    path: Path
    columns: Mapping[str, list[str]]
    lines: Sequence[int]
    """The line of each row; for parquet, the row number counted from 1."""
    problems: list[tuple[int, str]]
    """Line (1 for the whole file) and what is wrong."""

    def add_problem(self, row: int | None, what: str) -> None:
        """Add a problem of a row, or of the whole file if `row` is None."""
        self.problems.append((1 if row is None else self.lines[row], what))

    def raise_any(self) -> None:
        """Raise ConfigError if there are problems, with the first ones by line and the number of the others."""
        if self.problems:
            prefix = f"{self.path.name}:" + ("row " if self.path.suffix.lower() == ".parquet" else "")
            listed = [f"{prefix}{line}: {what}" for line, what in sorted(self.problems)]
            more = len(listed) - MAX_PROBLEMS
            raise ConfigError(str(self.path), listed[:MAX_PROBLEMS] + ([f"and {more:,} more"] if more > 0 else []))


def read_labels(path: Path, space: Space, metric: str | None = None, min_labels: int = MIN_LABELS) -> Labels:
    """Return the labels of a `.csv` or `.parquet` file; raises ConfigError with all of its problems.

    Fewer than `min_labels` labelled networks are a problem, as are labels that are all equal; 0 disables both
    checks, for a file that is still being collected.

    The architecture is in one column per position (declared product spaces) or in `arch`, the label in the
    column `metric` (by default the space's metric, else the only remaining column). Rows with an empty
    metric or the `status` `failed` are skipped and counted; repeated labels are averaged. The negative of a
    minimized metric is returned.
    """
    return _labels(_read(path), space, metric, min_labels)


def labels_of_frame(frame: pd.DataFrame, space: Space, metric: str | None = None) -> Labels:
    """Return the labels of a data frame, read as `read_labels` reads a file; raises ConfigError."""
    return _labels(_parquet(Path("the data frame"), frame.to_parquet(index=False)), space, metric, MIN_LABELS)


def _labels(table: _Table, space: Space, metric: str | None, min_labels: int) -> Labels:
    archs, named = _archs(table, space)
    name = _metric_column(table, space, metric, named)
    n = len(table.lines)
    cells = table.columns[name] if name is not None else [""] * n
    failed = np.array([text.lower() == FAILED for text in table.columns.get(STATUS, [""] * n)], bool)
    empty = np.array([not text for text in cells], bool) & ~failed
    use = np.flatnonzero(~failed & ~empty)
    values = np.array([_value(table, i, name or "", cells[i]) for i in use.tolist()], np.float64)
    unlabelled = {"empty": archs[empty], "failed": archs[failed]}
    networks, which = np.unique(archs[use], axis=0, return_inverse=True)
    which = which.reshape(-1)
    order = np.lexsort((values, which))  # so that a mean does not depend on the order of rows
    repeats = np.bincount(which, minlength=len(networks))
    means = np.bincount(which[order], weights=values[order], minlength=len(networks)) / np.maximum(repeats, 1)
    valid = not table.problems
    count = len(networks) if valid else len(use)
    known = means if valid else values[np.isfinite(values)]
    if table.lines and name is not None and count < min_labels:
        left_out = ", ".join(f"{len(rows):,} {why}" for why, rows in unlabelled.items() if len(rows))
        table.add_problem(
            None,
            f"{count:,} networks with a label in {len(use):,} usable rows"
            f"{f' ({left_out})' if left_out else ''}, at least {min_labels} are needed",
        )
    elif min_labels and len(known) and np.ptp(known) == 0:
        table.add_problem(None, f"{name} is {known[0]:g} for all networks; expected at least two different values")
    table.raise_any()
    assert name is not None
    negated = less_is_better(space, name)
    return Labels(networks, -means if negated else means, repeats, name, unlabelled, negated)


def read_archs(path: Path, space: Space) -> list[str]:
    """Return the networks of all rows of a file such as `lissnas suggest` writes, labelled or not.

    Raises ConfigError with all of its problems.
    """
    table = _read(path)
    archs, _ = _archs(table, space)
    table.raise_any()
    return space.format(archs)


def less_is_better(space: Space, metric: str) -> bool:
    """Return whether the space minimizes the metric; a metric that it does not define is maximized."""
    return metric == space.metric_name and not space.maximize


def _archs(table: _Table, space: Space) -> tuple[Archs, set[str]]:
    """Return the architecture of each row, and the columns that it is read from."""
    rows = np.zeros((len(table.lines), space.genome_len), np.int8)
    found = short(", ".join(table.columns), 300)
    if isinstance(space, DeclaredSpace) and ARCH not in table.columns:
        missing = [p for p in space.positions if p not in table.columns]
        if len(missing) == len(space.positions):
            table.add_problem(
                None,
                f"neither a column for each position ({short(', '.join(missing), 300)}) nor {ARCH!r}; found {found}",
            )
        else:
            for p in missing:
                table.add_problem(None, f"the column {p!r} is missing; found {found}")
        if missing:
            return rows, set(space.positions)
        rows, problems = space.from_text([table.columns[p] for p in space.positions])
    elif ARCH not in table.columns:
        table.add_problem(None, f"the column {ARCH!r} is missing; found {found}")
        return rows, set()
    elif isinstance(space, DeclaredSpace):
        columns, problems = space.split(table.columns[ARCH])
        wrong = {i for i, _ in problems}
        rows, more = space.from_text(columns)
        problems += [(i, what) for i, what in more if i not in wrong]
    else:
        rows, problems = _parse_each(space, table.columns[ARCH])
    for i, what in problems:
        table.add_problem(i, what)
    return rows, set(space.positions) if isinstance(space, DeclaredSpace) else set()


def _parse_each(space: Space, names: Sequence[str]) -> tuple[Archs, list[tuple[int, str]]]:
    """Return the parsed names, zeros for invalid ones, and the problems of the invalid ones."""
    try:
        return space.parse(names), []
    except InvalidArchitecture:
        rows, problems = np.zeros((len(names), space.genome_len), np.int8), list[tuple[int, str]]()
    for i, name in enumerate(names):
        try:
            rows[i] = space.parse([name])[0]
        except InvalidArchitecture as error:
            problems.append((i, error.reason))
    return rows, problems


def _metric_column(table: _Table, space: Space, metric: str | None, named: set[str]) -> str | None:
    """Return the metric's column: `metric`, else the space's metric, else the only remaining column."""
    requested = metric or space.metric_name or None
    rest = [c for c in table.columns if c not in named and c not in (ARCH, STATUS)]
    if requested in rest:
        return requested
    if requested is not None:
        hint = closest(requested, rest or ["none"])
        table.add_problem(None, f"the column {requested!r}, the metric, is missing. {hint}")
    elif len(rest) > 1:
        table.add_problem(None, f"the columns {short(', '.join(rest), 300)} could be the metric; name one of them")
    elif not rest:
        table.add_problem(None, f"no column holds a metric; found {short(', '.join(table.columns), 300)}")
    return rest[0] if requested is None and len(rest) == 1 else None


def _value(table: _Table, row: int, metric: str, text: str) -> float:
    decimal = NUMBER.fullmatch(text) is not None
    if decimal and math.isfinite(float(text)):
        return float(text)
    what = "is not finite" if decimal or text.lower().lstrip("+-") in ("inf", "infinity", "nan") else "is no number"
    table.add_problem(
        row, f"{metric} {short(repr(text))} {what}; leave the cell empty, or write {FAILED!r} in a column {STATUS!r}"
    )
    return math.nan


def _read(path: Path) -> _Table:
    """Return the cells of a file as text; raises ConfigError if it can't be read."""
    kind = path.suffix.lower()
    if kind not in (".csv", ".parquet"):
        raise ConfigError(str(path), [f"{path.name}: expected a file that ends in .csv or .parquet"])
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(str(path), ["no such file"]) from None
    except OSError as error:
        raise ConfigError(str(path), [f"can't be read: {error.strerror}"]) from None
    table = _csv(path, data) if kind == ".csv" else _parquet(path, data)
    if not table.lines and not table.problems:
        table.add_problem(None, "the file has no rows")
    return table


def _csv(path: Path, data: bytes) -> _Table:
    """Return the cells of a CSV file as text; blank lines are skipped."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(str(path), [f"{path.name}:{line}: not UTF-8; save the file as UTF-8"]) from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    found, lines, problems = [], [], []
    header: list[str] = []
    try:
        for cells in reader:
            if not cells:
                continue
            if not header:
                header = [name.strip() for name in cells]
            elif len(cells) != len(header):
                problems.append((reader.line_num, f"{len(cells)} cells, where the header has {len(header)}"))
            else:
                found.append([cell.strip() for cell in cells])
                lines.append(reader.line_num)
    except csv.Error as error:
        problems.append((reader.line_num, f"not CSV: {error}"))
    if not header:
        raise ConfigError(str(path), [f"{path.name}:1: the file is empty"])
    problems += _duplicates(header)
    columns = {name: [cells[i] for cells in found] for i, name in enumerate(header)}
    return _Table(path, columns, lines, problems)


def _parquet(path: Path, data: bytes) -> _Table:
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
                columns[name] = _texts(column)
            columns |= {f.name: [f"<{f.type}>"] * rows for f in schema if _is_nested(f.type)}
    except MemoryError:
        raise ConfigError(str(path), [f"{path.name}: takes more memory than a valid file of its size"]) from None
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(str(path), [f"{path.name}: not parquet: {first_line(error)}"]) from None
    except (ValueError, OverflowError, KeyError) as error:  # invalid text or dates
        column = short(repr(name))
        raise ConfigError(str(path), [f"{path.name}: the column {column} can't be read: {first_line(error)}"]) from None
    return _Table(path, columns, range(1, rows + 1), _duplicates(schema.names))


def _is_nested(kind: pa.DataType) -> bool:
    return bool(pa.types.is_nested(kind.value_type if pa.types.is_dictionary(kind) else kind))


def _texts(column: pa.ChunkedArray) -> list[str]:
    """Return cells as text; equal cells of a dictionary share one string."""
    out: list[str] = []
    for chunk in column.chunks:
        if pa.types.is_dictionary(chunk.type):
            known = [*map(_text, chunk.dictionary.to_pylist()), ""]
            out += [known[-1 if i is None else i] for i in chunk.indices.to_pylist()]
        else:
            out += map(_text, chunk.to_pylist())
    return out


def _text(cell: object) -> str:
    return "" if cell is None else str(cell).strip()


def _duplicates(names: Sequence[str]) -> list[tuple[int, str]]:
    """Return a problem for each duplicate column."""
    return [(1, f"duplicate column {short(repr(name))}") for name, n in Counter(names).items() if n > 1]


def write_rows(space: Space, archs: Archs, metric: str | None = None, header: Sequence[str] | None = None) -> bytes:
    """Return a CSV file of architectures in the columns of labels, with an empty metric.

    The metric's column is `metric`, by default the space's metric, else `value`; `header` replaces the default columns.
    """
    return to_csv(header or header_of(space, metric_of(space, metric)), rows_of(space, archs))


def header_of(space: Space, metric: str) -> list[str]:
    """Return the columns of a new file: one per position (declared product spaces) or `arch`, and the metric."""
    return [*(space.positions if isinstance(space, DeclaredSpace) else [ARCH]), metric]


def rows_of(space: Space, archs: Archs) -> list[dict[str, str]]:
    """Return one row per network with its `arch` and, for a declared product space, its positions."""
    columns = {ARCH: space.format(archs)}
    if isinstance(space, DeclaredSpace):
        columns |= dict(zip(space.positions, space.to_text(archs), strict=True))
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


def read_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Return the columns and rows of a CSV file already validated by `read_labels`."""
    found = [cells for cells in csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")) if cells]
    header = [name.strip() for name in found[0]]
    return header, [dict(zip(header, cells, strict=True)) for cells in found[1:]]


def to_csv(header: Sequence[str], rows: Sequence[dict[str, str]]) -> bytes:
    """Return a CSV file of the columns in `header`, with empty cells for missing values."""
    out = io.StringIO()
    writer = csv.DictWriter(out, header, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def metric_of(space: Space, requested: str | None = None) -> str:
    """Return the column of labels, by default the space's metric; raises UserError for a reserved name."""
    metric = requested or space.metric_name or VALUE
    reserved = {ARCH, STATUS, *(space.positions if isinstance(space, DeclaredSpace) else ())}
    if metric in reserved:
        raise UserError(f"metric: {metric!r} is a reserved column in labels of {space.name}; choose another name")
    return metric
