"""NAS-Bench-301: the DARTS space of a normal and a reduction cell, up to isomorphism (Zela et al., 2022)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from lissnas.core.errors import InvalidArchitecture, short
from lissnas.spaces import base
from lissnas.spaces.base import Archs, BoolArray, Features, IntArray, Keys, Space
from lissnas.spaces.nasbench301_cells import (
    CELL,
    EDGES,
    INPUT_CHOICES,
    INPUT_STEPS,
    INPUTS,
    LABELLINGS,
    N_CELL_FEATURES,
    N_OPS,
    NODE,
    NODES,
    OP_STEPS,
    SHORT,
    TOPOLOGIES,
    VERTICES,
    canonical_numbers,
    canonical_topologies,
    cell_classes,
    cell_distance,
    cell_features,
    cells_of,
    codes_of,
    edited,
    pair_codes,
    single_steps,
    tails_of,
)

PARENTS = 4096
"""Architectures whose neighbors are generated at once."""


class NASBench301(Space):
    """Pairs of cells, equal if both cells are isomorphic with fixed inputs.

    A row is the normal cell, then the reduction cell. A cell is the pairs that nodes 3, 4 and 5 read
    (0 to 2, 5, 9: an index into `PAIRS`), then the operations of its eight edges, by target node and
    source vertex. The canonical row is the minimum over all orders of the nodes; a key is its index.
    One edit gives an edge another operation (96 ways) or another source: a vertex that the node does not
    read yet and that precedes it in some order of the nodes. There are 24 ways for one order and up to
    48 over all orders, so that the distance doesn't depend on the order.
    """

    name = "nasbench301"
    source = "NAS-Bench-301 / DARTS (Zela et al., 2022; Liu et al., 2019)"
    genome_len = 2 * CELL
    max_edits = 2 * (EDGES + 2 * len(INPUT_CHOICES))
    kinds = ("operation", "input")
    slot_choices = (*INPUT_CHOICES, *(N_OPS,) * EDGES) * 2

    def size(self) -> int:
        """Return the number of pairs of cells up to isomorphism."""
        return cell_classes() ** 2

    # -- rows, cells, numbers ----------------------------------------------------------------------
    def _numbers(self, archs: Archs) -> IntArray:
        """Return the `(n, 2)` numbers of the canonical cells; raises InvalidArchitecture."""
        self.check_rows(archs)
        choices = np.array(self.slot_choices, np.uint8)
        base.raise_first((archs.view(np.uint8) >= choices).any(axis=1), "a choice is out of range")
        cells = archs.reshape(-1, CELL)
        return canonical_numbers(codes_of(cells[:, :3]), cells[:, 3:]).reshape(-1, 2)

    def _rows(self, numbers: IntArray) -> Archs:
        """Return the rows of `(n, 2)` numbers of cells."""
        return cells_of(numbers.ravel()).reshape(-1, self.genome_len)

    def key(self, archs: Archs) -> Keys:
        """Return the index of each row's canonical form among all descriptions."""
        return _joined(self._numbers(archs))

    def unkey(self, keys: Keys) -> Archs:
        """Return the canonical rows with the given keys."""
        both = np.divmod(keys.astype(np.int64), TOPOLOGIES * LABELLINGS)
        return self._rows(np.stack(both, axis=1))

    def canonicalize(self, rows: Archs) -> Archs:
        """Return the minimum row over all orders of the nodes of both cells."""
        return self._rows(self._numbers(rows))

    # -- the protocol ------------------------------------------------------------------------------
    def sample(self, n: int, rng: Generator) -> Archs:
        """Draw `n` uniform networks by rejection: uniform labellings of canonical topologies, accepted if canonical."""
        found = np.empty(0, np.int64)
        while len(found) < 2 * n:
            draws = 2 * (2 * n - len(found)) + 16
            numbers = rng.choice(canonical_topologies(), draws) * LABELLINGS + rng.integers(0, LABELLINGS, draws)
            cells = cells_of(numbers)
            found = np.concatenate([found, numbers[canonical_numbers(codes_of(cells[:, :3]), cells[:, 3:]) == numbers]])
        return self._rows(found[: 2 * n].reshape(n, 2))

    def neighbors(self, archs: Archs) -> tuple[Archs, IntArray]:
        """Return all genotypes that one edit of one cell gives, and their parent row."""
        numbers = self._numbers(archs)
        steps = single_steps()
        rows, parents = [np.empty((0, self.genome_len), np.int8)], [np.empty(0, np.int64)]
        for lo in range(0, len(numbers), PARENTS):
            part = numbers[lo : lo + PARENTS]
            cells = cells_of(part.ravel())
            moved = edited(np.repeat(cells, len(steps), axis=0), np.tile(steps, (len(cells), 1)))
            both = np.tile(part[:, None, None], (1, 2, len(steps), 1))  # (parents, edited cell, step, cell)
            for cell in range(2):
                both[:, cell, :, cell] = moved.reshape(-1, 2, len(steps))[:, cell]
            parent, which, step = np.nonzero((both >= 0).all(axis=3))
            found = both[parent, which, step]
            keep = base.distinct_children(parent, _joined(found), _joined(part))
            rows.append(self._rows(found[keep]))
            parents.append(lo + parent[keep])
        return np.concatenate(rows), np.concatenate(parents)

    def distance(self, a: Archs, b: Archs) -> IntArray:
        """Return the `(n,)` exact edit distances from row i of `a` to row i of `b`."""
        return _distance(self._numbers(a), self._numbers(b))

    def mutate(self, archs: Archs, edits: IntArray, rng: Generator, kind: str | None = None) -> Archs:
        """Return a random genotype at exactly `edits[i]` edits from each row; single edits are equally likely."""
        self.check_kind(kind)
        parents = self._numbers(archs)
        out = parents.copy()

        def draw(todo: IntArray) -> BoolArray:
            found = parents[todo]
            touched, steps = _random_steps(edits[todo], rng, kind)
            found.reshape(-1)[touched] = edited(cells_of(found.reshape(-1)[touched]), steps)
            ok: BoolArray = (found >= 0).all(axis=1) & (found != parents[todo]).any(axis=1)
            far = np.flatnonzero(ok & (edits[todo] > 1))
            ok[far] = _distance(parents[todo[far]], found[far]) == edits[todo[far]]
            out[todo[ok]] = found[ok]
            return ok

        base.retry_edits(edits, draw)
        return self._rows(out)

    def encode(self, archs: Archs) -> Features:
        """Return the `cell_features` of the normal, then of the reduction cell, in canonical form."""
        return cell_features(self.canonicalize(archs).reshape(-1, CELL)).reshape(len(archs), 2 * N_CELL_FEATURES)

    # -- notation ----------------------------------------------------------------------------------
    def format(self, archs: Archs) -> list[str]:
        """Return `normal/reduction`: cells of four nodes joined by `|`, a node is `operation~input+operation~input`.

        For example `sep3~0+skip~1|...|...|.../...`. Operations are those of `SHORT`, inputs are vertices.
        """
        # Many networks of a shrunk space share cells, so format each distinct cell once.
        numbers, at = np.unique(self._numbers(archs), return_inverse=True)
        cells = cells_of(numbers)
        edge = [f"{op}~{tail}" for op in SHORT for tail in range(VERTICES)]
        edges = (cells[:, 3:].astype(np.int64) * VERTICES + tails_of(cells)).tolist()
        text = ["|".join([f"{edge[r[i]]}+{edge[r[i + 1]]}" for i in range(0, EDGES, 2)]) for r in edges]
        return [f"{text[normal]}/{text[reduction]}" for normal, reduction in at.reshape(-1, 2).tolist()]

    def parse(self, names: Sequence[str]) -> Archs:
        """Return the canonical rows of names; nodes may be in any order in which edges lead forward."""
        edge = {f"{op}~{tail}": (tail, i) for i, op in enumerate(SHORT) for tail in range(VERTICES - 1)}
        nodes = {f"{a}+{b}": (*edge[a], *edge[b]) for a in edge for b in edge}
        found = []
        for row, name in enumerate(names):
            parts = [cell.split("|") for cell in name.split("/")]
            if [len(cell) for cell in parts] != [NODES] * 2:
                raise InvalidArchitecture(row, "expected two cells joined by '/', of four nodes joined by '|'")
            for node in itertools.chain(*parts):
                if node not in nodes:
                    example = f"such as sep3~0+skip~1, operations {', '.join(SHORT)}"
                    raise InvalidArchitecture(row, f"expected a node {example}, found {short(repr(node))}")
                found.append(nodes[node])
        edges = np.array(found, np.int64).reshape(-1, 2, EDGES, 2)
        tails, ops = edges[..., 0], edges[..., 1]
        base.raise_first((tails >= NODE).any(axis=(1, 2)), "a node reads a vertex that is not before it")
        a, b = tails[..., ::2], tails[..., 1::2]
        base.raise_first((a == b).any(axis=(1, 2)), "a node reads the same vertex twice")
        order = np.stack([a > b, a < b], axis=-1).reshape(ops.shape).astype(np.int64) + (NODE - INPUTS) * 2
        cells = np.concatenate([pair_codes()[a, b][..., 1:], np.take_along_axis(ops, order, -1)], axis=-1)
        return self.canonicalize(cells.reshape(-1, self.genome_len).astype(np.int8))


