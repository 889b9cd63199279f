"""Accel-NASBench: notation, costs checked on all trained networks, and the packaged labels."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lissnas import spaces
from lissnas.benchmarks import surrogates, tables
from lissnas.core.errors import InvalidArchitecture
from lissnas.shrinkers.problem import packaged
from lissnas.spaces import AccelNASBench, Space
from lissnas.testing import SpaceSuite

SPACE = AccelNASBench()
SMALLEST = "|".join(["e1k3l1s0"] * 7)
LARGEST = "|".join(["e6k5l3s1"] * 5 + ["e6k5l4s1", "e6k5l3s1"])
WIDTHS = (32, 16, 24, 40, 80, 112, 192, 320)
STRIDES = (1, 2, 2, 2, 1, 2, 1)
PUBLISHED = {
    "flops": "00b5df11d2c88a6b18f0825aaaf742d3b80207586ae830820b864dc0e14fd82f",
    "params": "c3660ea7899949a2059b44fa442016f1c7dc78ba412e78b7162d18f015de99c7",
}
"""The sha256 of the published multiply-adds and parameters of all 5,125 networks, sorted by name, as int64."""


class TestAccelNASBench(SpaceSuite):
    @pytest.fixture
    def space(self) -> Space:
        return spaces.get("accel_nasbench")


def test_size() -> None:
    assert SPACE.size() == 3**7 * 2**7 * 3**6 * 4 * 2**7 == 104_485_552_128
    assert SPACE.genome_len == 28


def test_notation_of_the_ends() -> None:
    rows = SPACE.parse([SMALLEST, LARGEST])
    assert rows[0].tolist() == [0] * 28
    assert (rows[1] == SPACE.radix - 1).all()
    assert SPACE.format(rows) == [SMALLEST, LARGEST]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 12))
def test_parse_inverts_format_and_mutations_are_exact(seed: int, edits: int) -> None:
    rng = np.random.default_rng(seed)
    rows = SPACE.sample(20, rng)
    assert (SPACE.parse(SPACE.format(rows)) == rows).all()
    there = SPACE.mutate(rows, np.full(20, edits), rng)
    assert ((there != rows).sum(axis=1) == edits).all()


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("e1k3l1s0|", "", "expected 7 blocks"),
        ("e1k3l1s0", "e2k3l1s0", "block 0: expected e1, e4 or e6, .* found 'e2k3l1s0'"),
        ("e1k3l1s0", "e1k7l1s0", "block 0"),
        ("e1k3l1s0", "e1k3l4s0", "l1 to l3"),
        ("e1k3l1s0", "e1k3l1s2", "s0 or s1"),
        ("e1k3l1s0", "", "block 0: .* found ''"),
    ],
)
def test_invalid_names_are_refused(old: str, new: str, reason: str) -> None:
    with pytest.raises(InvalidArchitecture, match=f"row 1.*{reason}"):
        SPACE.parse([LARGEST, SMALLEST.replace(old, new, 1), "worse"])


def test_only_the_sixth_block_has_four_layers() -> None:
    blocks = SMALLEST.split("|")
    for i in range(7):
        name = "|".join("e1k3l4s0" if j == i else block for j, block in enumerate(blocks))
        if i == 5:
            assert SPACE.format(SPACE.parse([name])) == [name]
        else:
            with pytest.raises(InvalidArchitecture, match=f"block {i}"):
                SPACE.parse([name])


# -- costs -----------------------------------------------------------------------------------------
def loops(name: str) -> tuple[int, int]:
    """Return multiply-adds and parameters of a network, layer by layer."""
    macs, params, side = 0, 0, 112

    def layer(weights: int, outputs: int, side: int) -> None:
        nonlocal macs, params
        macs += (weights + 4 * outputs) * side * side
        params += weights + 2 * outputs

    layer(27 * 32, 32, side)
    for i, block in enumerate(name.split("|")):
        e, k, n, squeeze = (int(block[at]) for at in (1, 3, 5, 7))
        for j in range(n):
            inputs, outputs = WIDTHS[i] if j == 0 else WIDTHS[i + 1], WIDTHS[i + 1]
            middle = e * inputs
            if e > 1:
                layer(inputs * middle, middle, side)
            side //= STRIDES[i] if j == 0 else 1
            layer(k * k * middle, middle, side)
            if squeeze:
                macs += middle * (side * side + 1) + 2 * middle * (inputs // 4)
                params += 2 * middle * (inputs // 4) + middle + inputs // 4
            layer(middle * outputs, outputs, side)
    layer(320 * 1280, 1280, side)
    return macs + 1280 * 50 + 1280 * 1000, params + 1281 * 1000


def test_costs_agree_with_loops() -> None:
    rows = SPACE.sample(2_000, np.random.default_rng(0))
    costs = SPACE.costs(rows)
    expected = np.array([loops(name) for name in SPACE.format(rows)])
    assert (costs["flops"] == expected[:, 0]).all()
    assert (costs["params"] == expected[:, 1]).all()


def test_costs_agree_with_every_published_network() -> None:
    names = tables.read("accel_nasbench.parquet")["arch"].to_pylist()
    assert names == sorted(names)
    costs = SPACE.costs(SPACE.parse(names))
    found = {name: hashlib.sha256(values.astype("<i8").tobytes()).hexdigest() for name, values in costs.items()}
    assert found == PUBLISHED


# -- labels ----------------------------------------------------------------------------------------
def test_packaged_labels() -> None:
    archs, values, runs = surrogates.accel_nasbench_labels()
    assert len(np.unique(SPACE.key(archs))) == len(values) == 5_125
    assert set(runs.tolist()) == {1, 2}
    assert (values.min(), values.max()) == (42.85, 67.052)
    source = packaged(spaces.get("accel_nasbench"))
    assert source.labels is not None
    assert sorted(source.labels.values) == sorted(values)
    assert (np.lexsort(source.labels.archs.T[::-1]) == np.arange(5_125)).all()
    assert "shortened schedule" in source.notes[0]


def test_file_has_the_measured_devices() -> None:
    table = tables.read("accel_nasbench.parquet")
    devices = {name: table[name].null_count for name in table.column_names[3:]}
    assert devices == {
        "latency_zcu102": 2,
        "latency_vck190": 2,
        "throughput_a100": 0,
        "throughput_3090": 3,
        "throughput_tpuv2": 37,
        "throughput_tpuv3": 44,
        "throughput_zcu102": 2,
        "throughput_vck190": 2,
    }
