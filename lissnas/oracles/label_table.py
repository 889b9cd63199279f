"""Label tables: files of architectures and their measured metric, validated completely before use."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lissnas.artifacts import sha256
from lissnas.config import MIN_LABELS
from lissnas.core.errors import InvalidArchitecture, UserError, closest, short
from lissnas.core.typography import pasted
from lissnas.oracles.direction import is_minimized
from lissnas.oracles.label_cells import DONE, EMPTY, FAILED, NUMBER, STATE, STATUS, far_away, numbers, outcomes
from lissnas.oracles.label_file import COMMENT, Table, read_parquet, read_table
from lissnas.spaces.base import Archs, FloatArray, IntArray, Space
from lissnas.spaces.declared import DeclaredSpace
from lissnas.spaces.other_notations import likely_cause

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ARCH", "FAILED", "NUMBER", "STATUS", "VALUE", "Labels", "labels_of_frame", "read_archs", "read_labels"]

ARCH = "arch"
"""The column of architecture names."""
VALUE = "value"
"""The default name of the metric's column."""
NAN = ("nan", "-nan", "+nan", "-1.#ind", "1.#qnan")
"""Values of a training that diverged."""


@dataclass(frozen=True)
class Labels:
    """Distinct networks, sorted by row, and the mean of each network's labels, higher is better."""

    archs: Archs
    values: FloatArray
    repeats: IntArray
    """The number of labels in each mean."""
    metric: str
    unlabelled: Mapping[str, Archs]
    """Networks of rows without a label: `empty` have no metric yet, the others by status.

    These are `failed`, `pruned` and `unfinished`. They can have a label in another row.
    """
    negated: bool = False
    """Whether the metric is minimized, so that `values` are its negative; `measured` has the metric's sign."""
    notes: tuple[str, ...] = ()
    """How the file was read if it is not plain CSV, and what is unusual in it."""
    order: IntArray | None = None
    """The networks' indices in the order in which the file has their first labels; None if it is unknown."""

    def digest(self, space: Space) -> str:
        """Return the SHA-256 of networks and values."""
        return sha256(space.key(self.archs).tobytes() + self.values.tobytes())

    def first(self, n: int) -> Labels:
        """Return the labels of the `n` networks that the file has first; needs `order`."""
        assert self.order is not None, "the order of the labels is unknown"
        kept = np.sort(self.order[:n])
        return replace(self, archs=self.archs[kept], values=self.values[kept], repeats=self.repeats[kept], order=None)

    @property
    def measured(self) -> FloatArray:
        """The means in the metric's unit and sign."""
        return -self.values if self.negated else self.values

    def describe(self) -> str:
        """Return a one-line summary."""
        repeated = int((self.repeats > 1).sum())
        parts = [f"{len(self.archs):,} networks with {self.metric} from {int(self.repeats.sum()):,} rows"]
        parts += [f"{repeated:,} of them the mean of several"] if repeated else []
        parts += [f"{len(archs):,} rows {why}" for why, archs in self.unlabelled.items() if len(archs)]
        return "; ".join([*parts, *self.notes])


def read_labels(
    path: Path,
    space: Space,
    metric: str | None = None,
    min_labels: int = MIN_LABELS,
    minimize: bool | None = None,
) -> Labels:
    """Return the labels of a `.csv` or `.parquet` file; raises ConfigError with all of its problems.

    Fewer than `min_labels` labelled networks are a problem, as are labels that are all equal; 0 disables both
    checks, for a file that is still being collected.

    The architecture is in one column per position (declared product spaces) or in `arch`, the label in the
    column `metric` (by default the space's metric, else the only remaining column). Rows with an empty
    metric are skipped and counted, as are rows whose `status` or `state` is not a finished one; repeated labels are
    averaged. The negative of a minimized metric is returned. `minimize` states its direction if the space doesn't
    declare it; it is required (UserError) if the name looks like a cost.
    """
    return _labels(_read(path, space), space, metric, min_labels, minimize)


