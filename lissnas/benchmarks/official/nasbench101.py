"""NAS-Bench-101's `.tfrecord` files, read without TensorFlow.

A record is a JSON row `[hash, epochs, adjacency, operations, metrics]`: a training of a cell. The
adjacency is n*n digits row by row, operations are joined by commas, metrics are a protocol buffer in
base64 (model_metrics.proto of github.com/google-research/nasbench). A cell has a record a run.
"""

from __future__ import annotations

import base64
import json
import math
import struct
from array import array
from pathlib import Path

import numpy as np

from lissnas.benchmarks.official import protobuf
from lissnas.benchmarks.official.files import UnreadableFile
from lissnas.benchmarks.official.layout import MetricTable, run_columns
from lissnas.benchmarks.official.tfrecord import records
from lissnas.core.errors import InvalidArchitecture, first_line, short
from lissnas.spaces import Archs, FloatArray, IntArray, get
from lissnas.spaces.cell_notation import N_EDGES, V
from lissnas.spaces.nasbench101 import OPS

OFFICIAL_OPS = {"conv3x3-bn-relu": 0, "conv1x1-bn-relu": 1, "maxpool3x3": 2}
assert len(OFFICIAL_OPS) == len(OPS)
FINAL = 2
"""The evaluation that counts: after none, half, all of the training."""
VALIDATION, TEST = 4, 5
"""Numbers of the accuracies' fields in an evaluation."""


def read(path: Path) -> list[MetricTable]:
    """Return the table of a `.tfrecord` file; raises UnreadableFile.

    Isomorphic cells are one network: each of their trainings is a run of it.
    """
    numbers: dict[tuple[str, str], int] = {}
    offsets = array("q")
    cell, epochs, values = array("q"), array("q"), {VALIDATION: array("d"), TEST: array("d")}
    for offset, data in records(path):
        try:
            length, spec, accuracies = _row(data)
        except (ValueError, TypeError, RecursionError) as error:
            raise UnreadableFile(path, f"record at byte {offset}", first_line(error)) from None
        number = numbers.setdefault(spec, len(numbers))
        if number == len(offsets):
            offsets.append(offset)
        cell.append(number)
        epochs.append(length)
        for name, value in accuracies.items():
            values[name].append(100.0 * value)
    if not numbers:
        raise UnreadableFile(path, "the file", "holds no records")
    space = get("nasbench101")
    try:
        keys = space.key(_rows(list(numbers)))
    except InvalidArchitecture as error:
        raise UnreadableFile(path, f"record at byte {offsets[error.row]}", error.reason) from None
    _, first, network = np.unique(keys, return_index=True, return_inverse=True)
    row, length_of = network[np.asarray(cell)], np.asarray(epochs)
    columns: dict[str, FloatArray] = {}
    for split, name in (("val", VALIDATION), ("test", TEST)):
        try:
            columns |= run_columns(split, row, length_of, np.asarray(values[name]), len(first))
        except ValueError as error:
            raise UnreadableFile(path, "the file", str(error)) from None
    specs = list(numbers)
    archs = space.format(_rows([specs[int(i)] for i in first]))
    return [MetricTable("nasbench101", archs, columns)]


def _row(data: bytes) -> tuple[int, tuple[str, str], dict[int, float]]:
    """Return epochs, cell (adjacency and operations as written) and accuracies of a record."""
    row = json.loads(data)
    if not isinstance(row, list) or [type(x) for x in row] != [str, int, str, str, str]:
        raise ValueError("expected a JSON row of hash, epochs, adjacency, operations and metrics")
    _, epochs, adjacency, operations, metrics = row
    if not 0 < epochs < 10_000:
        raise ValueError(f"{epochs} epochs")
    return epochs, (adjacency, operations), _accuracies(base64.b64decode(metrics, validate=True))


def _accuracies(message: bytes) -> dict[int, float]:
    """Return validation and test accuracy, 0 to 1, after the whole of the training."""
    evaluations = [v for n, kind, v in protobuf.fields(message) if n == 1 and kind == protobuf.BYTES]
    if len(evaluations) <= FINAL:
        raise ValueError(f"metrics of {len(evaluations)} evaluations, expected {FINAL + 1}")
    final = evaluations[FINAL]
    assert isinstance(final, bytes)
    found = {n: v for n, kind, v in protobuf.fields(final) if kind == protobuf.DOUBLE}
    accuracies = {}
    for number, name in ((VALIDATION, "validation_accuracy"), (TEST, "test_accuracy")):
        raw = found.get(number)
        if not isinstance(raw, bytes):
            raise ValueError(f"the evaluation has no {name}")
        (value,) = struct.unpack("<d", raw)
        if not (math.isfinite(value) and 0 <= value <= 1):
            raise ValueError(f"{name} is {value}, expected 0 to 1")
        accuracies[number] = value
    return accuracies


def _rows(specs: list[tuple[str, str]]) -> Archs:
    """Return rows of the space for cells as the file writes them; raises InvalidArchitecture."""
    rows = np.zeros((len(specs), N_EDGES + V - 2), np.int8)
    sizes = np.array([math.isqrt(len(adjacency)) for adjacency, _ in specs])
    for n in np.unique(sizes):
        at = np.flatnonzero(sizes == n)
        with_size = [specs[int(i)] for i in at]
        rows[at] = _rows_of_size(with_size, int(n), at)
    return rows


def _rows_of_size(specs: list[tuple[str, str]], n: int, at: IntArray) -> Archs:
    """Return rows for cells of `n` vertices, which are the cells `at` of all."""
    for i, (adjacency, _) in zip(at, specs, strict=True):
        if not 2 <= n <= V or len(adjacency) != n * n or adjacency.strip("01"):
            raise InvalidArchitecture(
                int(i), f"the adjacency {short(repr(adjacency))} is not n*n digits 0 and 1, n from 2 to {V}"
            )
    digits = np.frombuffer("".join(a for a, _ in specs).encode(), np.uint8).reshape(-1, n, n) - ord("0")
    below = np.tril(digits).any(axis=(1, 2))
    if below.any():
        raise InvalidArchitecture(int(at[np.argmax(below)]), "an edge of the adjacency leads backwards")
    # The output is the last of seven vertices; those that a smaller cell lacks stay without edges.
    place = np.array([*range(n - 1), V - 1])
    matrix = np.zeros((len(specs), V, V), np.int8)
    matrix[:, place[:, None], place] = digits
    known: dict[str, list[int]] = {}
    for i, (_, operations) in zip(at, specs, strict=True):
        if operations not in known:
            known[operations] = _labels(operations, n, int(i))
    rows = np.zeros((len(specs), N_EDGES + V - 2), np.int8)
    rows[:, :N_EDGES] = matrix[:, *np.triu_indices(V, 1)]
    rows[:, N_EDGES : N_EDGES + n - 2] = np.array([known[o] for _, o in specs], np.int8).reshape(len(specs), n - 2)
    return rows


def _labels(operations: str, n: int, row: int) -> list[int]:
    """Return the numbers of a cell's interior operations."""
    first, *interior, last = operations.split(",") if "," in operations else ("", "")
    if (first, last) != ("input", "output") or len(interior) != n - 2 or not set(interior) <= set(OFFICIAL_OPS):
        expected = f"input, {n - 2} of {', '.join(OFFICIAL_OPS)}, output"
        raise InvalidArchitecture(row, f"the operations are {short(repr(operations))}, expected {expected}")
    return [OFFICIAL_OPS[name] for name in interior]
