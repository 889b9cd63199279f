"""Cells of the DARTS space, identified up to isomorphism by one table look-up.

A cell has two inputs, vertices 0 and 1 (the outputs of the two previous cells), and four nodes 2 to 5. Each
node reads two different earlier vertices through one operation each; the cell's output is all four nodes.

    vertex    0     1 |   2        3        4        5
    reads             | {0, 1}  3 pairs  6 pairs  10 pairs    180 topologies
    edges             |  0 1      2 3      4 5      6 7       7^8 labellings

All orders of the nodes in which every edge leads forward describe the same cell. `tables`, built on first
use, maps each edge set to its canonical edge set and its edges to their slots there, so that the canonical
form of a cell is a look-up and a sum.
"""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lissnas.spaces.base import Archs, Features, IntArray
from lissnas.spaces.edge_cell_parts import cycle_starts

SHORT = ("max3", "avg3", "skip", "sep3", "sep5", "dil3", "dil5")
"""The operations in the notation, in the order of their digits (in DARTS max_pool_3x3, ..., dil_conv_5x5)."""
N_OPS = len(SHORT)
NODES = 4
INPUTS = 2
EDGES = 2 * NODES
VERTICES = INPUTS + NODES
LABELLINGS = 7**8
"""Assignments of operations to the edges of a cell; the first edge is the most significant digit."""
PAIRS = tuple(sorted(itertools.combinations(range(VERTICES), 2), key=lambda pair: pair[::-1]))
"""Pairs of vertices, ordered by the later vertex: 3, 6 and 10 pairs are available to nodes 3, 4 and 5."""
INPUT_CHOICES = (3, 6, 10)
TOPOLOGIES = 3 * 6 * 10
NODE = np.repeat(np.arange(INPUTS, VERTICES, dtype=np.int8), 2)
"""The target node of each edge."""
CELL = len(INPUT_CHOICES) + EDGES
INVALID_PAIR = 15
"""The code of an invalid pair (the same vertex twice); codes of pairs are 0 to 14."""
OP_STEPS = N_OPS - 1
"""Number of other operations of an edge."""
INPUT_STEPS = VERTICES - 2
"""Number of other source vertices of an edge, excluding its target."""
SLOT = np.cumsum([0, 2, 3, 4])[NODE - INPUTS]
"""Index of the first of the 14 possible edges of a cell that lead to each edge's node."""
N_SLOTS = 14
N_SHAPE = 8
N_CELL_FEATURES = N_OPS * (N_SLOTS + 4) + N_SHAPE


class Tables(NamedTuple):
    """Look-up tables for all 2^16 codes, which are four pairs of vertices of four bits each, for nodes in any order."""

    topology: NDArray[np.int32]  # (65536,) the canonical (minimum) isomorphic topology, -1 if invalid
    first: NDArray[np.int32]  # (65536,) the index of its first isomorphism to that topology, below
    ways: NDArray[np.int32]  # (65536,) the number of its isomorphisms, i.e. automorphisms of the topology
    places: NDArray[np.int8]  # (m, 8) the new slot of each edge, for each isomorphism
    weights: NDArray[np.int32]  # (m, 8) the weight of each edge's operation in the labelling there
    pairs: Archs  # (180, 3) the pairs of nodes 3 to 5, for each topology
    tails: Archs  # (180, 8) the source vertices of the edges, for each topology


@cache
def tables() -> Tables:
    """Return the tables, built on first use in half a second."""
    pairs = np.indices(INPUT_CHOICES).reshape(3, -1).T.astype(np.int8)
    ends = np.array([*PAIRS, (0, 0)])  # the last one is for INVALID_PAIR
    tails = ends[np.insert(pairs, 0, 0, axis=1)].reshape(TOPOLOGIES, EDGES)

    code = np.arange(1 << 4 * NODES)
    raw = np.stack([code >> 4 * node & 15 for node in range(NODES)], axis=1)
    edges = ends[raw]  # (65536, 4, 2)
    none = np.iinfo(np.int32).max
    orders = [np.array([0, 1, *order]) for order in itertools.permutations(range(INPUTS, VERTICES))]
    reached = np.full((len(orders), len(code)), none, np.int32)
    places = np.empty((len(orders), len(code), EDGES), np.int8)
    for q, to in enumerate(orders):
        moved, node = to[edges], to[INPUTS:]
        forward = (moved < node[:, None]).all(axis=(1, 2)) & (raw != INVALID_PAIR).all(axis=1)
        swapped = moved[:, :, 0] > moved[:, :, 1]
        at = 2 * (node - INPUTS)[:, None] + (np.arange(2) ^ swapped[:, :, None])
        places[q] = at.reshape(len(code), EDGES)
        choice = pair_codes()[moved[:, :, 0], moved[:, :, 1]][:, np.argsort(node)]
        reached[q, forward] = (choice @ [0, 60, 10, 1])[forward]
    minimum = reached.min(axis=0)
    start, way = np.nonzero(((reached == minimum) & (minimum != none)).T)
    count = np.bincount(start, minlength=len(code)).astype(np.int32)
    first = (np.cumsum(count) - count).astype(np.int32)
    first[count == 0] = 0
    places = places[way, start]
    weights = (N_OPS ** (EDGES - 1 - places.astype(np.int64))).astype(np.int32)
    topology = np.where(minimum == none, -1, minimum).astype(np.int32)
    return Tables(topology, first, count, places, weights, pairs, tails.astype(np.int8))


