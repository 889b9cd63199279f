"""DAG cells with operations on vertices, told apart up to isomorphism by one table look-up.

A cell has an input, an output and up to five interior vertices, each with an operation. With seven
vertices there are only 2^21 edge sets, so one table answers for all of them at once: which edge set
remains after pruning, and, for each way to put operations on it, the canonical cell. A cell's key
*is* its canonical form, packed: edge set times number of labellings, plus labelling.
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
from lissnas.spaces.edge_cell_parts import NOWHERE, Bits, edge_sets, moved_edges, vertex_orders, why_no_cell

CHUNK = 1 << 22
"""Look-ups made at once when all edits of many cells are tried."""

MOST_BYTES = 1_000_000_000
"""Memory that the tables of a space of cells may take."""

Packed = NDArray[np.unsignedinteger[Any]]
"""Edge set times labellings, plus labelling: 32 bits where that is enough."""


@dataclass(frozen=True)
class _Tables:
    """What a space of cells knows once and for all (built in under a second, on first use)."""

    pruned: Bits  # (p,) every pruned edge set with few enough edges, ascending
    vertices: Bits  # (p,) the vertices that each of them uses, as bits
    index: NDArray[np.int32]  # (2^21,) raw edge set -> its row in `pruned`, or -1 if no valid cell
    canonical: Packed  # (p, labellings) -> packed canonical cell
    form_start: IntArray  # (p + 1,) the labelled forms of edge set i are form_start[i]:form_start[i+1]
    form_edges: Bits  # (f,) their edge sets
    form_order: NDArray[np.int16]  # (f,) the permutation that leads to each


class CellSpace(Space):
    """Cells of at most `vertices` vertices and `max_edges` edges, equal when isomorphic after pruning.

    A row is 21 edge bits (upper triangle row by row, unused vertices without edges), then five
    operations (0 at unused vertices). One edit sets or clears one edge, or changes one operation,
    in any labelled form of the cell; what no path from input to output uses is pruned afterwards.
    Distance from A to B is the least number of simultaneous edits of A that give B. Since pruning
    can drop a vertex in one edit where putting it back takes two, distance has a direction.
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
    def _place(self) -> IntArray:
        """The weight of each interior vertex in a labelling's number."""
        return self.n_ops ** np.arange(INTERIOR - 1, -1, -1)

    @cached_property
    def _digits(self) -> IntArray:
        """The operations of each labelling, `(labellings, 5)`."""
        return np.arange(self.labellings)[:, None] // self._place % self.n_ops

    @cached_property
    def _orders(self) -> IntArray:
        """All orders of the interior vertices: `orders[q, v]` is where vertex v goes, `(120, 7)`."""
        return vertex_orders(V)

    @cached_property
    def _relabel(self) -> IntArray:
        """Labelling after each order, `(120, labellings)`."""
        weights = self._place[self._orders[:, 1:-1] - 1]
        moved: IntArray = weights @ self._digits.T
        return moved

    @cached_property
    def _blank(self) -> IntArray:
        """Labelling with operation 0 at vertices that are not in the set, `(128, labellings)`."""
        used = np.arange(1 << V)[:, None] >> np.arange(1, V - 1) & 1
        blank: IntArray = (used * self._place) @ self._digits.T
        return blank

    @cached_property
    def _shift(self) -> NDArray[np.int32]:
        """Labelling a with labelling b added vertex by vertex modulo the operations."""
        shifted = np.zeros((self.labellings, self.labellings), np.int32)
        for digit, place in zip(self._digits.astype(np.int32).T, self._place.astype(np.int32), strict=True):
            shifted += (digit[:, None] + digit) % np.int32(self.n_ops) * place
        return shifted

    # -- the tables ------------------------------------------------------------------------------
    @cached_property
    def _tables(self) -> _Tables:
        pruned, used, index = edge_sets(V, self.max_edges, self.vertices)
        moved = moved_edges(pruned, self._orders)  # (orders, p)
        least = moved.min(axis=0)
        canonical = np.full((len(pruned), self.labellings), np.iinfo(self._word).max, self._word)
        rows = max(1, CHUNK // self.labellings)
        for q in range(len(self._orders)):
            reached = np.flatnonzero(moved[q] == least)
            for at in (reached[lo : lo + rows] for lo in range(0, len(reached), rows)):
                packed = self._packed(least[at, None], self._relabel[q][self._blank[used[at]]])
                canonical[at] = np.minimum(canonical[at], packed)

        row, order = np.nonzero((moved != NOWHERE).T)
        start = np.searchsorted(row, np.arange(len(pruned) + 1))
        return _Tables(pruned, used, index, canonical, start, moved[order, row], order.astype(np.int16))

    @cached_property
    def _listing(self) -> Keys:
        """The keys of all cells, ascending: packed forms that are their own canonical form."""
        t, rows = self._tables, max(1, CHUNK // self.labellings)
        found = []
        for part in (slice(lo, lo + rows) for lo in range(0, len(t.pruned), rows)):
            own = self._packed(t.pruned[part, None], np.arange(self.labellings))
            found.append(own[t.canonical[part] == own].astype(np.uint64))
        return np.concatenate(found)

    # -- rows and numbers ------------------------------------------------------------------------
    def _pack(self, archs: Archs) -> tuple[Bits, IntArray]:
        """Return edge sets and labellings of rows; raises InvalidArchitecture for bad digits."""
        self.check_rows(archs)
        bits, ops = archs[:, :N_EDGES], archs[:, N_EDGES:]
        base.raise_first((bits.view(np.uint8) > 1).any(axis=1), "an edge is neither 0 nor 1")
        base.raise_first((ops.view(np.uint8) >= self.n_ops).any(axis=1), f"an operation is not 0 to {self.n_ops - 1}")
        packed = np.packbits(bits.view(np.uint8), axis=1, bitorder="little").astype(np.uint32)
        edges = packed[:, 0] | packed[:, 1] << np.uint32(8) | packed[:, 2] << np.uint32(16)
        labels = np.zeros(len(archs), np.int64)
        for i, weight in enumerate(self._place):
            labels += ops[:, i] * weight
        return edges, labels

    def _packed(self, edges: Bits, labels: IntArray) -> Packed:
        packed: Packed = edges.astype(self._word) * self._word(self.labellings) + labels.astype(self._word)
        return packed

    def _split(self, keys: Keys) -> tuple[Bits, IntArray]:
        """Return the edge sets and labellings that keys are packed from."""
        edges, labels = np.divmod(keys.astype(self._word), self._word(self.labellings))
        return edges.astype(np.uint32), labels.astype(np.int64)

    def unkey(self, keys: Keys) -> Archs:
        """Return the canonical rows that keys stand for."""
        edges, labels = self._split(keys)
        rows = np.empty((len(keys), self.genome_len), np.int8)
        rows[:, :N_EDGES] = edges[:, None] >> np.arange(N_EDGES, dtype=np.uint32) & 1
        rows[:, N_EDGES:] = self._digits[labels]
        return rows

    def _look_up(self, edges: Bits, labels: IntArray | NDArray[np.int32]) -> tuple[Packed, BoolArray]:
        """Return the packed canonical cells of raw edge sets, and which of them are cells at all."""
        row = self._tables.index[edges]
        return self._tables.canonical[row, labels], row >= 0

    def key(self, archs: Archs) -> Keys:
        """Return the packed canonical form of each cell, whatever its labelling, pruned or not."""
        edges, labels = self._pack(archs)
        keys, ok = self._look_up(edges, labels)
        if not ok.all():
            base.raise_first(~ok, why_no_cell(int(edges[np.argmin(ok)]), V, self.max_edges, self.vertices))
        return keys.astype(np.uint64)

    # -- the protocol ----------------------------------------------------------------------------
    def size(self) -> int:
        """Return the number of cells that are not isomorphic, by enumeration."""
        return len(self._listing)

    def enumerate(self) -> Archs:
        """Return every cell once, in the order of keys."""
        return self.unkey(self._listing)

    def sample(self, n: int, rng: Generator) -> Archs:
        """Draw cells, each of the non-isomorphic ones equally likely."""
        return self.unkey(self._listing[rng.integers(0, len(self._listing), n)])

    def _forms(self, keys: Keys, free: bool) -> tuple[IntArray, Bits, IntArray]:
        """Return all labelled forms of cells: the cell's row, edge set, labelling.

        With `free`, unused vertices take every operation, so that an edit may wire them in.
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
            for other in self._digits[1:] @ self._place if not used.all() else ():
                extra = np.flatnonzero(~used)
                extra = extra[self._blank[t.vertices[t.index[edges[extra]]], other] == 0]
                parent = np.concatenate([parent, parent[extra]])
                edges = np.concatenate([edges, edges[extra]])
                labels = np.concatenate([labels, self._shift[labels[extra], other]])
                used = np.concatenate([used, np.ones(len(extra), bool)])
        return parent, edges, labels

    def _edits(self, d: int) -> tuple[Bits, IntArray]:
        """Return all sets of `d` slots with their change: edges to flip, labelling to add."""
        rows = []
        steps = [int(w) * s for w in self._place for s in range(1, self.n_ops)]
        place = [int(w) for w in self._place for _ in range(1, self.n_ops)]
        for n_edges in range(d + 1):
            flips = [sum(1 << e for e in c) for c in itertools.combinations(range(N_EDGES), n_edges)]
            for chosen in itertools.combinations(range(len(steps)), d - n_edges):
                if len({place[i] for i in chosen}) == len(chosen):
                    rows += [(flip, sum(steps[i] for i in chosen)) for flip in flips]
        table = np.array(rows, np.int64).reshape(-1, 2)
        return table[:, 0].astype(np.uint32), table[:, 1]

    def neighbors(self, archs: Archs) -> tuple[Archs, IntArray]:
        """Return all cells that one edit of some labelled form gives, and each one's parent row."""
        own = self.key(archs)
        parent, edges, labels = self._forms(own, free=False)
        flips, steps = self._edits(1)
        keys, ok = self._look_up(edges[:, None] ^ flips, self._shift[labels[:, None], steps])
        parents = np.repeat(parent, len(flips)).reshape(ok.shape)[ok]
        found = keys[ok].astype(np.uint64)
        keep = base.distinct_children(parents, found, own)
        return self.unkey(found[keep]), parents[keep]

    def _nearer(self, own: Keys, children: Keys, edits: IntArray) -> BoolArray:
        """Return which children are reached from their parent in fewer than `edits` edits."""
        near: BoolArray = np.equal(own, children)
        for d in range(1, int(edits.max(initial=0))):
            flips, steps = self._edits(d)
            todo = np.flatnonzero(~near & (edits > d))
            parent, edges, labels = self._forms(own[todo], free=d > 1)
            rows = max(1, CHUNK // len(flips))
            for lo in range(0, len(parent), rows):
                part = slice(lo, lo + rows)
                keys, ok = self._look_up(edges[part, None] ^ flips, self._shift[labels[part, None], steps])
                hit = (ok & (keys == children[todo][parent[part], None])).any(axis=1)
                near[todo[parent[part][hit]]] = True
        return near

    def mutate(self, archs: Archs, edits: IntArray, rng: Generator, kind: str | None = None) -> Archs:
        """Return random cells at exactly `edits[i]` edits, slots drawn uniformly among the single edits."""
        self.check_kind(kind)
        own = self.key(archs)
        keys = own.copy()

        def draw(todo: IntArray) -> BoolArray:
            found, ok = self._random_edit(own[todo], edits[todo], rng, kind)
            ok[ok] = ~self._nearer(own[todo[ok]], found[ok], edits[todo[ok]])
            keys[todo[ok]] = found[ok]
            return ok

        base.retry_edits(edits, draw)
        return self.unkey(keys)

    def _random_edit(self, own: Keys, edits: IntArray, rng: Generator, kind: str | None) -> tuple[Keys, BoolArray]:
        """Change `edits[i]` different slots of a random labelled form; say which gave a cell."""
        t = self._tables
        edges, labels = self._split(own)
        cell = t.index[edges]
        at = t.form_start[cell] + (rng.random(len(own)) * (t.form_start[cell + 1] - t.form_start[cell])).astype(
            np.int64
        )
        edges, labels = t.form_edges[at], self._relabel[t.form_order[at], labels]
        unused = ((1 << V) - 1) ^ t.vertices[t.index[edges]]
        labels = self._shift[labels, self._blank[unused, rng.integers(0, self.labellings, len(own))]]

        rate = np.repeat([1.0, self.n_ops - 1.0], [N_EDGES, INTERIOR])
        if kind is not None:
            rate[slice(None, N_EDGES) if kind == "operation" else slice(N_EDGES, None)] = 0
        chosen = base.draw_slots(np.broadcast_to(rate, (len(own), len(rate))), edits, rng)
        flips = (chosen[:, :N_EDGES] << np.arange(N_EDGES)).sum(axis=1).astype(np.uint32)
        step = rng.integers(1, max(self.n_ops, 2), (len(own), INTERIOR)) * chosen[:, N_EDGES:]
        keys, ok = self._look_up(edges ^ flips, self._shift[labels, step @ self._place])
        return keys.astype(np.uint64), ok

    def encode(self, archs: Archs) -> Features:
        """Return slots, shape, path counts and, where known, costs (see `cell_features`)."""
        self.check_rows(archs)
        costs = [np.asarray(c, np.float32)[:, None] for c in self.costs(archs).values()]
        return np.concatenate([cell_features(archs, self.n_ops), *costs], axis=1)

    # -- notation --------------------------------------------------------------------------------
    def canonicalize(self, rows: Archs) -> Archs:
        """Return the canonical labelling of each cell."""
        return self.unkey(self.key(rows))

    def slots(self, archs: Archs) -> Archs:
        """Return the operation of each interior vertex in the canonical order, -1 at unused ones."""
        used = adjacency(archs)[:, 1 : V - 1].any(axis=2)
        return np.where(used, archs[:, N_EDGES:], np.int8(-1))

    def format(self, archs: Archs) -> list[str]:
        """Return `<bits>-<ops>` of the canonical form without its unused vertices."""
        rows = self.unkey(self.key(archs))
        return format_cells(rows, self._tables.vertices[self._tables.index[self._pack(rows)[0]]])

    def parse(self, names: Sequence[str]) -> Archs:
        """Read `<bits>-<ops>`: any labelling whose edges lead forward, pruned or not."""
        return self.unkey(self.key(parse_cells(names, self.ops)))


def adjacency(archs: Archs) -> NDArray[np.int8]:
    """Return `(n, 7, 7)` upper-triangular adjacency matrices of rows."""
    matrix = np.zeros((len(archs), V, V), np.int8)
    matrix[:, TAIL, HEAD] = archs[:, :N_EDGES]
    return matrix


def table_bytes(n_ops: int, max_edges: int, vertices: int) -> int:
    """Return about how much memory the tables of such a space take while they are made."""
    sets = len(edge_sets(V, max_edges, vertices)[0])
    labellings = n_ops**INTERIOR
    word = 4 if labellings << N_EDGES <= 1 << 32 else 8
    total: int = sets * (labellings * word + 120 * 4) + 3 * 4 * labellings**2 + 250 * 8 * labellings
    return total
