"""Keys and neighbors of cells, compared with plain, slow implementations."""

from __future__ import annotations

import itertools

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networkx.algorithms.isomorphism import DiGraphMatcher

from lissnas import spaces
from lissnas.core.errors import InvalidArchitecture
from lissnas.spaces import Archs, CellSpace
from lissnas.spaces.cell import adjacency

SPACE = spaces.get("nasbench101")
assert isinstance(SPACE, CellSpace)
SLOTS = list(itertools.combinations(range(7), 2))


def graph(row: Archs, prune: bool = True) -> nx.DiGraph:
    """Return the cell as a labelled graph, pruned to the paths from input to output."""
    g = nx.DiGraph()
    for v in range(7):
        g.add_node(v, op="in" if v == 0 else "out" if v == 6 else int(row[20 + v]))
    g.add_edges_from(pair for e, pair in enumerate(SLOTS) if row[e])
    if prune:
        used = (nx.descendants(g, 0) | {0}) & (nx.ancestors(g, 6) | {6})
        g = g.subgraph(used).copy()
    return g


def isomorphic(a: nx.DiGraph, b: nx.DiGraph) -> bool:
    if len(a) != len(b) or a.number_of_edges() != b.number_of_edges():
        return False
    return bool(DiGraphMatcher(a, b, lambda x, y: x["op"] == y["op"]).is_isomorphic())


def relabelled(row: Archs, rng: np.random.Generator) -> Archs:
    """Return the same cell with its interior vertices in another order and random dead ends at unused ones."""
    g = graph(row, prune=False)
    for _ in range(50):
        to = {0: 0, 6: 6, **dict(zip(range(1, 6), (1 + rng.permutation(5)).tolist(), strict=True))}
        if all(to[i] < to[j] for i, j in g.edges):
            break
    else:
        to = {v: v for v in range(7)}
    out = np.zeros_like(row)
    for i, j in g.edges:
        out[SLOTS.index((to[i], to[j]))] = 1
    for v in range(1, 6):
        out[20 + to[v]] = row[20 + v]
    unused = [v for v in range(1, 6) if not any(out[e] for e, p in enumerate(SLOTS) if v in p)]
    for v in unused:  # an edge from the input to a dead end is pruned
        out[SLOTS.index((0, v))] = rng.integers(2)
        out[20 + v] = rng.integers(3)
    return out


def random_raw(rng: np.random.Generator) -> Archs:
    """Return random edges and operations: mostly unpruned, often invalid."""
    return np.concatenate([rng.random(21) < 0.45, rng.integers(0, 3, 5)]).astype(np.int8)