def labels_of_frame(
    frame: pd.DataFrame, space: Space, metric: str | None = None, minimize: bool | None = None
) -> Labels:
    """Return the labels of a data frame, read as `read_labels` reads a file; raises ConfigError."""
    table = read_parquet(Path("the data frame"), frame.to_parquet(index=False))
    return _labels(table, space, metric, MIN_LABELS, minimize)


def _read(path: Path, space: Space) -> Table:
    names = [ARCH, *(space.positions if isinstance(space, DeclaredSpace) else ())]
    texts = [c for choices in space.choices for c in choices] if isinstance(space, DeclaredSpace) else []
    return read_table(path, names, comments=not any(text.startswith(COMMENT) for text in (*names, *texts)))


def _labels(table: Table, space: Space, metric: str | None, min_labels: int, minimize: bool | None) -> Labels:
    _rename(table, space, metric)
    archs, named = _archs(table, space)
    name = _metric_column(table, space, metric, named)
    n = len(table.lines)
    cells = table.columns[name] if name is not None else [""] * n
    outcome = np.array(_outcomes(table, _status_column(table, {*named, name or ""}), cells), object)
    use = np.flatnonzero(outcome == DONE)
    given = [cells[i] for i in use.tolist()]
    values, problems, notes = numbers(name or "", given)
    for i, what in problems.items():
        table.add_problem(int(use[i]), what)
    unlabelled = {"empty": archs[outcome == "empty"], FAILED: archs[outcome == FAILED]}
    unlabelled |= {w: archs[outcome == w] for w in ("pruned", "unfinished") if (outcome == w).any()}
    networks, first, which = np.unique(archs[use], axis=0, return_index=True, return_inverse=True)
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
    negated = is_minimized(space, name, minimize)
    about = (*table.notes, *notes, *far_away(name, values))
    measured = -means if negated else means
    return Labels(networks, measured, repeats, name, unlabelled, negated, about, np.argsort(first))


def read_archs(path: Path, space: Space) -> list[str]:
    """Return the networks of all rows of a file such as `lissnas suggest` writes, labelled or not.

    Raises ConfigError with all of its problems.
    """
    table = _read(path, space)
    _rename(table, space, None)
    archs, _ = _archs(table, space)
    table.raise_any()
    return space.format(archs)


PREFIX_ENDS = ("_", "/", ".", ":")
"""Characters that end a prefix of columns."""


# -- columns -----------------------------------------------------------------------------------------
def _rename(table: Table, space: Space, metric: str | None) -> None:
    """Rename columns that differ from a name only by upper and lower case, if only one column and one name do.

    A prefix that all positions have, such as Optuna's `params_` and Ray Tune's `config/`, is left out first.
    """
    positions = space.positions if isinstance(space, DeclaredSpace) else ()
    if positions and not {*positions, ARCH} & {*table.columns}:
        ends = [c.removesuffix(positions[0]) for c in table.columns if c.endswith(positions[0])]
        prefixes = [
            p for p in ends if p[-1:] in PREFIX_ENDS and all(f"{p}{name}" in table.columns for name in positions)
        ]
        if len(prefixes) == 1:
            short_names = {f"{prefixes[0]}{name}": name for name in positions}
            table.columns = {short_names.get(name, name): cells for name, cells in table.columns.items()}
            table.notes.append(f"columns of positions are read without {prefixes[0]!r}")
    wanted = [ARCH, STATUS, *positions, *filter(None, [metric or space.metric_name])]
    renamed = {}
    for name in wanted:
        matching = [c for c in table.columns if c.casefold() == name.casefold()]
        same = [other for other in wanted if other.casefold() == name.casefold()]
        if len(matching) == len({*same}) == 1 and matching[0] != name:
            renamed[matching[0]] = name
    table.columns = {renamed.get(name, name): cells for name, cells in table.columns.items()}
    if renamed:
        found = ", ".join(f"{a} as {b}" for a, b in renamed.items())
        table.notes.append(f"columns are read regardless of case: {short(found, 300)}")


