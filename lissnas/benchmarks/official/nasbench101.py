"""Reader of NAS-Bench-101's `.tfrecord` files, without TensorFlow.

A record is one training of a cell, a JSON row `[hash, epochs, adjacency, operations, metrics]`. The
adjacency is n*n digits row by row, operations are joined by commas, metrics are a protocol buffer in
base64 (model_metrics.proto of github.com/google-research/nasbench). A cell has one record per run.
"""

from __future__ import annotations

import base64
import json
import math
import struct
from array import array
from pathlib import Path

from lissnas.benchmarks.official import protobuf
from lissnas.benchmarks.official.files import UnreadableFile
from lissnas.benchmarks.official.layout import MetricTable, Results, tables_of
from lissnas.benchmarks.official.tfrecord import records
from lissnas.core.errors import first_line, short
from lissnas.spaces.cell_notation import V

OFFICIAL_OPS = {"conv3x3-bn-relu": "0", "conv1x1-bn-relu": "1", "maxpool3x3": "2"}
"""The operations' digits in the space's notation."""
FINAL = 2
"""Index of the evaluation used: 0 before, 1 halfway through, 2 after the training."""
VALIDATION = 4
"""The field number of the validation accuracy in an evaluation."""
TEST = 5
"""The field number of the test accuracy in an evaluation."""


def read(path: Path) -> list[MetricTable]:
    """Return the table of a `.tfrecord` file; raises UnreadableFile.

    The trainings of isomorphic cells are runs of one network.
    """
    numbers: dict[tuple[str, str], int] = {}
    names: list[str] = []
    offsets = array("q")
    results = {VALIDATION: Results(), TEST: Results()}
    for offset, data in records(path):
        try:
            epochs, spec, accuracies = _row(data)
            number = numbers.setdefault(spec, len(numbers))
            if number == len(names):
                names.append(_name(*spec))
                offsets.append(offset)
        except (ValueError, TypeError, RecursionError) as error:
            raise UnreadableFile(path, f"record at byte {offset}", first_line(error)) from None
        for split, value in accuracies.items():
            results[split].add(number, epochs, 100.0 * value)
    if not names:
        raise UnreadableFile(path, "the file", "holds no records")
    by_head = {("nasbench101", "val"): results[VALIDATION], ("nasbench101", "test"): results[TEST]}
    return tables_of(path, "nasbench101", names, lambda i: f"record at byte {offsets[i]}", by_head)


def _row(data: bytes) -> tuple[int, tuple[str, str], dict[int, float]]:
    """Return epochs, cell (adjacency and operations as in the file) and accuracies of a record."""
    row = json.loads(data)
    if not isinstance(row, list) or [type(x) for x in row] != [str, int, str, str, str]:
        raise ValueError("expected a JSON row of hash, epochs, adjacency, operations and metrics")
    _, epochs, adjacency, operations, metrics = row
    if not 0 < epochs < 10_000:
        raise ValueError(f"{epochs} epochs")
    return epochs, (adjacency, operations), _accuracies(base64.b64decode(metrics, validate=True))


def _accuracies(message: bytes) -> dict[int, float]:
    """Return validation and test accuracy, 0 to 1, after the complete training."""
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


def _name(adjacency: str, operations: str) -> str:
    """Return a cell in the notation of the space; raises ValueError."""
    n = math.isqrt(len(adjacency))
    if not 2 <= n <= V or len(adjacency) != n * n or adjacency.strip("01"):
        raise ValueError(f"the adjacency {short(repr(adjacency))} is not n*n digits 0 and 1, n from 2 to {V}")
    rows = [adjacency[i * n : (i + 1) * n] for i in range(n)]
    if any("1" in row[: i + 1] for i, row in enumerate(rows)):
        raise ValueError("an edge of the adjacency leads backwards")
    first, *interior, last = operations.split(",") if "," in operations else ("", "")
    if (first, last) != ("input", "output") or len(interior) != n - 2 or not set(interior) <= set(OFFICIAL_OPS):
        expected = f"input, {n - 2} of {', '.join(OFFICIAL_OPS)}, output"
        raise ValueError(f"the operations are {short(repr(operations))}, expected {expected}")
    bits = "".join(row[i + 1 :] for i, row in enumerate(rows))
    return f"{bits}-{''.join(OFFICIAL_OPS[name] for name in interior)}"
