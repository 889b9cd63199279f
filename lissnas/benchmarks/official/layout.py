"""Where imported benchmarks live, and what their files say (docs/how_to/official_data.md).

A benchmark has a folder of its own with a manifest; each of its tables is a parquet file with a row
an architecture: `arch`, its notation, and a column a metric, `<split>[.<metric>]/run<k>/<epochs>`.
A value that the official file lacks is NaN. Means and maxima are made from the runs when asked for.
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

SPARSEST, SMALL = 100, 1_000_000
"""Cells of a table for each result in it, where it is no small one."""
FORMAT = 1
"""Version of this layout; a change of it means importing again."""
ABOUT = "metrics.json"
"""The file that says what was imported, from which file, and what it has."""


def data_root() -> Path:
    """Return the folder of imported data: $LISSNAS_DATA, else where the system keeps a user's data."""
    if given := os.environ.get("LISSNAS_DATA"):
        return Path(given).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "lissnas"
    variable, usual = (
        ("LOCALAPPDATA", "AppData/Local") if sys.platform == "win32" else ("XDG_DATA_HOME", ".local/share")
    )
    return Path(os.environ.get(variable) or Path.home() / usual) / "lissnas"


@dataclass(frozen=True)
class MetricTable:
    """What an official file says of one benchmark: notations, and columns of one value each."""

    benchmark: str
    archs: Sequence[str]
    columns: Mapping[str, FloatArray]

    def parquet(self) -> bytes:
        """Return the table's file."""
        return artifacts.to_parquet({"arch": list(self.archs), **self.columns})

    def about(self) -> dict[str, object]:
        """Return what is said of the table: networks, and each metric's splits, runs and epochs."""
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
    """Return in words what `metrics_of` found, one `;` between metrics with different runs or epochs."""
    alike: dict[str, list[str]] = {}
    # The headline metric before the others, validation before test.
    for head in sorted(metrics, key=lambda h: (h.partition(".")[2], h.startswith("test"))):
        have = metrics[head]
        runs = f"run1 to run{max(have['runs'])}" if len(have["runs"]) > 1 else "run1"
        alike.setdefault(f"mean, max, {runs} / {_spans(have['epochs'])} epochs", []).append(head)
    return "; ".join(f"{', '.join(heads)} / {rest}" for rest, heads in alike.items())


def _spans(numbers: Sequence[int]) -> str:
    """Return `1 to 25` for a gapless list, else the numbers."""
    gapless = len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1
    return f"{numbers[0]} to {numbers[-1]}" if gapless else ", ".join(map(str, numbers))


class Results:
    """Single results of trainings in the order in which they stand: whose, after how many epochs, and the value."""

    def __init__(self) -> None:
        self.whose, self.epochs, self.values = array("q"), array("q"), array("d")

    def add(self, whose: int, epochs: int, value: float) -> None:
        """Append a result of the architecture of that number."""
        self.whose.append(whose)
        self.epochs.append(epochs)
        self.values.append(value)


def tables_of(
    path: Path,
    space_name: str,
    names: Sequence[str],
    where: Callable[[int], str],
    results: Mapping[tuple[str, str], Results],
) -> list[MetricTable]:
    """Return a table a benchmark, from results by benchmark and `<split>[.<metric>]`.

    Architectures that are one network share a row; the trainings of each are runs of it. Raises UnreadableFile
    for a name that is none, `where` it stands, and for results that leave a table next to empty.
    """
    space = get(space_name)
    try:
        rows = space.parse(names)
    except InvalidArchitecture as error:
        raise UnreadableFile(path, where(error.row), error.reason) from None
    _, first, network = np.unique(space.key(rows), return_index=True, return_inverse=True)
    archs = space.format(rows[first])
    columns: dict[str, dict[str, FloatArray]] = {}
    for (benchmark, head), found in results.items():
        own = columns.setdefault(benchmark, {})
        try:
            own |= _run_columns(head, network[np.asarray(found.whose)], found, len(first))
        except ValueError as error:
            raise UnreadableFile(path, f"{benchmark} {head}", str(error)) from None
    return [MetricTable(benchmark, archs, own) for benchmark, own in columns.items() if own]


def _run_columns(head: str, row: IntArray, found: Results, n: int) -> dict[str, FloatArray]:
    """Return columns of `n` rows; results of the same row and epochs are its first, second, ... run.

    Raises ValueError where the columns would be next to empty: then few results could fill any memory.
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
    if n * sum(runs) > SPARSEST * len(r) + SMALL:
        raise ValueError(f"{len(r):,} results would be a table of {n * sum(runs):,} cells")
    columns = {}
    for length, most in zip(lengths, runs, strict=True):
        for k in range(1, most + 1):
            at = (e == length) & (run == k)
            column = np.full(n, np.nan)
            column[r[at]] = v[at]
            columns[f"{head}/run{k}/{length}"] = column
    return columns


def check_kind(kind: str, kinds: Sequence[str]) -> None:
    """Raise UserError unless `kind` is one of the official benchmarks."""
    if kind not in kinds:
        raise UserError(f"no official file of {kind!r} can be imported; known: {', '.join(kinds)}")
