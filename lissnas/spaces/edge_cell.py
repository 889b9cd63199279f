"""DAG cells with operations on edges, told apart up to isomorphism.

A cell of n vertices has a slot for each pair of them, row by row of the upper triangle; a row holds 0
where there is no edge, else the number of its operation. Which edge sets there are, what pruning
leaves of them and which orders of the interior vertices give their least form is tabulated once
(2^21 edge sets at most); operations only have to be compared among the orders that tie.
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
    NOWHERE,
    Bits,
    cycle_starts,
    distance,
    edge_features,
    edge_sets,
    moved_edges,
    vertex_orders,
    why_no_cell,
)

DIGITS = b"0123456789abcdefghijklmnopqrstuvwxyz"
"""The character of each operation in the notation, 0 for no edge."""
CHUNK = 1 << 18
"""Rows that are worked on at once."""


@dataclass(frozen=True)
class _Tables:
    """What a space knows of edge sets; `q` counts orders of the interior vertices."""

    index: NDArray[np.int32]  # (2^slots,) raw edge set -> its row in `pruned`, -1 where it is no cell
    pruned: Bits  # (p,) every pruned edge set with few enough edges, ascending
    legal: BoolArray  # (q, p) whether all edges still lead forward in that order
    best: BoolArray  # (q, p) whether that order gives the least edge set
    own: IntArray  # (c,) the edge sets that are their own least one, as rows in `pruned`


class EdgeCellSpace(Space):
    """Cells of at most `vertices` vertices and `max_edges` edges, equal when isomorphic after pruning.

    The form that is kept has the least edge set, and among those with it the least operations, slot
    by slot. One edit sets, clears or changes one edge, in any labelled form of the cell; what no path
    from input to output uses is pruned afterwards. Distance from A to B is the least number of
    simultaneous edits of A that give B; since pruning can drop much at once, it has a direction.
    Notation: a character a slot, `0` no edge, then `1` to `9` and `a` to `z` the operations.
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
                "64 bits would be needed; take fewer operations or vertices"
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
        """The slot that each slot's edge comes from, `(q, slots)`."""
        back = np.argsort(self._orders, axis=1)
        return self._slot[back[:, self.tail], back[:, self.head]]

    @cached_property
    def _place(self) -> Keys:
        """The weight of each slot in a key, the last slot varying fastest."""
        return np.array([(self.n_ops + 1) ** i for i in reversed(range(self.genome_len))], np.uint64)

    @cached_property
    def _tables(self) -> _Tables:
        pruned, _, index = edge_sets(self.vertices, self.max_edges, self.vertices)
        moved = moved_edges(pruned, self._orders)
        least = moved.min(axis=0, initial=NOWHERE)
        return _Tables(index, pruned, moved != NOWHERE, moved == least, np.flatnonzero(least == pruned))

    def _edge_sets(self, rows: Archs) -> Bits:
        edges = np.zeros(len(rows), np.uint32)
        for e in range(self.genome_len):
            edges |= (rows[:, e] != 0).astype(np.uint32) << np.uint32(e)
        return edges

    def _bits(self, edges: Bits) -> Archs:
        return (edges[:, None] >> np.arange(self.genome_len, dtype=np.uint32) & 1).astype(np.int8)

    def _raw_key(self, rows: Archs) -> Keys:
        keys = np.zeros(len(rows), np.uint64)
        for e, weight in enumerate(self._place):
            keys += rows[:, e].astype(np.uint64) * weight
        return keys

    def settle(self, rows: Archs) -> tuple[Archs, Keys, BoolArray]:
        """Return the form that is kept of raw rows, its key, and which rows are cells at all."""
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
        """Return the rows that keys stand for."""
        return (keys[:, None] // self._place % np.uint64(self.n_ops + 1)).astype(np.int8)

    # -- the protocol ------------------------------------------------------------------------------
    def key(self, archs: Archs) -> Keys:
        """Return the mixed-radix number of the form that is kept, whatever the labelling, pruned or not."""
        return self._settled(archs)[1]

    def canonicalize(self, rows: Archs) -> Archs:
        """Return the form that is kept of each cell."""
        return self._settled(rows)[0]

    def _settled(self, archs: Archs) -> tuple[Archs, Keys]:
        self.check_rows(archs)
        base.raise_first(((archs < 0) | (archs > self.n_ops)).any(axis=1), f"an edge is not 0 to {self.n_ops}")
        rows, keys, ok = self.settle(archs)
        if not ok.all():
            (edges,) = self._edge_sets(archs[~ok][:1]).tolist()
            base.raise_first(~ok, why_no_cell(edges, self.vertices, self.max_edges, self.vertices))
        return rows, keys

    @cached_property
    def _size(self) -> int:
        """Burnside's count: for each least edge set, ways to put operations on it but for its symmetries."""
        t = self._tables
        edges, symmetries = t.pruned[t.own], t.best[:, t.own]
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
        """Return the number of cells that are not isomorphic."""
        return self._size

    @cached_property
    def _listing(self) -> Keys:
        t = self._tables
        edges = t.pruned[t.own]
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
                keys = self.settle(rows)[1]
                found.append(keys[keys == self._raw_key(rows)])
        return np.sort(np.concatenate(found))

    def enumerate(self) -> Archs:
        """Return every cell once, in the order of keys."""
        return self.unkey(self._listing) if self.size() <= base.LISTABLE else super().enumerate()

    @cached_property
    def _shares(self) -> NDArray[np.float64]:
        t = self._tables
        labelled = float(self.n_ops) ** np.bitwise_count(t.pruned[t.own])
        shares: NDArray[np.float64] = labelled / labelled.sum()
        return shares

    def sample(self, n: int, rng: Generator) -> Archs:
        """Draw by rejection: labelled least edge sets, of which the form that is kept of each cell is kept."""
        t = self._tables
        found = np.empty((0, self.genome_len), np.int8)
        while len(found) < n:
            drawn = min(2 * (n - len(found)) + 16, CHUNK)
            rows = self._bits(t.pruned[t.own[rng.choice(len(t.own), drawn, p=self._shares)]])
            rows *= rng.integers(1, self.n_ops + 1, rows.shape).astype(np.int8)
            found = np.concatenate([found, rows[self.settle(rows)[1] == self._raw_key(rows)]])
        return found[:n]

    @cached_property
    def _turns(self) -> list[tuple[int, int, IntArray]]:
        """For each two interior vertices i < j the orders that put j before i: an edge may lead back there."""
        inner = itertools.combinations(range(1, self.vertices - 1), 2)
        return [(i, j, np.flatnonzero(self._orders[:, j] < self._orders[:, i])) for i, j in inner]

    def neighbors(self, archs: Archs) -> tuple[Archs, IntArray]:
        """Return all cells at one edit of each row, and each one's parent row."""
        rows, own = self._settled(archs)
        legal = self._tables.legal[:, self._tables.index[self._edge_sets(rows)]]
        ops = np.arange(1, self.n_ops + 1, dtype=np.int8)
        found, parents = [np.empty((0, self.genome_len), np.int8)], [np.empty(0, np.int64)]
        for e in range(self.genome_len):
            edited = np.repeat(rows[:, None], self.n_ops, axis=1)
            edited[:, :, e] = (edited[:, :, e] + ops) % (self.n_ops + 1)
            found.append(edited.reshape(-1, self.genome_len))
            parents.append(np.repeat(np.arange(len(rows)), self.n_ops))
        for i, j, orders in self._turns:
            at = np.flatnonzero(legal[orders].any(axis=0))
            q = orders[legal[orders][:, at].argmax(axis=0)]
            turned = np.take_along_axis(rows[at], self._source[q], axis=1)
            edited = np.repeat(turned[:, None], self.n_ops, axis=1)
            slot = self._slot[self._orders[q, i], self._orders[q, j]]
            edited[np.arange(len(at))[:, None], np.arange(self.n_ops), slot[:, None]] = ops
            found.append(edited.reshape(-1, self.genome_len))
            parents.append(np.repeat(at, self.n_ops))
        children, keys, ok = self.settle(np.concatenate(found))
        parent = np.concatenate(parents)[ok]
        keep = base.distinct_children(parent, keys[ok], own)
        return children[ok][keep], parent[keep]

    def distance(self, a: Archs, b: Archs) -> IntArray:
        """Return the exact edit distance from row i of `a` to row i of `b`."""
        return distance(self.canonicalize(a), self.canonicalize(b), self._orders)

    def mutate(self, archs: Archs, edits: IntArray, rng: Generator, kind: str | None = None) -> Archs:
        """Return random cells at exactly `edits[i]` edits, slots drawn uniformly among the single edits."""
        self.check_kind(kind)
        own, own_keys = self._settled(archs)
        out = own.copy()

        def draw(todo: IntArray) -> BoolArray:
            rows, keys, ok = self.settle(self._random_edit(own[todo], edits[todo], rng, kind))
            ok &= keys != own_keys[todo]
            far = np.flatnonzero(ok & (edits[todo] > 1))  # one edit that changed the cell is at distance 1
            ok[far] = distance(own[todo[far]], rows[far], self._orders, edits[todo[far]]) == edits[todo[far]]
            out[todo[ok]] = rows[ok]
            return ok

        base.retry_edits(edits, draw)
        return out

    def _random_edit(self, rows: Archs, edits: IntArray, rng: Generator, kind: str | None) -> Archs:
        """Change `edits[i]` different slots of a random labelled form of row i."""
        legal = self._tables.legal[:, self._tables.index[self._edge_sets(rows)]]
        q = np.where(legal, rng.random(legal.shape), -1).argmax(axis=0)
        forms = np.take_along_axis(rows, self._source[q], axis=1)
        there = forms > 0
        clear, change = kind != "operation", kind != "edge"
        rate = np.where(there, clear * 1.0 + change * (self.n_ops - 1), clear * float(self.n_ops))
        chosen = base.draw_slots(rate, edits, rng)
        # A step to another digit, 0 included or not, as the kind of edit has it.
        new = (forms + rng.integers(1, self.n_ops + 1, rate.shape)) % (self.n_ops + 1)
        if kind == "operation":
            new = 1 + (forms - 1 + rng.integers(1, max(self.n_ops, 2), rate.shape)) % self.n_ops
        elif kind == "edge":
            new = np.where(there, 0, new)
        return np.where(chosen, new, forms).astype(np.int8)

    def encode(self, archs: Archs) -> Features:
        """Return one-hot edges, counts, depth, and how operations lie on paths (see `edge_features`)."""
        self.check_rows(archs)
        return edge_features(archs, self.vertices, self.n_ops)

    def format(self, archs: Archs) -> list[str]:
        """Return a character a slot, row by row of the upper triangle."""
        rows = self.canonicalize(archs)
        text = np.frombuffer(DIGITS, np.uint8)[rows]
        return [s.decode() for s in np.ascontiguousarray(text).view(f"S{self.genome_len}").ravel()]

    def parse(self, names: Sequence[str]) -> Archs:
        """Read a character a slot: any labelling whose edges lead forward, pruned or not."""
        codes, lengths = base.as_bytes(names, self.genome_len)
        base.raise_first(lengths != self.genome_len, f"expected {self.genome_len} characters, one a pair of vertices")
        number = np.full(256, -1, np.int8)
        number[np.frombuffer(DIGITS, np.uint8)[: self.n_ops + 1]] = np.arange(self.n_ops + 1)
        rows = number[codes]
        known = ", ".join(f"{DIGITS[i + 1 : i + 2].decode()} {op}" for i, op in enumerate(self.ops))
        base.raise_first((rows < 0).any(axis=1), f"an edge is not 0 (none), {known}")
        return self.canonicalize(rows)