def _status_column(table: Table, taken: set[str]) -> str | None:
    matching = [c for c in table.columns if c.casefold() in (STATUS, STATE) and c not in taken]
    return STATUS if STATUS in matching else matching[0] if len(matching) == 1 else None


def _outcomes(table: Table, column: str | None, cells: Sequence[str]) -> list[str]:
    """Return what each row is: `ok`, `empty`, `failed`, `pruned` or `unfinished`; unknown states are problems."""
    found, unknown = outcomes(table.columns[column] if column is not None else [""] * len(cells))
    if column is not None and column != STATUS and len(unknown) == len({*table.columns[column]} - {*EMPTY}):
        found, unknown = [DONE] * len(cells), {}  # a column of another meaning
    for text, rows in unknown.items():
        more = f" (and {len(rows) - 1:,} rows more)" if len(rows) > 1 else ""
        what = f"unknown {column} {short(repr(text))}{more}; expected {DONE!r}, or {FAILED!r} for a row without a label"
        table.add_problem(rows[0], what)
    out = []
    for outcome, cell in zip(found, cells, strict=True):
        missing = "empty" if cell.lower() in EMPTY else FAILED if cell.lower() in NAN else ""
        out.append(missing or DONE if outcome == DONE else outcome)
    return out


def _archs(table: Table, space: Space) -> tuple[Archs, set[str]]:
    """Return the architecture of each row, and the columns that it is read from."""
    if not isinstance(space, DeclaredSpace):
        if ARCH in table.columns:
            return _by_name(table, space, range(len(table.lines))), set()
        near = [c for c in table.columns if (c and closest(ARCH, [c]).startswith("Did")) or c.lower() in ARCH_LIKE]
        hint = f"; rename {near[0]!r} to {ARCH!r} if it is that" if near else ""
        table.add_problem(None, f"the column {ARCH!r} is missing; found {_found(table)}{hint}")
        return np.zeros((len(table.lines), space.genome_len), np.int8), set()
    missing = [p for p in space.positions if p not in table.columns]
    if ARCH not in table.columns:
        if len(missing) == len(space.positions):
            names = f"a column for each position ({short(', '.join(missing), 300)})"
            table.add_problem(None, f"neither {names} nor {ARCH!r}; found {_found(table)}")
        else:
            for p in missing:
                table.add_problem(None, f"the column {p!r} is missing; found {_found(table)}")
        if missing:
            return np.zeros((len(table.lines), space.genome_len), np.int8), {*space.positions}
        return _by_position(table, space), {*space.positions}
    if missing:
        return _by_name(table, space, range(len(table.lines))), {*space.positions}
    return _by_both(table, space), {*space.positions}


ARCH_LIKE = ("architecture", "arch_str", "network", "net", "model", "genotype", "config", "configuration", "name")
"""Other names that people give the column of architectures."""


def _found(table: Table) -> str:
    typo = pasted("".join(table.columns))
    return short(", ".join(table.columns), 300) + (f" (with {typo})" if typo else "")


def _by_position(table: Table, space: DeclaredSpace) -> Archs:
    rows, problems = space.from_text([table.columns[p] for p in space.positions])
    for i, what in problems:
        table.add_problem(i, what)
    return rows


def _by_name(table: Table, space: Space, at: Sequence[int]) -> Archs:
    """Return the architectures of a file's rows `at` by the column `arch`."""
    rows, problems = _parse_each(space, [table.columns[ARCH][i] for i in at])
    for i, what in problems:
        table.add_problem(at[i], what)
    return rows


