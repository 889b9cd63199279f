"""DAG cells with operations on edges, identified up to isomorphism.

A cell of n vertices has a slot for each pair of vertices, row by row of the upper triangle: 0 for no edge, or
the number of the operation. Tables (at most 2^21 edge sets) hold the edge sets after pruning and the orders of
the interior vertices that minimize each one; operations are compared only among orders that tie.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from lissnas.core.errors import UserError
from lissnas.spaces import base
from lissnas.spaces.base import Archs, BoolArray, Features, IntArray, Keys, Space
from lissnas.spaces.edge_cell_parts import (
    INVALID,
    Bits,
    cycle_starts,
    distance,
    edge_features,
    edge_sets,
    invalid_reason,
    moved_edges,
    vertex_orders,
)

DIGITS = b"0123456789abcdefghijklmnopqrstuvwxyz"
"""The character of each operation in the notation, 0 for no edge."""
CHUNK = 1 << 18
"""Rows processed at once."""


@dataclass(frozen=True)
class _Tables:
    """Look-up tables of edge sets; the axis q is the orders of the interior vertices."""

    index: NDArray[np.int32]  # (2^slots,) raw edge set -> its row in `pruned`, -1 if invalid
    pruned: Bits  # (p,) every pruned edge set with at most max_edges edges, ascending
    legal: BoolArray  # (q, p) whether all edges lead forward in that order
    best: BoolArray  # (q, p) whether that order gives the minimum edge set
    canonical: IntArray  # (c,) the rows in `pruned` of the canonical (minimum) edge sets


class EdgeCellSpace(Space):
    """Cells of at most `vertices` vertices and `max_edges` edges, equal if isomorphic after pruning.

    The canonical form has the minimum edge set, and among its labelled forms the minimum operations, slot
    by slot. One edit sets, clears or changes one edge, in any labelled form of the cell; parts that are on
    no path from input to output are pruned afterwards. The distance from A to B is the minimum number of
    simultaneous edits of A that give B. It is not symmetric, because one edit can prune several edges.
    The notation has one character for each slot: `0` no edge, then `1` to `9` and `a` to `z` the operations.
    """

    def __init__(self, name: str, ops: Sequence[str], vertices: int, max_edges: int, source: str = "") -> None:
        self.name = name
        self.source = source
        self.ops = tuple(ops)
        self.n_ops = len(ops)
        self.vertices = vertices
        self.max_edges = max_edges
        self.tail, self.head = np.triu_indices(vertices, 1)
        self.genome_len = self.max_edits = len(self.tail)
        self.slot_choices = (self.n_ops + 1,) * self.genome_len
        self.kinds = ("edge", "operation") if self.n_ops > 1 else ("edge",)
        if (self.n_ops + 1) ** self.genome_len > 2**64 or self.n_ops >= len(DIGITS):
            raise UserError(
                f"{self.n_ops} operations on the {self.genome_len} edges of {vertices} vertices: keys of more than "
                "64 bits would be needed; use fewer operations or vertices"
            )

    # -- orders of the interior vertices and edge sets ---------------------------------------------
    @cached_property
    def _orders(self) -> IntArray:
        return vertex_orders(self.vertices)

    @cached_property
    def _slot(self) -> IntArray:
        """The slot of each pair of vertices, in either order."""
        slot = np.zeros((self.vertices, self.vertices), np.int64)
        slot[self.tail, self.head] = slot[self.head, self.tail] = np.arange(self.genome_len)
        return slot

    @cached_property
    def _source(self) -> IntArray:
        """The slot that each slot takes its edge from in each order, `(q, slots)`."""
        back = np.argsort(self._orders, axis=1)
        return self._slot[back[:, self.tail], back[:, self.head]]

    @cached_property
    def _weights(self) -> Keys:
        """The weight of each slot in a key; the last slot varies fastest."""
        return np.array([(self.n_ops + 1) ** i for i in reversed(range(self.genome_len))], np.uint64)

    @cached_property
    def _tables(self) -> _Tables:
        pruned, _, index = edge_sets(self.vertices, self.max_edges, self.vertices)
        moved = moved_edges(pruned, self._orders)
        minimum = moved.min(axis=0, initial=INVALID)
        return _Tables(index, pruned, moved != INVALID, moved == minimum, np.flatnonzero(minimum == pruned))

    def _edge_sets(self, rows: Archs) -> Bits:
        edges = np.zeros(len(rows), np.uint32)
        for e in range(self.genome_len):
            edges |= (rows[:, e] != 0).astype(np.uint32) << np.uint32(e)
        return edges

    def _bits(self, edges: Bits) -> Archs:
        return (edges[:, None] >> np.arange(self.genome_len, dtype=np.uint32) & 1).astype(np.int8)

    def _raw_key(self, rows: Archs) -> Keys:
        keys = np.zeros(len(rows), np.uint64)
        for e, weight in enumerate(self._weights):
            keys += rows[:, e].astype(np.uint64) * weight
        return keys

    def canonical_forms(self, rows: Archs) -> tuple[Archs, Keys, BoolArray]:
        """Return the canonical forms and keys of raw rows, and an `(n,)` mask of the rows that are valid cells."""
        t = self._tables
        at = t.index[self._edge_sets(rows)]
        ok = at >= 0
        pruned = rows * self._bits(t.pruned[at])
        ties = t.best[:, at]
        first = ties.argmax(axis=0)
        best = np.take_along_axis(pruned, self._source[first], axis=1)
        keys = self._raw_key(best)
        for q in np.flatnonzero(ties.sum(axis=1)).tolist():
            tied = np.flatnonzero(ties[q] & (first != q))
            other = pruned[tied][:, self._source[q]]
            other_keys = self._raw_key(other)
            less = other_keys < keys[tied]
            best[tied[less]], keys[tied[less]] = other[less], other_keys[less]
        return best, keys, ok

    def unkey(self, keys: Keys) -> Archs:
        """Return the rows with the given keys."""
        return (keys[:, None] // self._weights % np.uint64(self.n_ops + 1)).astype(np.int8)

    # -- the protocol ------------------------------------------------------------------------------
    def key(self, archs: Archs) -> Keys:
        """Return the mixed-radix index of the canonical form; rows may have any labelling, pruned or not."""
        return self._canonicalized(archs)[1]

    def canonicalize(self, rows: Archs) -> Archs:
        """Return the canonical form of each cell."""
        return self._canonicalized(rows)[0]

    def _canonicalized(self, archs: Archs) -> tuple[Archs, Keys]:
        """Return canonical forms and keys; raises InvalidArchitecture."""
        self.check_rows(archs)
        base.raise_first(((archs < 0) | (archs > self.n_ops)).any(axis=1), f"an edge is not 0 to {self.n_ops}")
        rows, keys, ok = self.canonical_forms(archs)
        if not ok.all():
            (edges,) = self._edge_sets(archs[~ok][:1]).tolist()
            base.raise_first(~ok, invalid_reason(edges, self.vertices, self.max_edges, self.vertices))
        return rows, keys

    @cached_property
    def _size(self) -> int:
        """The number of cells by Burnside's lemma: for each canonical edge set its labellings up to symmetry."""
        t = self._tables
        edges, symmetries = t.pruned[t.canonical], t.best[:, t.canonical]
        by_group: dict[int, int] = {}
        order_of = symmetries.sum(axis=0)
        for q, source in enumerate(self._source):
            at = np.flatnonzero(symmetries[q])
            cycles = self._bits(edges[at])[:, cycle_starts(source)].sum(axis=1)
            pairs, times = np.unique(np.stack([order_of[at], cycles]), axis=1, return_counts=True)
            for (group, n), k in zip(pairs.T.tolist(), times.tolist(), strict=True):
                by_group[group] = by_group.get(group, 0) + k * self.n_ops**n
        return sum(total // group for group, total in by_group.items())

    def size(self) -> int:
        """Return the number of non-isomorphic cells."""
        return self._size

    @cached_property
    def _listing(self) -> Keys:
        t = self._tables
        edges = t.pruned[t.canonical]
        found = []
        for n in np.unique(np.bitwise_count(edges)).tolist():
            labels = np.indices((self.n_ops,) * n, np.int8).reshape(n, -1).T + np.int8(1)
            some = edges[np.bitwise_count(edges) == n]
            at_once = max(1, CHUNK // len(labels))
            for part in (some[lo : lo + at_once] for lo in range(0, len(some), at_once)):
                bits = self._bits(part) != 0
                labelled = np.zeros((len(part), len(labels), self.genome_len), np.int8)
                for i, used in enumerate(bits):
                    labelled[i][:, used] = labels
                rows = labelled.reshape(-1, self.genome_len)
                keys = self.canonical_forms(rows)[1]
                found.append(keys[keys == self._raw_key(rows)])
        return np.sort(np.concatenate(found))

    def enumerate(self) -> Archs:
        """Return every cell once, in ascending order of keys; raises UserError if there are too many."""
        return self.unkey(self._listing) if self.size() <= base.LISTABLE else super().enumerate()

    @cached_property
    def _shares(self) -> NDArray[np.float64]:
        t = self._tables
        labelled = float(self.n_ops) ** np.bitwise_count(t.pruned[t.canonical])
        shares: NDArray[np.float64] = labelled / labelled.sum()
        return shares

    def sample(self, n: int, rng: Generator) -> Archs:
        """Draw uniform cells by rejection: labelled canonical edge sets, of which canonical forms are accepted."""
        t = self._tables
        found = np.empty((0, self.genome_len), np.int8)
        while len(found) < n:
            drawn = min(2 * (n - len(found)) + 16, CHUNK)
            rows = self._bits(t.pruned[t.canonical[rng.choice(len(t.canonical), drawn, p=self._shares)]])
            rows *= rng.integers(1, self.n_ops + 1, rows.shape).astype(np.int8)
            found = np.concatenate([found, rows[self.canonical_forms(rows)[1] == self._raw_key(rows)]])
        return found[:n]

    @cached_property
    def _reversals(self) -> list[tuple[int, int, IntArray]]:
        """For interior vertices i < j the orders that put j before i, in which an edge from j to i is forward."""
        inner = itertools.combinations(range(1, self.vertices - 1), 2)
        return [(i, j, np.flatnonzero(self._orders[:, j] < self._orders[:, i])) for i, j in inner]

    def neighbors(self, archs: Archs) -> tuple[Archs, IntArray]:
        """Return all cells at one edit from each row, and their parent row."""
        rows, parent_keys = self._canonicalized(archs)
        legal = self._tables.legal[:, self._tables.index[self._edge_sets(rows)]]
        ops = np.arange(1, self.n_ops + 1, dtype=np.int8)
        found, parents = [np.empty((0, self.genome_len), np.int8)], [np.empty(0, np.int64)]
        for e in range(self.genome_len):
            edited = np.repeat(rows[:, None], self.n_ops, axis=1)
            edited[:, :, e] = (edited[:, :, e] + ops) % (self.n_ops + 1)
            found.append(edited.reshape(-1, self.genome_len))
            parents.append(np.repeat(np.arange(len(rows)), self.n_ops))
        for i, j, orders in self._reversals:
            at = np.flatnonzero(legal[orders].any(axis=0))
            q = orders[legal[orders][:, at].argmax(axis=0)]
            reordered = np.take_along_axis(rows[at], self._source[q], axis=1)
            edited = np.repeat(reordered[:, None], self.n_ops, axis=1)
            slot = self._slot[self._orders[q, i], self._orders[q, j]]
            edited[np.arange(len(at))[:, None], np.arange(self.n_ops), slot[:, None]] = ops
            found.append(edited.reshape(-1, self.genome_len))
            parents.append(np.repeat(at, self.n_ops))
        children, keys, ok = self.canonical_forms(np.concatenate(found))
        parent = np.concatenate(parents)[ok]
        keep = base.distinct_children(parent, keys[ok], parent_keys)
        return children[ok][keep], parent[keep]

    def distance(self, a: Archs, b: Archs) -> IntArray:
        """Return the `(n,)` exact edit distances from row i of `a` to row i of `b`."""
        return distance(self.canonicalize(a), self.canonicalize(b), self._orders)

    def mutate(self, archs: Archs, edits: IntArray, rng: Generator, kind: str | None = None) -> Archs:
        """Return a random cell at exactly `edits[i]` edits from each row; single edits are equally likely."""
        self.check_kind(kind)
        parents, parent_keys = self._canonicalized(archs)
        out = parents.copy()

        def draw(todo: IntArray) -> BoolArray:
            rows, keys, ok = self.canonical_forms(self._random_edit(parents[todo], edits[todo], rng, kind))
            ok &= keys != parent_keys[todo]
            far = np.flatnonzero(ok & (edits[todo] > 1))  # after one edit, a changed cell is at distance 1
            ok[far] = distance(parents[todo[far]], rows[far], self._orders, edits[todo[far]]) == edits[todo[far]]
            out[todo[ok]] = rows[ok]
            return ok

        base.retry_edits(edits, draw)
        return out

    def _random_edit(self, rows: Archs, edits: IntArray, rng: Generator, kind: str | None) -> Archs:
        """Change `edits[i]` distinct slots of a random labelled form of row i."""
        legal = self._tables.legal[:, self._tables.index[self._edge_sets(rows)]]
        q = np.where(legal, rng.random(legal.shape), -1).argmax(axis=0)
        forms = np.take_along_axis(rows, self._source[q], axis=1)
        there = forms > 0
        clear, change = kind != "operation", kind != "edge"
        rate = np.where(there, clear * 1.0 + change * (self.n_ops - 1), clear * float(self.n_ops))
        chosen = base.draw_slots(rate, edits, rng)
        # Another digit, including 0 unless the edit is of the operation.
        new = (forms + rng.integers(1, self.n_ops + 1, rate.shape)) % (self.n_ops + 1)
        if kind == "operation":
            new = 1 + (forms - 1 + rng.integers(1, max(self.n_ops, 2), rate.shape)) % self.n_ops
        elif kind == "edge":
            new = np.where(there, 0, new)
        return np.where(chosen, new, forms).astype(np.int8)

    def encode(self, archs: Archs) -> Features:
        """Return one-hot edges, counts, depth, and path statistics of operations (see `edge_features`)."""
        self.check_rows(archs)
        return edge_features(archs, self.vertices, self.n_ops)

    def format(self, archs: Archs) -> list[str]:
        """Return one character for each slot, row by row of the upper triangle."""
        rows = self.canonicalize(archs)
        text = np.frombuffer(DIGITS, np.uint8)[rows]
        return [s.decode() for s in np.ascontiguousarray(text).view(f"S{self.genome_len}").ravel()]

    def parse(self, names: Sequence[str]) -> Archs:
        """Return the canonical rows of names: any labelling with forward edges, pruned or not."""
        codes, lengths = base.as_bytes(names, self.genome_len)
        base.raise_first(lengths != self.genome_len, f"expected {self.genome_len} characters, one per pair of vertices")
        number = np.full(256, -1, np.int8)
        number[np.frombuffer(DIGITS, np.uint8)[: self.n_ops + 1]] = np.arange(self.n_ops + 1)
        rows = number[codes]
        known = ", ".join(f"{DIGITS[i + 1 : i + 2].decode()} {op}" for i, op in enumerate(self.ops))
        base.raise_first((rows < 0).any(axis=1), f"an edge is not 0 (none), {known}")
        return self.canonicalize(rows)