@pytest.mark.parametrize("n", [1_500, pytest.param(30_000, marks=pytest.mark.slow)])
def test_key_equality_is_isomorphism(n: int) -> None:
    """On 5,000 or 100,000 pairs: relabelled cells, cells one or two edits away, and raw cells of equal shape."""
    rng = np.random.default_rng(0)
    every = SPACE.enumerate()
    matrix = adjacency(every) > 0
    shape = np.stack([(matrix.any(axis=1) | matrix.any(axis=2)).sum(axis=1), matrix.sum(axis=(1, 2))], axis=1)
    _, first = np.unique(shape, axis=0, return_index=True)  # a cell of each number of vertices and edges
    base = np.concatenate([SPACE.sample(n, rng), every[first]])
    pairs = [(a, relabelled(a, rng)) for a in base]
    pairs += list(zip(base, SPACE.mutate(base, np.ones(len(base), np.int64), rng), strict=True))
    # Two edits: similar cells, sometimes the same one.
    twice = SPACE.mutate(SPACE.mutate(base, np.ones(len(base), np.int64), rng), np.ones(len(base), np.int64), rng)
    pairs += list(zip(base, twice, strict=True))
    raw = [r for r in (random_raw(rng) for _ in range(4 * n // 3)) if nx.has_path(graph(r, prune=False), 0, 6)]
    raw = [r for r in raw if graph(r).number_of_edges() <= 9][: 2 * n // 3]
    by_shape: dict[tuple[int, int], list[Archs]] = {}
    for r in raw:
        g = graph(r)
        by_shape.setdefault((len(g), g.number_of_edges()), []).append(r)
    pairs += [pair for same in by_shape.values() for pair in itertools.pairwise(same)]
    assert len(pairs) >= 10 * n // 3

    left, right = (np.array(side) for side in zip(*pairs, strict=True))
    equal = SPACE.key(left) == SPACE.key(right)
    assert n <= equal.sum() < len(pairs) - n
    wrong = [i for i, (a, b) in enumerate(pairs) if isomorphic(graph(a), graph(b)) != equal[i]]
    assert not wrong


def test_keys_ignore_parts_that_are_pruned() -> None:
    assert isinstance(SPACE, CellSpace)
    rng = np.random.default_rng(0)
    raw = np.array([random_raw(rng) for _ in range(600)])
    pruned = [graph(row) for row in raw]
    connected = np.array([nx.has_path(graph(row, prune=False), 0, 6) for row in raw])
    valid = connected & np.array([g.number_of_edges() <= 9 for g in pruned])
    assert valid.sum() > 100
    assert (~connected).sum() > 10
    found = SPACE.unkey(SPACE.key(raw[valid]))
    for row, g in zip(found, itertools.compress(pruned, valid), strict=True):
        assert isomorphic(graph(row, prune=False).subgraph(graph(row)), g)
        assert row[:21].sum() == g.number_of_edges()
    for row in raw[~valid]:
        with pytest.raises(InvalidArchitecture):
            SPACE.key(row[None])


def test_neighbors_are_all_single_edits_of_all_labellings() -> None:
    """Brute force: every edge flip and operation change of every labelled form, pruned and checked."""
    rng = np.random.default_rng(1)
    archs = SPACE.sample(40, rng)
    rows, parents = SPACE.neighbors(archs)
    keys = SPACE.key(rows)
    for i, arch in enumerate(archs):
        found: set[int] = set()
        g = graph(arch, prune=False)
        for order in itertools.permutations(range(1, 6)):
            to = {0: 0, 6: 6, **dict(zip(range(1, 6), order, strict=True))}
            if not all(to[a] < to[b] for a, b in g.edges):
                continue
            form = np.zeros_like(arch)
            for a, b in g.edges:
                form[SLOTS.index((to[a], to[b]))] = 1
            for v in range(1, 6):
                form[20 + to[v]] = arch[20 + v]
            edits = np.repeat(form[None], 31, axis=0)
            edits[np.arange(21), np.arange(21)] ^= 1
            for e in range(10):
                edits[21 + e, 21 + e // 2] = (form[21 + e // 2] + 1 + e % 2) % 3
            for edit in edits:
                try:
                    found.add(int(SPACE.key(edit[None])[0]))
                except InvalidArchitecture:
                    continue
        found.discard(int(SPACE.key(arch[None])[0]))
        assert found == set(keys[parents == i].tolist())


def test_three_edits_are_not_reachable_by_two() -> None:
    rng = np.random.default_rng(2)
    archs = SPACE.sample(30, rng)
    far = SPACE.key(SPACE.mutate(archs, np.full(30, 3), rng))
    rows, parents = SPACE.neighbors(archs)
    second, via = SPACE.neighbors(rows)
    two_steps = {*zip(parents[via].tolist(), SPACE.key(second).tolist(), strict=True)}
    assert not {(i, int(k)) for i, k in enumerate(far)} & two_steps


@settings(max_examples=200)
@given(st.integers(0, 2**21 - 1), st.integers(0, 242))
def test_any_matrix_is_a_cell_or_is_refused(edges: int, ops: int) -> None:
    row = np.array([edges >> e & 1 for e in range(21)] + [ops // 3**i % 3 for i in range(5)], np.int8)
    g = graph(row, prune=False)
    if not nx.has_path(g, 0, 6):
        with pytest.raises(InvalidArchitecture, match="no path"):
            SPACE.key(row[None])
    elif graph(row).number_of_edges() > 9:
        with pytest.raises(InvalidArchitecture, match="edges after pruning, at most 9"):
            SPACE.key(row[None])
    else:
        name = SPACE.format(row[None])[0]
        assert isomorphic(graph(SPACE.parse([name])[0]), graph(row))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("12-", "expected <bits>-<ops>"),
        ("0-", "no path"),
        ("102-0", "neither 0 nor 1"),
        ("101-3", "not 0 to 2"),
        ("1" * 21 + "-00000", "21 edges after pruning"),
        ("101-00", "expected <bits>-<ops>"),
    ],
)
def test_malformed_cells_are_refused(name: str, reason: str) -> None:
    with pytest.raises(InvalidArchitecture, match=reason) as caught:
        SPACE.parse(["1-", name])
    assert caught.value.row == 1


def test_nine_edges_count_after_pruning() -> None:
    """Eleven edges, of which five lead to dead ends."""
    row = SPACE.parse(["111011" + "-00"])
    raw = np.zeros(26, np.int8)
    for pair in [(0, 1), (0, 2), (0, 6), (1, 2), (1, 6), (2, 6), (0, 5), (1, 5), (2, 5), (0, 4), (1, 4)]:
        raw[SLOTS.index(pair)] = 1
    assert raw.sum() == 11
    assert SPACE.key(raw[None]) == SPACE.key(SPACE.parse(["111111-00"]))
    assert SPACE.key(row) != SPACE.key(raw[None])


def test_two_vertices_have_no_neighbor_at_one_edit() -> None:
    alone = SPACE.parse(["1-"])
    assert SPACE.format(alone) == ["1-"]
    assert len(SPACE.neighbors(alone)[0]) == 0
    assert (SPACE.mutate(alone, np.ones(1, np.int64), np.random.default_rng(0)) == alone).all()
