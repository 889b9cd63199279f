"""Once-for-All MobileNetV3 and NAS-Bench-301, too large to list, and their packaged surrogates."""

from __future__ import annotations

import itertools
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import Generator
from scipy.stats import chi2_contingency, chisquare
from threadpoolctl import threadpool_limits

from lissnas import spaces
from lissnas.benchmarks import surrogates, tables
from lissnas.core.errors import DamagedFile, InvalidArchitecture
from lissnas.spaces import Archs, NASBench301, OFAMobileNetV3, Space
from lissnas.spaces import nasbench301_cells as cells
from lissnas.spaces.subspace import Subspace
from lissnas.testing import SpaceSuite

OFA = OFAMobileNetV3()
NB301 = NASBench301()
MINIMAL = "|".join(["k3e3-k3e3"] * 5)
MAXIMAL = "|".join(["k7e6-k7e6-k7e6-k7e6"] * 5)

Cell = list[list[tuple[int, int]]]  # four nodes with two edges (vertex, operation) each


class TestOFAMobileNetV3(SpaceSuite):
    @pytest.fixture
    def space(self) -> Space:
        return spaces.get("ofa_mobilenetv3")


class TestNASBench301(SpaceSuite):
    @pytest.fixture
    def space(self) -> Space:
        return spaces.get("nasbench301")


