"""Location and file layout of imported benchmarks (docs/how_to/official_data.md).

Each benchmark has a folder with a manifest; each of its tables is a parquet file with one row per
architecture: `arch`, its notation, and one column per metric, `<split>[.<metric>]/run<k>/<epochs>`.
Missing values are NaN. Means and maxima are computed from the runs on selection.
"""

from __future__ import annotations

import os
import sys
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lissnas import artifacts
from lissnas.benchmarks.official.files import UnreadableFile
from lissnas.core.errors import InvalidArchitecture, UserError
from lissnas.spaces import FloatArray, IntArray, get

MAX_CELLS_PER_RESULT = 100
"""Maximum ratio of a table's cells to its results, beyond `MIN_CELLS`."""
MIN_CELLS = 1_000_000
"""Cells that any table may have."""
FORMAT = 1
"""Version of this layout; changing it requires importing again."""
ABOUT = "metrics.json"
"""The file that describes an import: its source file and its tables or models."""


def data_root() -> Path:
    """Return the folder of imported data: $LISSNAS_DATA, by default the system's folder for user data.

    Raises UserError if there is none because the user has no home folder.
    """
    try:
        return _data_root()
    except RuntimeError:
        raise UserError("no home folder: set LISSNAS_DATA or give --to") from None


def _data_root() -> Path:
    if given := os.environ.get("LISSNAS_DATA"):
        return Path(given).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "lissnas"
    variable, default = (
        ("LOCALAPPDATA", "AppData/Local") if sys.platform == "win32" else ("XDG_DATA_HOME", ".local/share")
    )
    return Path(os.environ.get(variable) or Path.home() / default) / "lissnas"


@dataclass(frozen=True)
class MetricTable:
    """One benchmark in an official file: architecture notations and one column per metric, run and length."""

    benchmark: str
    archs: Sequence[str]
    columns: Mapping[str, FloatArray]

    def parquet(self) -> bytes:
        """Return the table as a parquet file."""
        return artifacts.to_parquet({"arch": list(self.archs), **self.columns})

    def about(self) -> dict[str, object]:
        """Return the number of networks, and the runs and epochs of each metric."""
        return {"networks": len(self.archs), "metrics": metrics_of(self.columns)}


def metrics_of(columns: Iterable[str]) -> dict[str, dict[str, list[int]]]:
    """Return the runs and epochs of each `<split>[.<metric>]` among the columns."""
    found: dict[str, dict[str, list[int]]] = {}
    for name in columns:
        head, run, epochs = name.split("/")
        entry = found.setdefault(head, {"runs": [], "epochs": []})
        for key, value in (("runs", int(run[3:])), ("epochs", int(epochs))):
            entry[key] = sorted({*entry[key], value})
    return found


def describe(metrics: Mapping[str, Mapping[str, Sequence[int]]]) -> str:
    """Return the result of `metrics_of` as text, metrics of equal runs and epochs grouped, groups joined by `;`."""
    groups: dict[str, list[str]] = {}
    # The headline metric comes first, validation before test.
    for head in sorted(metrics, key=lambda h: (h.partition(".")[2], h.startswith("test"))):
        entry = metrics[head]
        runs = f"run1 to run{max(entry['runs'])}" if len(entry["runs"]) > 1 else "run1"
        groups.setdefault(f"mean, max, {runs} / {_spans(entry['epochs'])} epochs", []).append(head)
    return "; ".join(f"{', '.join(heads)} / {rest}" for rest, heads in groups.items())


def _spans(numbers: Sequence[int]) -> str:
    """Return `1 to 25` for a gapless list, else the numbers."""
    gapless = len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1
    return f"{numbers[0]} to {numbers[-1]}" if gapless else ", ".join(map(str, numbers))


class Results:
    """Single training results in file order: architecture number, epochs and value."""

    def __init__(self) -> None:
        self.numbers, self.epochs, self.values = array("q"), array("q"), array("d")

    def add(self, number: int, epochs: int, value: float) -> None:
        """Append a result of architecture `number`."""
        self.numbers.append(number)
        self.epochs.append(epochs)
        self.values.append(value)


def tables_of(
    path: Path,
    space_name: str,
    names: Sequence[str],
    location: Callable[[int], str],
    results: Mapping[tuple[str, str], Results],
) -> list[MetricTable]:
    """Return one table per benchmark, from results by benchmark and `<split>[.<metric>]`.

    Equivalent architectures share a row, and their trainings are its runs. Raises UnreadableFile for an invalid
    name, with its `location(i)`, and for results that give an almost empty table.
    """
    space = get(space_name)
    try:
        rows = space.parse(names)
    except InvalidArchitecture as error:
        raise UnreadableFile(path, location(error.row), error.reason) from None
    _, first, network = np.unique(space.key(rows), return_index=True, return_inverse=True)
    archs = space.format(rows[first])
    columns: dict[str, dict[str, FloatArray]] = {}
    for (benchmark, head), found in results.items():
        table = columns.setdefault(benchmark, {})
        try:
            table |= _run_columns(head, network[np.asarray(found.numbers)], found, len(first))
        except ValueError as error:
            raise UnreadableFile(path, f"{benchmark} {head}", str(error)) from None
    return [MetricTable(benchmark, archs, table) for benchmark, table in columns.items() if table]


def _run_columns(head: str, row: IntArray, found: Results, n: int) -> dict[str, FloatArray]:
    """Return columns of `n` rows; results of the same row and epochs are its runs 1, 2, ...

    Raises ValueError for almost empty columns, with which few results could fill any memory.
    """
    epochs, values = np.asarray(found.epochs), np.asarray(found.values)
    order = np.lexsort((row, epochs))
    r, e, v = row[order], epochs[order], values[order]
    new = np.ones(len(r), bool)
    new[1:] = (r[1:] != r[:-1]) | (e[1:] != e[:-1])
    first = np.maximum.accumulate(np.where(new, np.arange(len(r)), 0))
    run = np.arange(len(r)) - first + 1
    lengths = np.unique(e)
    runs = [int(run[e == length].max()) for length in lengths]
    if n * sum(runs) > MAX_CELLS_PER_RESULT * len(r) + MIN_CELLS:
        raise ValueError(f"{len(r):,} results would need a table of {n * sum(runs):,} cells")
    columns = {}
    for length, n_runs in zip(lengths, runs, strict=True):
        for k in range(1, n_runs + 1):
            at = (e == length) & (run == k)
            column = np.full(n, np.nan)
            column[r[at]] = v[at]
            columns[f"{head}/run{k}/{length}"] = column
    return columns


def check_kind(kind: str, kinds: Sequence[str]) -> None:
    """Raise UserError unless `kind` is one of the official benchmarks."""
    if kind not in kinds:
        raise UserError(f"no official file of {kind!r} can be imported; known: {', '.join(kinds)}")