def _joined(numbers: IntArray) -> Keys:
    """Return the keys of `(n, 2)` numbers of cells."""
    return (numbers[:, 0] * (TOPOLOGIES * LABELLINGS) + numbers[:, 1]).astype(np.uint64)


def _distance(a: IntArray, b: IntArray) -> IntArray:
    """Return the edit distance of genotypes given by the `(n, 2)` numbers of their cells."""
    total = np.zeros(a.shape, np.int64)
    differ = a != b
    total[differ] = cell_distance(cells_of(a[differ]), cells_of(b[differ]))
    return np.asarray(total.sum(axis=1))


def _random_steps(edits: IntArray, rng: Generator, kind: str | None) -> tuple[IntArray, Archs]:
    """Return the indices of the edited cells among 2n, and their steps: `edits[i]` slots of genotype i in total."""
    n_ops, n_all = OP_STEPS * EDGES, len(single_steps())
    low, high = {None: (0, n_all), "operation": (0, n_ops), "input": (n_ops, n_all)}[kind]
    one = np.flatnonzero(edits == 1)
    cell = rng.integers(0, 2, len(one))
    steps = single_steps()[rng.integers(low, high, len(one))]
    more = np.flatnonzero(edits > 1)
    if not len(more):
        return 2 * one + cell, steps
    # Draw slots in proportion to their number of other choices.
    rate = np.repeat([OP_STEPS * (kind != "input"), INPUT_STEPS * (kind != "operation")], EDGES)
    rate = np.tile(rate, 2).astype(np.float64)
    chosen = base.draw_slots(np.broadcast_to(rate, (len(more), len(rate))), edits[more], rng)
    top = np.tile(np.repeat([OP_STEPS, INPUT_STEPS], EDGES), 2)
    many = (rng.integers(1, top + 1, chosen.shape) * chosen).astype(np.int8)
    both = (2 * more[:, None] + np.arange(2)).ravel()
    return np.concatenate([2 * one + cell, both]), np.concatenate([steps, many.reshape(-1, 2 * EDGES)])