# -- Once-for-All ----------------------------------------------------------------------------------
def ofa_row(index: int) -> list[int]:
    """Return the digits of the network at an index, with Python ints only."""
    stages = [[*b, *rest] for b in itertools.product(range(9), repeat=2) for rest in ENDS]
    digits = []
    for power in (4, 3, 2, 1, 0):
        digits += stages[index // 7371**power % 7371]
    return digits


ENDS = [*([a, b] for a in range(9) for b in range(10)), [9, 9]]


def test_ofa_size() -> None:
    assert OFA.size() == 7371**5 == 21_758_655_492_572_485_851 > 2**64
    assert type(OFA.size()) is int
    assert not OFA.exact_keys


@settings(max_examples=60)
@given(st.integers(0, 7371**5 - 1))
def test_ofa_key_is_the_index_modulo_two_to_the_64(index: int) -> None:
    row = np.array([ofa_row(index)], np.int8)
    assert int(OFA.key(row)[0]) == index % 2**64
    if index < 2**64:
        assert (OFA.unkey(OFA.key(row)) == row).all()


@settings(max_examples=60)
@given(st.integers(0, 7371**5 - 2**64 - 1))
def test_ofa_networks_that_share_a_key_differ_in_every_stage(index: int) -> None:
    a, b = np.array([ofa_row(index), ofa_row(index + 2**64)], np.int8)
    assert len(np.unique(OFA.key(np.stack([a, b])))) == 1
    assert (a != b).reshape(5, 4).any(axis=1).all()
    assert Subspace(OFA, listed=a[None]).contains(np.stack([a, b])).tolist() == [True, False]


def test_ofa_sample_is_uniform_over_the_configurations_of_each_stage() -> None:
    rows = OFA.sample(60_000, np.random.default_rng(0))
    assert OFA.valid(rows).all()
    for stage in range(5):
        a, b, c, d = rows[:, 4 * stage : 4 * stage + 4].T.astype(np.int64)
        number = ((a * 9 + b) * 10 + c) * 10 + d
        counts = np.unique(number, return_counts=True)[1]
        counts = np.pad(counts, (0, 7371 - len(counts)))
        assert chisquare(counts).pvalue > 1e-4
        depth = np.bincount((rows[:, 4 * stage : 4 * stage + 4] < 9).sum(axis=1), minlength=5)[2:]
        assert chisquare(depth, np.array([81, 729, 6561]) / 7371 * len(rows)).pvalue > 1e-4


def test_ofa_neighbors_change_a_block_or_the_depth_of_a_stage() -> None:
    (row,) = OFA.parse(["k3e3-k3e3|k5e4-k5e4-k5e4|k7e6-k7e6-k7e6-k7e6|k3e3-k3e3|k3e3-k3e3"])
    rows, _ = OFA.neighbors(row[None])
    # Other choices of 13 blocks; a third block added in 3 stages; a block added or removed in the other two.
    assert len(rows) == 13 * 8 + 3 * 9 + (9 + 1) + 1
    assert ((rows != row).sum(axis=1) == 1).all()
    depth = (rows.reshape(-1, 5, 4) < 9).sum(axis=2) - (row.reshape(5, 4) < 9).sum(axis=1)
    assert (np.abs(depth).sum(axis=1) <= 1).all()
    assert (depth.sum(axis=1) == 1).sum() == 3 * 9 + 9
    assert (depth.sum(axis=1) == -1).sum() == 2


def test_ofa_distance_is_the_number_of_digits_that_differ() -> None:
    rows = OFA.sample(2000, np.random.default_rng(1))
    edits = np.random.default_rng(2).integers(0, 8, len(rows))
    there = OFA.mutate(rows, edits, np.random.default_rng(3))
    moved = (there != rows).sum(axis=1)
    assert ((moved == edits) | (moved == 0)).all()
    assert (moved == edits).mean() > 0.99
    assert OFA.valid(there).all()


def test_ofa_absent_blocks_before_the_end_of_a_stage_are_refused() -> None:
    row = OFA.parse([MAXIMAL])
    row[0, 6] = 9
    with pytest.raises(InvalidArchitecture, match="not a network"):
        OFA.key(row)
    for bad in (MINIMAL + "|k3e3-k3e3", MINIMAL.replace("k3e3-k3e3", "k3e3", 1), MAXIMAL.replace("k7", "k9", 1)):
        with pytest.raises(InvalidArchitecture, match=r"row 1 .*expected"):
            OFA.parse([MINIMAL, bad])


def test_ofa_slots_of_absent_fourth_blocks_are_minus_one() -> None:
    (row,) = OFA.slots(OFA.parse(["k3e3-k3e3|k3e3-k3e3-k3e4|k7e6-k7e6-k7e6-k7e6|k3e3-k3e3|k3e3-k3e3"]))
    assert row.tolist() == [0, 0, 9, -1, 0, 0, 1, 9, 8, 8, 8, 8, 0, 0, 9, -1, 0, 0, 9, -1]


def test_ofa_features_are_the_inputs_of_the_published_predictor_and_their_sums() -> None:
    rows = OFA.parse([MINIMAL, MAXIMAL, "k3e3-k5e4|k7e6-k3e4-k5e3|k3e3-k3e3|k3e3-k3e3|k3e3-k3e3"])
    features = OFA.encode(rows)
    kernels, expansions = features[:, :60].reshape(3, 20, 3), features[:, 60:120].reshape(3, 20, 3)
    assert (kernels[2, :2] == [[1, 0, 0], [0, 1, 0]]).all()
    assert (expansions[2, 4:8] == [[0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, 0]]).all()
    assert (features[:, 150:155] == [[2] * 5, [4] * 5, [2, 3, 2, 2, 2]]).all()
    assert (kernels.sum(axis=2) == (rows < 9)).all()
    assert (features[:, 120:135].reshape(3, 5, 3) == kernels.reshape(3, 5, 4, 3).sum(axis=2)).all()
    assert (features[:, 155] == OFA.costs(rows)["flops"].astype(np.float32)).all()


def test_ofa_costs_of_the_smallest_and_largest_network() -> None:
    costs = OFA.costs(OFA.parse([MINIMAL, MAXIMAL]))
    assert costs["flops"].tolist() == [121_278_672, 566_170_656]
    assert costs["params"].tolist() == [3_410_792, 7_664_760]


def test_ofa_costs_agree_with_torch_layers() -> None:
    torch = pytest.importorskip("torch")
    rows = OFA.sample(3, np.random.default_rng(4))
    costs = OFA.costs(rows)
    for row, flops, params in zip(rows.tolist(), costs["flops"], costs["params"], strict=True):
        net = published_network(torch, row)
        spent: list[int] = []

        def count(layer: Any, _: Any, out: Any, spent: list[int] = spent) -> None:
            spent.append(layer.weight.numel() * out[0, 0].numel())

        for layer in net.modules():
            if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
                layer.register_forward_hook(count)
        with torch.no_grad():
            net.eval()(torch.zeros(1, 3, 224, 224))
        assert sum(spent) == flops
        assert sum(p.numel() for p in net.parameters()) == params


def published_network(torch: Any, row: list[int]) -> Any:
    """Return the published layers of a network of width 1.0, without activations and additions."""
    nn = torch.nn

    def eights(channels: float) -> int:
        down = max(8, int(channels + 4) // 8 * 8)
        return down + 8 if down < 0.9 * channels else down

    def convolution(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> list[Any]:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        return [conv, nn.BatchNorm2d(outputs)]

    class Squeeze(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.reduce = nn.Conv2d(channels, eights(channels // 4), 1)
            self.expand = nn.Conv2d(eights(channels // 4), channels, 1)

        def forward(self, x: Any) -> Any:
            return x * self.expand(self.reduce(x.mean((2, 3), keepdim=True)))

    layers = [*convolution(3, 16, 3, 2), *convolution(16, 16, 3, groups=16), *convolution(16, 16)]
    width = 16
    for stage, (outputs, stride, squeeze) in enumerate(
        [(24, 2, False), (40, 2, True), (80, 2, False), (112, 1, True), (160, 2, True)]
    ):
        for block in range(4):
            digit = row[4 * stage + block]
            if digit == 9:
                continue
            middle = eights(width * (3, 4, 6)[digit % 3])
            layers += convolution(width, middle)
            layers += convolution(middle, middle, (3, 5, 7)[digit // 3], 1 if block else stride, middle)
            layers += [Squeeze(middle)] if squeeze else []
            layers += convolution(middle, outputs)
            width = outputs
    layers += [*convolution(160, 960), nn.AdaptiveAvgPool2d(1), nn.Conv2d(960, 1280, 1, bias=False)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(1280, 1000))


# -- NAS-Bench-301 ---------------------------------------------------------------------------------
PAIR = {pair: i for i, pair in enumerate([(a, b) for b in range(6) for a in range(b)])}


def cell_of(row: list[int]) -> Cell:
    """Return the cell of half a row: nodes 2 to 5, each with its two edges (vertex, operation)."""
    names = [*PAIR]
    tails = [names[i] for i in (0, *row[:3])]
    return [[(tails[i][k], row[3 + 2 * i + k]) for k in range(2)] for i in range(4)]


def row_of(cell: Cell) -> list[int]:
    """Return half a row for a cell."""
    nodes = [sorted(node) for node in cell]
    pairs = [PAIR[a[0], b[0]] for a, b in nodes]
    assert pairs[0] == 0
    return pairs[1:] + [op for node in nodes for _, op in node]


def relabelled(cell: Cell) -> list[Cell]:
    """Return the cell in every order of its nodes in which edges lead forward."""
    found = []
    for order in itertools.permutations(range(2, 6)):
        to = [0, 1, *order]
        moved = [[(to[tail], op) for tail, op in node] for node in cell]
        if all(tail < order[i] for i, node in enumerate(moved) for tail, _ in node):
            found.append([moved[order.index(v)] for v in range(2, 6)])
    return found


def shuffled(rows: Archs, rng: Generator) -> Archs:
    """Return rows with the nodes of each cell in a random order."""
    out = []
    for half in rows.reshape(-1, 11).tolist():
        forms = relabelled(cell_of(half))
        out.append(row_of(forms[rng.integers(len(forms))]))
    return np.array(out, np.int8).reshape(rows.shape)


def graph(cell: Cell) -> Any:
    built = nx.DiGraph()
    for v in range(6):
        built.add_node(v, kind=v if v < 2 else "node")
    for i, node in enumerate(cell):
        for tail, op in node:
            built.add_edge(tail, i + 2, op=op)
    return built


def isomorphic(a: list[int], b: list[int]) -> bool:
    """Return whether two rows are isomorphic, by networkx."""
    match = {
        "node_match": nx.algorithms.isomorphism.categorical_node_match("kind", None),
        "edge_match": nx.algorithms.isomorphism.categorical_edge_match("op", None),
    }
    return all(nx.is_isomorphic(graph(cell_of(a[i : i + 11])), graph(cell_of(b[i : i + 11])), **match) for i in (0, 11))


def descriptions(n: int, rng: Generator, n_ops: int = 7) -> Archs:
    """Return uniform rows, most of them not canonical."""
    return rng.integers(0, [3, 6, 10, *[n_ops] * 8] * 2, (n, 22)).astype(np.int8)


DESCRIPTIONS = (7**8 * 180) ** 2  # 1,076,746,950,455,072,400


def test_nb301_sizes() -> None:
    assert cells.cell_classes() == 382_128_166
    assert NB301.size() == 382_128_166**2 == 146_021_935_250_523_556
    assert len(cells.canonical_topologies()) == cells.cell_classes(1) == 79


@pytest.mark.parametrize("n_ops", [1, 2, 3])
def test_nb301_number_of_cells_with_fewer_operations_agrees_with_a_listing(n_ops: int) -> None:
    """The number of canonical forms of all cells of few operations agrees with Burnside's lemma."""
    listed = np.indices((3, 6, 10) + (n_ops,) * 8).reshape(11, -1).T.astype(np.int8)
    rows = np.concatenate([listed, np.zeros_like(listed)], axis=1)
    assert len(np.unique(NB301.key(rows))) == cells.cell_classes(n_ops)
    assert (NB301.canonicalize(rows) == rows).all(axis=1).sum() == cells.cell_classes(n_ops)


def test_nb301_topologies_agree_with_networkx() -> None:
    """Without operations, the 180 topologies form 79 isomorphism classes."""
    rows = [[*pairs, *[0] * 8] * 2 for pairs in itertools.product(range(3), range(6), range(10))]
    classes: list[list[int]] = []
    for row in rows:
        if not any(isomorphic(row, other) for other in classes):
            classes.append(row)
    assert len(classes) == 79
    assert len(np.unique(NB301.key(np.array(rows, np.int8)))) == 79


def test_nb301_share_of_canonical_rows_among_descriptions() -> None:
    n = 400_000
    rows = descriptions(n, np.random.default_rng(0))
    share = NB301.size() / DESCRIPTIONS
    hits = int((NB301.canonicalize(rows) == rows).all(axis=1).sum())
    assert abs(hits - n * share) < 4.5 * np.sqrt(n * share)


def test_nb301_sample_is_uniform_over_distinct_cells() -> None:
    """Topologies and pairs of operations are as frequent as among canonical rows."""
    rng = np.random.default_rng(1)
    drawn = NB301.sample(60_000, rng).reshape(-1, 11)
    listed = descriptions(200_000, rng)
    halves = listed.reshape(-1, 11)
    listed = halves[(NB301.canonicalize(listed).reshape(-1, 11) == halves).all(axis=1)]
    for statistic in ([60, 10, 1, *[0] * 8], [0] * 9 + [7, 1], [0] * 3 + [7, 1] + [0] * 6):
        a, b = (rows.astype(np.int64) @ statistic for rows in (drawn, listed))
        counts = np.stack([np.bincount(x, minlength=180) for x in (a, b)])
        assert chi2_contingency(counts[:, counts.sum(axis=0) > 0]).pvalue > 1e-4


@settings(max_examples=40)
@given(st.integers(0, 2**32))
def test_nb301_order_of_nodes_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = descriptions(20, rng, n_ops=int(rng.integers(1, 8)))
    other = shuffled(rows, rng)
    assert (NB301.key(other) == NB301.key(rows)).all()
    assert NB301.format(other) == NB301.format(rows)
    assert (NB301.encode(other) == NB301.encode(rows)).all()
    assert (NB301.canonicalize(other) == NB301.canonicalize(rows)).all()
    minimum = [min(row_of(form) for form in relabelled(cell_of(half))) for half in rows.reshape(-1, 11).tolist()]
    assert (NB301.canonicalize(rows).reshape(-1, 11) == minimum).all()
    assert (NB301.distance(rows, other) == 0).all()


@pytest.mark.parametrize("n_ops", [1, 2, 7])
def test_nb301_keys_are_equal_if_and_only_if_networkx_finds_an_isomorphism(n_ops: int) -> None:
    rng = np.random.default_rng(n_ops)
    rows = descriptions(250, rng, n_ops)
    one = NB301.mutate(rows, np.ones(len(rows), np.int64), rng)
    edited = shuffled(one, rng)
    swapped = rows.copy()
    swapped[:, [3, 5]] = rows[:, [5, 3]]
    other = descriptions(250, rng, n_ops)
    other[:, 11:] = rows[:, 11:]
    seen = set()
    for a, b in ((rows, shuffled(rows, rng)), (rows, edited), (one, edited), (rows, swapped), (rows, other)):
        equal = NB301.key(a) == NB301.key(b)
        assert equal.tolist() == [isomorphic(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
        seen |= set(equal.tolist())
    assert seen == {True, False}


def edits_of(cell: Cell) -> set[tuple[int, ...]]:
    """Return the canonical forms of all cells that one edit gives in some order of the nodes."""
    found = set()
    for form in relabelled(cell):
        for i, k in itertools.product(range(4), range(2)):
            tail, op = form[i][k]
            other = form[i][1 - k][0]
            edges = [(tail, o) for o in range(7) if o != op] + [(t, op) for t in range(i + 2) if t not in (tail, other)]
            for edge in edges:
                child = [list(node) for node in form]
                child[i][k] = edge
                found.add(tuple(min(row_of(same) for same in relabelled(child))))
    return found - {tuple(min(row_of(form) for form in relabelled(cell)))}


def test_nb301_neighbors_are_all_single_edits_over_all_orders() -> None:
    rows = NB301.canonicalize(descriptions(30, np.random.default_rng(2)))
    rows[0] = NB301.canonicalize(np.zeros((1, 22), np.int8))[0]
    found, parents = NB301.neighbors(rows)
    for i, row in enumerate(rows.tolist()):
        normal, reduction = edits_of(cell_of(row[:11])), edits_of(cell_of(row[11:]))
        expected = {(*cell, *row[11:]) for cell in normal} | {(*row[:11], *cell) for cell in reduction}
        assert {tuple(child) for child in found[parents == i].tolist()} == expected


def test_nb301_number_of_neighbors() -> None:
    """Between 96 operations plus 24 inputs and 96 plus 48, minus isomorphic results."""
    _, parents = NB301.neighbors(NB301.sample(5000, np.random.default_rng(3)))
    count = np.bincount(parents)
    assert 115 < count.mean() < 135
    assert count.max() <= 96 + 48


def test_nb301_neighbors_do_not_depend_on_chunks() -> None:
    """Rows are processed in chunks of 4,096."""
    rows = NB301.sample(5000, np.random.default_rng(4))
    all_rows, parents = NB301.neighbors(rows)
    for i in (0, 4095, 4096, 4999):
        assert (all_rows[parents == i] == NB301.neighbors(rows[i : i + 1])[0]).all()


def test_nb301_distance_agrees_with_the_graph_of_single_edits() -> None:
    """Neighbors have distance 1, other neighbors of neighbors distance 2; the distance is symmetric."""
    rng = np.random.default_rng(5)
    start = NB301.sample(6, rng)
    start[0] = NB301.canonicalize(np.zeros((1, 22), np.int8))[0]
    for row in start:
        once, _ = NB301.neighbors(row[None])
        assert (NB301.distance(np.tile(row, (len(once), 1)), once) == 1).all()
        twice, _ = NB301.neighbors(once)
        twice = np.unique(twice, axis=0)
        near = np.isin(NB301.key(twice), NB301.key(np.concatenate([once, row[None]])))
        distance = NB301.distance(np.tile(row, (len(twice), 1)), twice)
        assert (distance[~near] == 2).all()
        assert (distance[near] < 2).all()
        assert (NB301.distance(twice, np.tile(row, (len(twice), 1))) == distance).all()


@settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_nb301_distance_is_a_metric_and_reachable_by_single_edits(seed: int) -> None:
    """Every network has a neighbor that is one edit nearer to the other network."""
    rng = np.random.default_rng(seed)
    a, b, c = (NB301.sample(20, rng) for _ in range(3))
    ab, bc, ac = NB301.distance(a, b), NB301.distance(b, c), NB301.distance(a, c)
    assert (ac <= ab + bc).all()
    rows, parents = NB301.neighbors(a)
    nearest = np.full(len(a), 99)
    np.minimum.at(nearest, parents, NB301.distance(rows, b[parents]))
    assert (nearest == ab - 1).all()


def test_nb301_edits_of_each_kind_and_number() -> None:
    rows = NB301.sample(1500, np.random.default_rng(6))
    for edits, kind in itertools.product((1, 2, 3, 4, 6), (None, *NB301.kinds)):
        there = NB301.mutate(rows, np.full(len(rows), edits), np.random.default_rng(7), kind)
        moved = NB301.distance(rows, there)
        assert set(moved.tolist()) <= {0, edits}
        assert (moved == edits).mean() > (0.9 if edits < 6 or kind != "input" else 0.02)
        assert (NB301.canonicalize(there) == there).all()
    operations = NB301.mutate(rows, np.ones(len(rows), np.int64), np.random.default_rng(8), "operation")
    inputs = NB301.mutate(rows, np.ones(len(rows), np.int64), np.random.default_rng(8), "input")
    for row, one, other in zip(rows.tolist(), operations.tolist(), inputs.tolist(), strict=True):
        ops = [sorted(x[3:11] + x[14:]) for x in (row, one, other)]
        assert ops[0] != ops[1]
        assert ops[0] == ops[2]


def test_nb301_single_edits_are_drawn_uniformly() -> None:
    """Edits, not networks, are equally likely: 48 operations and up to 24 inputs per cell."""
    row = NB301.sample(1, np.random.default_rng(9))
    n = 40_000
    there = NB301.mutate(np.repeat(row, n, axis=0), np.ones(n, np.int64), np.random.default_rng(10))
    in_normal = (there[:, :11] != row[:, :11]).any(axis=1).sum()
    ways = []
    for half in row.reshape(2, 11).tolist():
        later = [{v} for v in range(6)]  # the node and the nodes that come after it in every order
        cell = cell_of(half)
        for v in range(5, 1, -1):
            for w in range(v + 1, 6):
                if v in (tail for tail, _ in cell[w - 2]):
                    later[v] |= later[w]
        ways.append(48 + sum(2 * (4 - len(later[v])) for v in range(2, 6)))
    # No edit of this cell gives the cell itself, so none is redrawn.
    assert chisquare([in_normal, n - in_normal], np.array(ways) / sum(ways) * n).pvalue > 1e-4


def test_nb301_notation() -> None:
    name = "skip~1+sep3~0|max3~0+max3~2|dil5~1+avg3~3|dil3~4+sep5~2/" + "|".join(["max3~0+max3~1"] * 4)
    (row,) = NB301.parse([name])
    assert NB301.format(row[None]) == [
        "sep3~0+skip~1|max3~0+max3~2|dil5~1+avg3~3|sep5~2+dil3~4/" + "|".join(["max3~0+max3~1"] * 4)
    ]
    for old, new, reason in (
        ("skip~1", "skip~0", "twice"),
        ("skip~1", "skip~2", "before it"),
        ("dil3~4", "dil3~5", "expected a node"),
        ("max3", "none", "operations max3"),
        ("|", "/", "two cells"),
    ):
        with pytest.raises(InvalidArchitecture, match=f"row 1 .*{reason}"):
            NB301.parse([name, name.replace(old, new, 1)])


# -- surrogates ------------------------------------------------------------------------------------
def test_ofa_predictor_on_the_smallest_and_largest_network() -> None:
    smallest, largest = surrogates.ofa_accuracy(OFA.parse([MINIMAL, MAXIMAL])) / 100
    assert round(float(smallest), 3) == 0.777
    assert round(float(largest), 3) == 0.836


def test_ofa_predictor_agrees_with_its_tutorial(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tutorial prints 81.71 % for its best network at 192 pixels, so the order of the inputs is right."""
    found = "k5e3-k3e3|k5e4-k3e4|k7e6-k7e3-k3e4|k5e4-k5e4-k7e4-k3e3|k3e6-k3e6-k5e6"
    monkeypatch.setattr(surrogates, "RESOLUTION", (192 - 112) // 16)
    surrogates._ofa_layers.cache_clear()
    try:
        assert round(float(surrogates.ofa_accuracy(OFA.parse([found]))[0]), 2) == 81.71
    finally:
        surrogates._ofa_layers.cache_clear()


def test_ofa_predictor_does_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = OFA.sample(100, np.random.default_rng(11))
    whole = surrogates.ofa_accuracy(rows)
    assert whole.shape == (100,)
    assert whole.dtype == np.float64
    assert len(np.unique(whole)) > 90
    monkeypatch.setattr(surrogates, "CHUNK", 7)
    assert np.allclose(surrogates.ofa_accuracy(rows), whole, rtol=0, atol=1e-4)


def test_ofa_predictor_does_not_depend_on_threads() -> None:
    rows = OFA.sample(5_000, np.random.default_rng(11))
    with threadpool_limits(1, "blas"):
        single = surrogates.ofa_accuracy(rows)
    with threadpool_limits(2, "blas"):
        assert (surrogates.ofa_accuracy(rows) == single).all()
    assert surrogates.ofa_accuracy(rows[:0]).shape == (0,)


def test_ofa_predictor_refuses_invalid_rows() -> None:
    rows = OFA.parse([MAXIMAL] * 3)
    rows[1, 2] = 9
    with pytest.raises(InvalidArchitecture) as caught:
        surrogates.ofa_accuracy(rows)
    assert caught.value.row == 1


def test_nb301_published_labels() -> None:
    archs, values = surrogates.nasbench301_labels()
    assert archs.shape == (1218, 22)
    assert len(np.unique(NB301.key(archs))) == 1218
    assert values.dtype == np.float64
    assert values.mean() == pytest.approx(93.107505, abs=1e-5)
    assert values.max() == pytest.approx(94.488884, abs=1e-5)
    # The first genotype of the published list, with its value.
    normal = "max3~0+dil3~1|avg3~1+avg3~0|sep3~1+sep3~0|sep3~1+skip~3"
    first = normal + "/max3~1+skip~0|sep3~1+sep3~0|max3~3+avg3~0|max3~2+dil5~3"
    assert (archs[0] == NB301.parse([first])[0]).all()
    assert values[0] == pytest.approx(93.32119, abs=1e-5)


def test_damaged_surrogates_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nasbench301_surrogate.parquet", "ofa_mbv3_acc_predictor.npz"):
        assert len(tables.read_bytes(name)) > 10_000
        monkeypatch.setitem(tables.CHECKSUMS, name, "0" * 64)
        with pytest.raises(DamagedFile, match=name):
            tables.read_bytes(name)