def _by_both(table: Table, space: DeclaredSpace) -> Archs:
    """Return the architectures of rows that have a name and a column for each position, which have to agree.

    Names of which none is an architecture, such as numbers of runs, are ignored with a note.
    """
    names = table.columns[ARCH]
    named = [i for i, name in enumerate(names) if name]
    by_name, wrong = _parse_each(space, [names[i] for i in named])
    if len({i for i, _ in wrong}) == len(named):
        if named:
            example = short(repr(names[named[0]]))
            table.notes.append(f"{ARCH!r} has no architectures ({example}), so that the columns of positions are used")
        return _by_position(table, space)
    rows = _by_position(table, space)
    for i, what in wrong:
        table.add_problem(named[i], what)
    bad = {named[i] for i, _ in wrong}
    for i, row in zip(named, by_name, strict=True):
        if i not in bad and (row != rows[i]).any():
            cells = "|".join(table.columns[p][i] for p in space.positions)
            table.add_problem(i, f"{ARCH} says {short(names[i])}, the columns say {short(cells)}; which one is right?")
    return rows


def _parse_each(space: Space, names: Sequence[str]) -> tuple[Archs, list[tuple[int, str]]]:
    """Return the parsed names, zeros for invalid ones, and the problems of the invalid ones."""
    if isinstance(space, DeclaredSpace):
        columns, problems = space.split(names)
        wrong = {i for i, _ in problems}
        rows, more = space.from_text(columns)
        return rows, problems + [(i, what) for i, what in more if i not in wrong]
    try:
        return space.parse(names), []
    except InvalidArchitecture:
        rows, problems = np.zeros((len(names), space.genome_len), np.int8), []
    by_cause: dict[str, list[tuple[int, str]]] = {}
    for i, name in enumerate(names):
        try:
            rows[i] = space.parse([name])[0]
        except InvalidArchitecture as error:
            shown, reason = short(repr(name)), error.reason
            found = "" if shown in reason else f" in {shown}" if "found" in reason else f", found {shown}"
            cause = likely_cause(space, name)
            by_cause.setdefault(f"{reason}{cause}" if cause else f"{i}", []).append((i, f"{reason}{found}{cause}"))
    for (i, what), *more in by_cause.values():
        problems.append((i, f"{what} (and {len(more):,} rows more)" if more else what))
    return rows, problems


def _metric_column(table: Table, space: Space, metric: str | None, named: set[str]) -> str | None:
    """Return the metric's column: `metric`, else the space's metric, else the only remaining column."""
    requested = metric or space.metric_name or None
    rest = [c for c in table.columns if c and c not in named and c not in (ARCH, STATUS)]
    if requested in rest:
        return requested
    rest = [c for c in rest if c != _status_column(table, named)]
    if requested is not None:
        hint = closest(requested, rest or ["none"])
        typo = next((found for c in rest if (found := pasted(c, [requested]))), "")
        typo = f" A column has {typo}." if typo else ""
        table.add_problem(None, f"the column {requested!r}, the metric, is missing.{typo} {hint}")
    elif len(rest) > 1:
        table.add_problem(None, f"the columns {short(', '.join(rest), 300)} could be the metric; name one of them")
    elif not rest:
        table.add_problem(None, f"no column holds a metric; found {_found(table)}")
    return rest[0] if requested is None and len(rest) == 1 else None


# -- writing -----------------------------------------------------------------------------------------
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


def read_rows(path: Path, space: Space, metric: str) -> tuple[list[str], list[dict[str, str]], bool]:
    """Return the columns and rows of a CSV file already validated by `read_labels`, and whether it is plain.

    Of other files columns have the names that they were read as, and numbers a decimal point.
    """
    table = _read(path, space)
    _rename(table, space, metric)
    cells = table.columns[metric]
    given = [i for i, cell in enumerate(cells) if cell.lower() not in (*EMPTY, *NAN)]
    values, invalid, notes = numbers(metric, [cells[i] for i in given])
    if notes and not invalid:
        for i, value in zip(given, values.tolist(), strict=True):
            cells[i] = repr(value)
    rows = [dict(zip(table.columns, row, strict=True)) for row in zip(*table.columns.values(), strict=True)]
    return [*table.columns], rows, not (table.notes or notes)


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