@cache
def pair_codes() -> IntArray:
    """Return the `(6, 6)` codes of pairs of vertices, in either order."""
    codes = np.full((VERTICES, VERTICES), INVALID_PAIR)
    for i, (low, high) in enumerate(PAIRS):
        codes[low, high] = codes[high, low] = i
    return codes


@cache
def _digits() -> Archs:
    """Return the `(7^4, 4)` digits of each number below 7^4."""
    return np.indices((N_OPS,) * 4).reshape(4, -1).T.astype(np.int8)


@cache
def cell_classes(n_ops: int = N_OPS) -> int:
    """Return the exact number of cells up to isomorphism.

    By Burnside's lemma, for each class of topologies: the number of labellings that an automorphism fixes is
    `n_ops` to the number of its cycles on edges; the number of classes is the mean over automorphisms.
    """
    t = tables()
    total = 0
    for topology in canonical_topologies():
        (code,) = codes_of(t.pairs[topology][None])
        ways = t.places[t.first[code] : t.first[code] + t.ways[code]]
        fixed = sum(n_ops ** int(cycle_starts(way).sum()) for way in ways)
        total += fixed // len(ways)
    return total


@cache
def canonical_topologies() -> IntArray:
    """Return the topologies that are the minimum of their isomorphism class."""
    t = tables()
    return np.flatnonzero(t.topology[codes_of(t.pairs)] == np.arange(TOPOLOGIES))


def codes_of(pairs: Archs) -> IntArray:
    """Return the `(n,)` codes of topologies from their `(n, 3)` pairs."""
    wide = pairs.astype(np.int64)
    return np.asarray(wide[:, 0] << 4 | wide[:, 1] << 8 | wide[:, 2] << 12)


def canonical_numbers(codes: IntArray, ops: Archs) -> IntArray:
    """Return the `(m,)` numbers of canonical cells: topology times 7^8 plus labelling, negative if invalid.

    `codes` are `(m,)` codes of the pairs of four nodes in any order, `ops` the `(m, 8)` operations of their edges.
    """
    t = tables()
    wide = ops.astype(np.int32)
    first, count = t.first[codes], t.ways[codes]
    labelling = np.einsum("ij,ij->i", wide, t.weights[first])
    for way in range(1, int(count.max(initial=1))):
        more = np.flatnonzero(count > way)
        other = np.einsum("ij,ij->i", wide[more], t.weights[first[more] + way])
        labelling[more] = np.minimum(labelling[more], other)
    return np.asarray(t.topology[codes].astype(np.int64) * LABELLINGS + labelling)


def cells_of(numbers: IntArray) -> Archs:
    """Return `(m, 11)` cells (pairs, then operations) from their numbers."""
    topology, labelling = np.divmod(numbers, LABELLINGS)
    high, low = np.divmod(labelling, N_OPS**4)
    return np.concatenate([tables().pairs[topology], _digits()[high], _digits()[low]], axis=1)


def tails_of(cells: Archs) -> Archs:
    """Return the `(m, 8)` source vertices of the edges of cells."""
    wide = cells[:, :3].astype(np.int64)
    return np.asarray(tables().tails[wide @ [60, 10, 1]])


