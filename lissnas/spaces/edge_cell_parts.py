"""Edge sets of cells, and edit distance and features of cells with operations on edges."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
from numpy.typing import NDArray

from lissnas.spaces.base import Archs, BoolArray, Features, IntArray

Bits = NDArray[np.uint32]
Masks = NDArray[np.uint8]
PAIRS = 1 << 16
"""Pairs of cells and orders compared at once."""
INVALID = np.uint32(np.iinfo(np.uint32).max)
"""Replaces an edge set in an order in which an edge would lead backward."""
NO_PATH = 99
"""Path length used if there is no path."""


def prune(edges: Bits, vertices: int) -> tuple[Bits, Bits]:
    """Return the pruned edge sets, and the vertices that they use as bits (0 if no path leads to the output)."""
    slots = [(e, int(i), int(j)) for e, (i, j) in enumerate(zip(*np.triu_indices(vertices, 1), strict=True))]
    successors, first = [], 0
    for i in range(vertices - 1):  # the slots of the edges from a vertex are contiguous
        width = vertices - 1 - i
        successors.append((edges >> np.uint32(first) & np.uint32((1 << width) - 1)) << np.uint32(i + 1))
        first += width
    ahead, back = np.ones_like(edges), np.full_like(edges, 1 << (vertices - 1))
    for i in range(vertices - 1):
        ahead |= successors[i] * (ahead >> np.uint32(i) & 1)
    for i in reversed(range(vertices - 1)):
        back |= (successors[i] & back != 0).astype(np.uint32) << np.uint32(i)
    used = ahead & back
    inside = [sum(1 << e for e, i, j in slots if s >> i & 1 and s >> j & 1) for s in range(1 << vertices)]
    return edges & np.array(inside, np.uint32)[used], used


@cache
def edge_sets(vertices: int, max_edges: int, max_vertices: int) -> tuple[Bits, Bits, NDArray[np.int32]]:
    """Return every pruned edge set within the limits, ascending; the vertices that each uses, as bits; and an index.

    The index maps each raw edge set to the row of its pruned edge set, or to -1 if it is invalid.
    """
    kept, used = prune(np.arange(1 << vertices * (vertices - 1) // 2, dtype=np.uint32), vertices)
    valid = (used & 1 != 0) & (np.bitwise_count(kept) <= max_edges) & (np.bitwise_count(used) <= max_vertices)
    pruned, first, inverse = np.unique(kept[valid], return_index=True, return_inverse=True)
    index = np.full(len(kept), -1, np.int32)
    index[valid] = inverse
    return pruned, used[valid][first], index


def invalid_reason(edges: int, vertices: int, max_edges: int, max_vertices: int) -> str:
    """Return why a raw edge set is invalid, for error messages."""
    (kept,), (used,) = prune(np.array([edges], np.uint32), vertices)
    if not used & 1:
        return "no path leads from the input to the output"
    if int(used).bit_count() > max_vertices:
        return f"{int(used).bit_count()} vertices after pruning, at most {max_vertices} are allowed"
    return f"{int(kept).bit_count()} edges after pruning, at most {max_edges} are allowed"


def vertex_orders(vertices: int) -> IntArray:
    """Return the new index of each vertex in every order of the interior ones, `(orders, vertices)`, identity first."""
    last = vertices - 1
    return np.array([(0, *order, last) for order in itertools.permutations(range(1, last))])


def moved_edges(edges: Bits, orders: IntArray) -> Bits:
    """Return edge sets with the vertices in each order, `(orders, n)`; `INVALID` if an edge leads backward."""
    pairs = [*itertools.combinations(range(orders.shape[1]), 2)]
    slot = {pair: e for e, pair in enumerate(pairs)}
    out = np.zeros((len(orders), len(edges)), np.uint32)
    for moved, to in zip(out, orders.tolist(), strict=True):
        backward = sum(1 << e for e, (i, j) in enumerate(pairs) if to[i] > to[j])
        for e, (i, j) in enumerate(pairs):
            if to[i] < to[j]:
                moved |= (edges >> np.uint32(e) & np.uint32(1)) << np.uint32(slot[to[i], to[j]])
        moved[edges & np.uint32(backward) != 0] = INVALID
    return out


def cycle_starts(permutation: IntArray) -> BoolArray:
    """Return a mask of the elements that are the minimum of their cycle: one for each cycle."""
    at = minimum = np.arange(len(permutation))
    for _ in range(len(permutation)):
        at = permutation[at]
        minimum = np.minimum(minimum, at)
    return np.asarray(minimum == np.arange(len(permutation)))


def distance(a: Archs, b: Archs, orders: IntArray, limit: IntArray | None = None) -> IntArray:
    """Return the `(n,)` minimum numbers of simultaneous slot edits that turn `a[i]` into `b[i]` after pruning.

    All orders of the vertices of `b` are tried. The union of the edges of `a` and `b` must be acyclic, as
    otherwise no labelling has only forward edges. Between vertices that `b` uses, each differing edge is an
    edit. The other vertices must be cut off from the input or from the output with the minimum total number of
    edits. Distances above `limit` are returned as `limit`.
    """
    n, vertices = len(a), orders.shape[1]
    tail, head = np.triu_indices(vertices, 1)
    bound = np.full(n, len(tail)) if limit is None else limit
    at_once = max(1, PAIRS // len(orders))
    if n > at_once:
        parts = [slice(lo, lo + at_once) for lo in range(0, n, at_once)]
        return np.concatenate([distance(a[c], b[c], orders, bound[c]) for c in parts])
    matrix_a, matrix_b = (np.zeros((n, vertices, vertices), np.int8) for _ in range(2))
    matrix_a[:, tail, head], matrix_b[:, tail, head] = a, b
    back = np.argsort(orders, axis=1)
    row = np.repeat(np.arange(n), len(orders))
    ordered_b = matrix_b[:, back[:, :, None], back[:, None]].reshape(-1, vertices, vertices)
    out_a, out_b = _out(matrix_a)[row], _out(ordered_b)
    used = _used(out_b)
    edits = ((matrix_a[row] != ordered_b) & used[:, :, None] & used[:, None]).sum(axis=(1, 2))
    todo = np.flatnonzero(edits < bound[row])
    todo = todo[_acyclic(out_a[todo] | out_b[todo])]
    best = bound.copy()
    np.minimum.at(best, row[todo], edits[todo] + _cut(out_a[todo], used[todo]))
    return best


def _out(matrix: Archs) -> Masks:
    """Return the `(n, vertices)` successors of each vertex as bits."""
    bit = np.uint8(1) << np.arange(matrix.shape[1], dtype=np.uint8)
    successors: Masks = ((matrix != 0) * bit).sum(axis=2, dtype=np.uint8)
    return successors


def _used(out: Masks) -> BoolArray:
    vertices = out.shape[1]
    used: BoolArray = np.asarray(out != 0)
    used[:, 0] = used[:, vertices - 1] = True
    return used


def _acyclic(out: Masks) -> BoolArray:
    """Return a mask of the acyclic graphs, by repeatedly removing vertices without incoming edges."""
    n, vertices = out.shape
    alive = np.full(n, (1 << vertices) - 1, np.uint8)
    for _ in range(vertices):
        reached = np.zeros_like(alive)
        for v in range(vertices):
            reached |= np.where(alive >> np.uint8(v) & np.uint8(1) > 0, out[:, v], np.uint8(0))
        alive &= reached
    return np.asarray(alive == 0)


def _cut(out: Masks, used: BoolArray) -> IntArray:
    """Return the `(n,)` minimum numbers of edges to remove so that no unused vertex is on a path to the output."""
    n, vertices = out.shape
    bit = np.uint8(1) << np.arange(vertices, dtype=np.uint8)
    kept = (used * bit).sum(axis=1, dtype=np.uint8)
    total = np.zeros(n, np.int64)
    touched = ((out & ~kept[:, None]) != 0).any(axis=1) | ((out != 0) & ~used).any(axis=1)
    at = np.flatnonzero(touched)
    if not len(at):
        return total
    out, used, kept = out[at], used[at], kept[at]
    minimum = np.full(len(at), vertices * vertices)
    for unreached in range(0, 1 << (vertices - 1), 2):  # cut these from the input, other unused ones from the output
        below = np.uint8(unreached) & ~kept
        count = np.zeros(len(at), np.int64)
        for v in range(vertices - 1):
            dead = ~used[:, v] & (below >> np.uint8(v) & np.uint8(1) == 0)
            forbidden = np.where(used[:, v], below, np.where(dead, below | kept, np.uint8(0)))
            count += np.bitwise_count(out[:, v] & forbidden)
        minimum = np.minimum(minimum, count)
    total[at] = minimum
    return total


def edge_features(rows: Archs, vertices: int, n_ops: int) -> Features:
    """Return `(n, columns)` features: one-hot edges, shape and path statistics.

    Shape: numbers of edges, vertices and paths, longest and shortest path. For each operation: its edges,
    the paths through them, and the maximum number of them on one path.
    """
    tail, head = np.triu_indices(vertices, 1)
    there = rows > 0
    ahead = [np.ones(len(rows))]
    longest, shortest = [np.zeros(len(rows))], [np.zeros(len(rows))]
    most_uses = [np.zeros((n_ops, len(rows)))]
    into = [[(e, int(i)) for e, i in enumerate(tail) if head[e] == v] for v in range(vertices)]
    for v in range(1, vertices):
        ahead.append(np.sum([there[:, e] * ahead[i] for e, i in into[v]], axis=0))
        longest.append(np.max([np.where(there[:, e], longest[i] + 1, -NO_PATH) for e, i in into[v]], axis=0))
        shortest.append(np.min([np.where(there[:, e], shortest[i] + 1, NO_PATH) for e, i in into[v]], axis=0))
        here = [
            np.where(there[:, e], most_uses[i] + (rows[:, e] == np.arange(1, n_ops + 1)[:, None]), -NO_PATH)
            for e, i in into[v]
        ]
        most_uses.append(np.max(here, axis=0))
    back = [np.ones(len(rows))]
    for v in reversed(range(vertices - 1)):
        outward = [(e, int(j)) for e, j in enumerate(head) if tail[e] == v]
        back.insert(0, np.sum([there[:, e] * back[j - v - 1] for e, j in outward], axis=0))
    through = np.stack([there[:, e] * ahead[i] * back[j] for e, (i, j) in enumerate(zip(tail, head, strict=True))], 1)
    used = 1 + np.sum([there[:, tail == v].any(axis=1) for v in range(vertices - 1)], axis=0)
    columns = [there.sum(axis=1), used, ahead[-1], longest[-1], shortest[-1]]
    for op in range(n_ops):
        uses = rows == op + 1
        columns += [uses.sum(axis=1), (uses * through).sum(axis=1), most_uses[-1][op]]
    hot = [rows == op + 1 for op in range(n_ops)]
    return np.concatenate([*hot, np.stack(columns, axis=1)], axis=1, dtype=np.float32)
