"""DAG cells with operations on vertices, identified up to isomorphism by one table look-up.

A cell has an input, an output and up to five interior vertices, each with an operation. Seven vertices
have only 2^21 edge sets, so a table holds for each one the edge set that remains after pruning and, for
each labelling (assignment of operations), the canonical cell. The key of a cell is its packed canonical
form: edge set times the number of labellings, plus the labelling.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from lissnas.spaces import base
from lissnas.spaces.base import Archs, BoolArray, Features, IntArray, Keys, Space
from lissnas.spaces.cell_features import cell_features
from lissnas.spaces.cell_notation import HEAD, INTERIOR, N_EDGES, TAIL, V, format_cells, parse_cells
from lissnas.spaces.edge_cell_parts import INVALID, Bits, edge_sets, invalid_reason, moved_edges, vertex_orders

CHUNK = 1 << 22
"""Look-ups made at once when all edits of many cells are tried."""

MAX_TABLE_BYTES = 1_000_000_000
"""Memory that the tables of a space of cells may take, in bytes."""

Packed = NDArray[np.unsignedinteger[Any]]
"""Edge set times labellings, plus labelling; 32 bits if they suffice."""


@dataclass(frozen=True)
class _Tables:
    """The look-up tables of a space of cells (built in under a second, on first use)."""

    pruned: Bits  # (p,) every pruned edge set with at most max_edges edges, ascending
    vertices: Bits  # (p,) the vertices that each of them uses, as bits
    index: NDArray[np.int32]  # (2^21,) raw edge set -> its row in `pruned`, or -1 if invalid
    canonical: Packed  # (p, labellings) -> packed canonical cell
    form_start: IntArray  # (p + 1,) the labelled forms of edge set i are form_start[i]:form_start[i+1]
    form_edges: Bits  # (f,) their edge sets
    form_order: NDArray[np.int16]  # (f,) the order of the vertices that gives each


class CellSpace(Space):
    """Cells of at most `vertices` vertices and `max_edges` edges, equal if isomorphic after pruning.

    A row has 21 edge bits (upper triangle row by row, unused vertices without edges), then five
    operations (0 at unused vertices). One edit sets or clears one edge, or changes one operation,
    in any labelled form of the cell; parts that are on no path from input to output are pruned afterwards.
    The distance from A to B is the minimum number of simultaneous edits of A that give B. It is not
    symmetric: one edit can remove a vertex by pruning, while adding it takes two.
    """

    kinds: tuple[str, ...] = ("operation", "edge")

    def __init__(self, name: str, ops: Sequence[str], max_edges: int, source: str = "", vertices: int = V) -> None:
        self.name = name
        self.source = source
        self.ops = tuple(ops)
        self.max_edges = max_edges
        self.vertices = vertices
        self.n_ops = len(ops)
        if self.n_ops == 1:
            self.kinds = ("edge",)
        self.labellings = self.n_ops**INTERIOR
        self.genome_len = N_EDGES + INTERIOR
        self.max_edits = vertices * (vertices - 1) // 2 + vertices - 2
        self.slot_choices = (self.n_ops,) * INTERIOR
        self._word: type[np.unsignedinteger[Any]] = np.uint32 if self.labellings << N_EDGES <= 1 << 32 else np.uint64

    # -- labellings: the operations of the five interior vertices as one number ----------------
    @cached_property
    def _weights(self) -> IntArray:
        """The weight of each interior vertex in the index of a labelling."""
        return self.n_ops ** np.arange(INTERIOR - 1, -1, -1)

    @cached_property
    def _digits(self) -> IntArray:
        """The operations of each labelling, `(labellings, 5)`."""
        return np.arange(self.labellings)[:, None] // self._weights % self.n_ops

    @cached_property
    def _orders(self) -> IntArray:
        """All orders of the interior vertices, `(120, 7)`: `orders[q, v]` is the new position of vertex v."""
        return vertex_orders(V)

    @cached_property
    def _relabel(self) -> IntArray:
        """Each labelling after reordering the vertices, `(120, labellings)`."""
        weights = self._weights[self._orders[:, 1:-1] - 1]
        moved: IntArray = weights @ self._digits.T
        return moved

    @cached_property
    def _blank(self) -> IntArray:
        """Each labelling with operation 0 at vertices outside the set of vertices, `(128, labellings)`."""
        used = np.arange(1 << V)[:, None] >> np.arange(1, V - 1) & 1
        blank: IntArray = (used * self._weights) @ self._digits.T
        return blank

    @cached_property
    def _shift(self) -> NDArray[np.int32]:
        """The sum of labellings a and b, vertex by vertex modulo `n_ops`, `(labellings, labellings)`."""
        shifted = np.zeros((self.labellings, self.labellings), np.int32)
        for digit, weight in zip(self._digits.astype(np.int32).T, self._weights.astype(np.int32), strict=True):
            shifted += (digit[:, None] + digit) % np.int32(self.n_ops) * weight
        return shifted

    # -- the tables ------------------------------------------------------------------------------
    @cached_property
    def _tables(self) -> _Tables:
        pruned, used, index = edge_sets(V, self.max_edges, self.vertices)
        moved = moved_edges(pruned, self._orders)  # (orders, p)
        minimum = moved.min(axis=0)
        canonical = np.full((len(pruned), self.labellings), np.iinfo(self._word).max, self._word)
        rows = max(1, CHUNK // self.labellings)
        for q in range(len(self._orders)):
            reached = np.flatnonzero(moved[q] == minimum)
            for at in (reached[lo : lo + rows] for lo in range(0, len(reached), rows)):
                packed = self._packed(minimum[at, None], self._relabel[q][self._blank[used[at]]])
                canonical[at] = np.minimum(canonical[at], packed)

        row, order = np.nonzero((moved != INVALID).T)
        start = np.searchsorted(row, np.arange(len(pruned) + 1))
        return _Tables(pruned, used, index, canonical, start, moved[order, row], order.astype(np.int16))

    @cached_property
    def _listing(self) -> Keys:
        """The keys of all cells, ascending: the packed forms that are canonical."""
        t, rows = self._tables, max(1, CHUNK // self.labellings)
        found = []
        for part in (slice(lo, lo + rows) for lo in range(0, len(t.pruned), rows)):
            packed = self._packed(t.pruned[part, None], np.arange(self.labellings))
            found.append(packed[t.canonical[part] == packed].astype(np.uint64))
        return np.concatenate(found)

    # -- rows and packed forms -------------------------------------------------------------------
    def _pack(self, archs: Archs) -> tuple[Bits, IntArray]:
        """Return `(n,)` edge sets and labellings of rows; raises InvalidArchitecture for digits out of range."""
        self.check_rows(archs)
        bits, ops = archs[:, :N_EDGES], archs[:, N_EDGES:]
        base.raise_first((bits.view(np.uint8) > 1).any(axis=1), "an edge is neither 0 nor 1")
        base.raise_first((ops.view(np.uint8) >= self.n_ops).any(axis=1), f"an operation is not 0 to {self.n_ops - 1}")
        packed = np.packbits(bits.view(np.uint8), axis=1, bitorder="little").astype(np.uint32)
        edges = packed[:, 0] | packed[:, 1] << np.uint32(8) | packed[:, 2] << np.uint32(16)
        labels = np.zeros(len(archs), np.int64)
        for i, weight in enumerate(self._weights):
            labels += ops[:, i] * weight
        return edges, labels

    def _packed(self, edges: Bits, labels: IntArray) -> Packed:
        packed: Packed = edges.astype(self._word) * self._word(self.labellings) + labels.astype(self._word)
        return packed

    def _split(self, keys: Keys) -> tuple[Bits, IntArray]:
        """Return the edge sets and labellings of keys."""
        edges, labels = np.divmod(keys.astype(self._word), self._word(self.labellings))
        return edges.astype(np.uint32), labels.astype(np.int64)

    def unkey(self, keys: Keys) -> Archs:
        """Return the canonical rows with the given keys."""
        edges, labels = self._split(keys)
        rows = np.empty((len(keys), self.genome_len), np.int8)
        rows[:, :N_EDGES] = edges[:, None] >> np.arange(N_EDGES, dtype=np.uint32) & 1
        rows[:, N_EDGES:] = self._digits[labels]
        return rows

    def _look_up(self, edges: Bits, labels: IntArray | NDArray[np.int32]) -> tuple[Packed, BoolArray]:
        """Return the packed canonical cells of raw edge sets, and a mask of the valid ones."""
        row = self._tables.index[edges]
        return self._tables.canonical[row, labels], row >= 0

    def key(self, archs: Archs) -> Keys:
        """Return the packed canonical form of each cell; rows may have any labelling, pruned or not."""
        edges, labels = self._pack(archs)
        keys, ok = self._look_up(edges, labels)
        if not ok.all():
            base.raise_first(~ok, invalid_reason(int(edges[np.argmin(ok)]), V, self.max_edges, self.vertices))
        return keys.astype(np.uint64)

    # -- the protocol ----------------------------------------------------------------------------
    def size(self) -> int:
        """Return the number of non-isomorphic cells, by enumeration."""
        return len(self._listing)

    def enumerate(self) -> Archs:
        """Return every cell once, in ascending order of keys."""
        return self.unkey(self._listing)

    def sample(self, n: int, rng: Generator) -> Archs:
        """Draw `n` cells, independent and uniform over the non-isomorphic ones."""
        return self.unkey(self._listing[rng.integers(0, len(self._listing), n)])

    def _forms(self, keys: Keys, free: bool) -> tuple[IntArray, Bits, IntArray]:
        """Return all labelled forms of cells: index of the cell, edge set, labelling.

        With `free`, unused vertices take every operation, so that an edit may connect them.
        """
        t = self._tables
        edges, labels = self._split(keys)
        cell = t.index[edges]
        count = t.form_start[cell + 1] - t.form_start[cell]
        parent = np.repeat(np.arange(len(keys)), count)
        at = np.arange(len(parent)) - np.repeat(np.cumsum(count) - count, count) + t.form_start[cell][parent]
        edges, labels = t.form_edges[at], self._relabel[t.form_order[at], labels[parent]]
        if free:
            used = np.bitwise_count(t.vertices[t.index[edges]]) == V
            for other in self._digits[1:] @ self._weights if not used.all() else ():
                extra = np.flatnonzero(~used)
                extra = extra[self._blank[t.vertices[t.index[edges[extra]]], other] == 0]
                parent = np.concatenate([parent, parent[extra]])
                edges = np.concatenate([edges, edges[extra]])
                labels = np.concatenate([labels, self._shift[labels[extra], other]])
                used = np.concatenate([used, np.ones(len(extra), bool)])
        return parent, edges, labels

    def _edits(self, d: int) -> tuple[Bits, IntArray]:
        """Return all combinations of `d` edits: the edges to flip and the labelling to add."""
        rows = []
        steps = [int(w) * s for w in self._weights for s in range(1, self.n_ops)]
        weights = [int(w) for w in self._weights for _ in range(1, self.n_ops)]
        for n_edges in range(d + 1):
            flips = [sum(1 << e for e in c) for c in itertools.combinations(range(N_EDGES), n_edges)]
            for chosen in itertools.combinations(range(len(steps)), d - n_edges):
                if len({weights[i] for i in chosen}) == len(chosen):
                    rows += [(flip, sum(steps[i] for i in chosen)) for flip in flips]
        table = np.array(rows, np.int64).reshape(-1, 2)
        return table[:, 0].astype(np.uint32), table[:, 1]

    def neighbors(self, archs: Archs) -> tuple[Archs, IntArray]:
        """Return all cells that one edit of a labelled form gives, and their parent row."""
        parent_keys = self.key(archs)
        parent, edges, labels = self._forms(parent_keys, free=False)
        flips, steps = self._edits(1)
        keys, ok = self._look_up(edges[:, None] ^ flips, self._shift[labels[:, None], steps])
        parents = np.repeat(parent, len(flips)).reshape(ok.shape)[ok]
        found = keys[ok].astype(np.uint64)
        keep = base.distinct_children(parents, found, parent_keys)
        return self.unkey(found[keep]), parents[keep]

    def _nearer(self, parents: Keys, children: Keys, edits: IntArray) -> BoolArray:
        """Return an `(n,)` mask of the children that fewer than `edits` edits of their parent give."""
        near: BoolArray = np.equal(parents, children)
        for d in range(1, int(edits.max(initial=0))):
            flips, steps = self._edits(d)
            todo = np.flatnonzero(~near & (edits > d))
            parent, edges, labels = self._forms(parents[todo], free=d > 1)
            rows = max(1, CHUNK // len(flips))
            for lo in range(0, len(parent), rows):
                part = slice(lo, lo + rows)
                keys, ok = self._look_up(edges[part, None] ^ flips, self._shift[labels[part, None], steps])
                hit = (ok & (keys == children[todo][parent[part], None])).any(axis=1)
                near[todo[parent[part][hit]]] = True
        return near

    def mutate(self, archs: Archs, edits: IntArray, rng: Generator, kind: str | None = None) -> Archs:
        """Return a random cell at exactly `edits[i]` edits from each row; single edits are equally likely."""
        self.check_kind(kind)
        parents = self.key(archs)
        keys = parents.copy()

        def draw(todo: IntArray) -> BoolArray:
            found, ok = self._random_edit(parents[todo], edits[todo], rng, kind)
            ok[ok] = ~self._nearer(parents[todo[ok]], found[ok], edits[todo[ok]])
            keys[todo[ok]] = found[ok]
            return ok

        base.retry_edits(edits, draw)
        return self.unkey(keys)

    def _random_edit(self, parents: Keys, edits: IntArray, rng: Generator, kind: str | None) -> tuple[Keys, BoolArray]:
        """Change `edits[i]` distinct slots of a random labelled form; return keys and a mask of the valid cells."""
        t, n = self._tables, len(parents)
        edges, labels = self._split(parents)
        start, end = (t.form_start[t.index[edges] + i] for i in (0, 1))
        at = start + (rng.random(n) * (end - start)).astype(np.int64)
        edges, labels = t.form_edges[at], self._relabel[t.form_order[at], labels]
        unused = ((1 << V) - 1) ^ t.vertices[t.index[edges]]
        labels = self._shift[labels, self._blank[unused, rng.integers(0, self.labellings, n)]]

        rate = np.repeat([1.0, self.n_ops - 1.0], [N_EDGES, INTERIOR])
        if kind is not None:
            rate[slice(None, N_EDGES) if kind == "operation" else slice(N_EDGES, None)] = 0
        chosen = base.draw_slots(np.broadcast_to(rate, (n, len(rate))), edits, rng)
        flips = (chosen[:, :N_EDGES] << np.arange(N_EDGES)).sum(axis=1).astype(np.uint32)
        step = rng.integers(1, max(self.n_ops, 2), (n, INTERIOR)) * chosen[:, N_EDGES:]
        keys, ok = self._look_up(edges ^ flips, self._shift[labels, step @ self._weights])
        return keys.astype(np.uint64), ok

    def encode(self, archs: Archs) -> Features:
        """Return slots, shape, path counts (see `cell_features`) and, if known, costs."""
        self.check_rows(archs)
        costs = [np.asarray(c, np.float32)[:, None] for c in self.costs(archs).values()]
        return np.concatenate([cell_features(archs, self.n_ops), *costs], axis=1)

    # -- notation --------------------------------------------------------------------------------
    def canonicalize(self, rows: Archs) -> Archs:
        """Return the canonical labelling of each cell."""
        return self.unkey(self.key(rows))

    def slots(self, archs: Archs) -> Archs:
        """Return the operation of each interior vertex in canonical order, -1 at unused ones."""
        used = adjacency(archs)[:, 1 : V - 1].any(axis=2)
        return np.where(used, archs[:, N_EDGES:], np.int8(-1))

    def format(self, archs: Archs) -> list[str]:
        """Return `<bits>-<ops>` of the canonical form without unused vertices."""
        rows = self.unkey(self.key(archs))
        return format_cells(rows, self._tables.vertices[self._tables.index[self._pack(rows)[0]]])

    def parse(self, names: Sequence[str]) -> Archs:
        """Return the canonical rows of `<bits>-<ops>`: any labelling with forward edges, pruned or not."""
        return self.unkey(self.key(parse_cells(names, self.ops)))


def adjacency(archs: Archs) -> NDArray[np.int8]:
    """Return `(n, 7, 7)` upper-triangular adjacency matrices of rows."""
    matrix = np.zeros((len(archs), V, V), np.int8)
    matrix[:, TAIL, HEAD] = archs[:, :N_EDGES]
    return matrix


def table_bytes(n_ops: int, max_edges: int, vertices: int) -> int:
    """Return the approximate number of bytes that building the tables of such a space takes."""
    sets = len(edge_sets(V, max_edges, vertices)[0])
    labellings = n_ops**INTERIOR
    word = 4 if labellings << N_EDGES <= 1 << 32 else 8
    total: int = sets * (labellings * word + 120 * 4) + 3 * 4 * labellings**2 + 250 * 8 * labellings
    return total
