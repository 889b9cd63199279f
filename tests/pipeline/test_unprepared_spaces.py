"""Shrink spaces that are declared only in YAML, with the `lissnas` command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from lissnas.cli.app import app
from lissnas.oracles.label_table import write_rows
from lissnas.spaces.declared import read_space
from lissnas.testing import SyntheticOracle

OPERATIONS = "[none, skip_connect, nor_conv_1x1, nor_conv_3x3, avg_pool_3x3]"
NAS_BENCH_201 = "name: cell_of_201\nmetric: {name: accuracy, direction: maximize}\npositions:\n" + "".join(
    f"  - {{name: edge{tail}{head}, choices: {OPERATIONS}}}\n" for head in (1, 2, 3) for tail in range(head)
)
"""The cell of Dong and Yang (2020): an operation for each of the six edges between four nodes."""
TWO_BRANCHES = """
name: two_branches            # two interchangeable branches of a block, of one to three layers each
metric: {name: latency_ms, direction: minimize}
positions:
  - {name: depth_a, choices: [1, 2, 3]}
  - {name: op_a1, choices: [conv, dwconv, pool]}
  - {name: op_a2, choices: [conv, dwconv, pool]}
  - {name: depth_b, choices: [1, 2, 3]}
  - {name: op_b1, choices: [conv, dwconv, pool]}
  - {name: op_b2, choices: [conv, dwconv, pool]}
  - {name: stem, choices: [16, 24, 32, 48]}
  - {name: head, choices: [16, 24, 32, 48]}
constraints:
  - {ordered: [stem, head]}
  - {forbid: {op_a1: pool, op_b1: pool}}
  - {at_most: {cost: flops, value: 400}}
inactive:
  - {when: {depth_a: 1}, positions: [op_a2]}
  - {when: {depth_b: 1}, positions: [op_b2]}
equivalent:
  - {exchange: [[depth_a, op_a1, op_a2], [depth_b, op_b1, op_b2]]}
costs:
  flops:
    base: 10
    op_a1: {conv: 90, dwconv: 20, pool: 1}
    op_a2: {conv: 90, dwconv: 20, pool: 1}
    op_b1: {conv: 90, dwconv: 20, pool: 1}
    op_b2: {conv: 90, dwconv: 20, pool: 1}
    stem: {16: 5, 24: 10, 32: 20, 48: 40}
"""
SMALL_CELL = """
name: attention_cell
kind: cell
cell: {vertices: 6, max_edges: 8, ops: [attention, mlp, norm], ops_on: vertices}
metric: {name: accuracy, direction: maximize}
"""


def two_branches() -> int:
    """Count the architectures of TWO_BRANCHES by enumeration in plain Python."""
    flops = {"conv": 90, "dwconv": 20, "pool": 1}
    widths = {16: 5, 24: 10, 32: 20, 48: 40}
    branches = [(1, a) for a in flops] + [(d, a, b) for d in (2, 3) for a in flops for b in flops]
    cost = {branch: sum(flops[op] for op in branch[1:]) for branch in branches}
    found = set()
    for a in branches:
        for b in branches:
            for stem in widths:
                for head in widths:
                    legal = stem <= head and not (a[1] == b[1] == "pool")
                    if legal and 10 + cost[a] + cost[b] + widths[stem] <= 400:
                        found.add((tuple(sorted([a, b], key=str)), stem, head))
    return len(found)


@pytest.mark.parametrize(
    ("text", "size"),
    [(NAS_BENCH_201, 15_625), (TWO_BRANCHES, two_branches()), (SMALL_CELL, None)],
    ids=["nas_bench_201", "two_branches", "cell"],
)
def test_shrink_of_a_new_space(tmp_path: Path, text: str, size: int | None) -> None:
    path, labels, out = tmp_path / "space.yaml", tmp_path / "labels.csv", tmp_path / "shrunk"
    path.write_text(text)
    space = read_space(path)
    assert size is None or space.size() == size
    assert space.size_exact
    rows = space.sample_distinct(100, np.random.default_rng(0))
    landscape = SyntheticOracle(space)
    sign = -1.0 if "minimize" in text else 1.0
    header, *lines = write_rows(space, rows).decode().splitlines()
    values = sign * landscape(rows)
    labels.write_text(
        "\n".join([header, *(f"{line}{value}" for line, value in zip(lines, values, strict=True))]) + "\n"
    )

    command = ["shrink", "--space", str(path), "--labels", str(labels), "--out", str(out), "--threads", "1"]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["full_size"] == space.size()
    assert metrics["tau_low"] > 0.3
    members = space.parse(pq.read_table(out / "subspace.parquet")["arch"].to_pylist())
    assert len(np.unique(space.key(members))) == metrics["size"]
    uniform = landscape(space.sample(2_000, np.random.default_rng(1)))
    assert landscape(members).mean() > uniform.mean() + 0.5 * uniform.std()