def edited(cells: Archs, steps: Archs) -> IntArray:
    """Return the `(m,)` canonical numbers of cells after edits, negative if invalid.

    `steps` is `(m, 16)`: the cyclic shift of each edge's operation, then of its source vertex; 0 for no change.
    """
    ops = (cells[:, 3:] + steps[:, :EDGES]) % np.int8(N_OPS)
    other = tails_of(cells)  # index among the vertices without the target node, which comes later
    other = (other + steps[:, EDGES:]) % np.int8(VERTICES - 1)
    tails = other + (other >= NODE)
    a, b = tails[:, ::2], tails[:, 1::2]
    pairs = pair_codes()[a, b]
    codes = pairs[:, 0] | pairs[:, 1] << 4 | pairs[:, 2] << 8 | pairs[:, 3] << 12
    # The operation of the lower vertex of a pair comes first.
    by_node = ops.reshape(-1, NODES, 2)
    ops = np.where((a > b)[:, :, None], by_node[:, :, ::-1], by_node).reshape(-1, EDGES)
    return canonical_numbers(codes, ops)


def cell_distance(a: Archs, b: Archs) -> IntArray:
    """Return the `(m,)` edit distances from cell i of `a` to cell i of `b`, both `(m, 11)`.

    The minimum number of differing operations and inputs over all matchings of the nodes and of the edges
    into matched nodes. Single edits reach it: in the order of the nodes of `b`, no edit adds an edge from a
    later node to an edited one, so that the cell stays acyclic.
    """
    tails_a, tails_b = tails_of(a).T.copy(), tails_of(b).T.copy()
    ops_a, ops_b = a[:, 3:].T.copy(), b[:, 3:].T.copy()
    differ = {(i, j): (ops_a[i] != ops_b[j]).view(np.int8) for i in range(EDGES) for j in range(EDGES)}
    best = np.full(len(a), 2 * EDGES, np.int8)
    for order in itertools.permutations(range(INPUTS, VERTICES)):
        moved = np.array([0, 1, *order], np.int8)[tails_a]
        total = np.zeros(len(a), np.int8)
        for node, to in enumerate(order):
            i, j, k, m = 2 * node, 2 * node + 1, 2 * (to - INPUTS), 2 * (to - INPUTS) + 1
            straight = differ[i, k] + differ[j, m] + (moved[i] != tails_b[k]) + (moved[j] != tails_b[m])
            crossed = differ[i, m] + differ[j, k] + (moved[i] != tails_b[m]) + (moved[j] != tails_b[k])
            total += np.minimum(straight, crossed)
        np.minimum(best, total, out=best)
    return best.astype(np.int64)


@cache
def single_steps() -> Archs:
    """Return the `(80, 16)` steps of all single edits of a cell, operations first."""
    slot = np.repeat(np.arange(2 * EDGES), np.repeat([OP_STEPS, INPUT_STEPS], EDGES))
    steps = np.zeros((len(slot), 2 * EDGES), np.int8)
    steps[np.arange(len(slot)), slot] = np.concatenate(
        [np.tile(np.arange(1, n + 1), EDGES) for n in (OP_STEPS, INPUT_STEPS)]
    )
    return steps


def cell_features(cells: Archs) -> Features:
    """Return `(m, columns)` features of `(m, 11)` cells: one-hot operations of the 14 possible edges, counts, shape.

    Counts for each operation: edges from vertex 0, from vertex 1, from nodes, and in total. Shape: the depths
    of nodes 3 to 5 and the maximum, the edges from 0, 1 and nodes, and the number of nodes that no node reads.
    """
    topology = cells[:, :3].astype(np.int64) @ [60, 10, 1]
    out = np.zeros((len(cells), N_CELL_FEATURES), np.float32)
    n_hot = N_SLOTS * N_OPS
    column = (tables().tails[topology] + SLOT) * N_OPS + cells[:, 3:]
    out[np.arange(len(cells))[:, None], column] = 1
    source = np.minimum(np.concatenate([np.arange(n) for n in (2, 3, 4, 5)]), 2)
    by_source = np.concatenate([source[:, None] == np.arange(3), np.ones((N_SLOTS, 1), bool)], axis=1)
    np.matmul(out[:, :n_hot], np.kron(by_source, np.eye(N_OPS)).astype(np.float32), out=out[:, n_hot:-N_SHAPE])
    out[:, -N_SHAPE:] = _shapes()[topology]
    return out


@cache
def _shapes() -> Features:
    """Return the `(180, 8)` features of topologies, independent of operations."""
    rows: list[list[Any]] = []
    for tails in tables().tails.tolist():
        depth = [0, 0]
        for i in range(0, EDGES, 2):
            depth.append(1 + max(depth[tails[i]], depth[tails[i + 1]]))
        uses = [tails.count(0), tails.count(1), sum(tail >= INPUTS for tail in tails)]
        unread = sum(node not in tails for node in range(INPUTS, VERTICES))
        rows.append([*depth[3:], max(depth), *uses, unread])
    return np.array(rows, np.float32)
