"""Features of cells for predictors: slots, shape, and path statistics, all invariant under isomorphism.

Arrays are `(n,)` for each vertex, so that every step of a recurrence over the seven vertices is one pass
over contiguous memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lissnas.spaces.base import Archs, Features

V = 7
INTERIOR = range(1, V - 1)
FAR = 99
"""Path length used if there is no path."""

Column = NDArray[np.int16]


def cell_features(archs: Archs, n_ops: int) -> Features:
    """Return `(n, columns)` features: edges, one-hot operations, shape, path and edge-type counts."""
    tail, head = np.triu_indices(V, 1)
    wide = np.ascontiguousarray(archs.T).astype(np.int16)
    edge = {(int(i), int(j)): wide[e] for e, (i, j) in enumerate(zip(tail, head, strict=True))}
    used = {v: sum_(edge[i, v] for i in range(v)) > 0 for v in INTERIOR}
    has = {(v, op): ((wide[20 + v] == op) & used[v]).astype(np.int16) for v in INTERIOR for op in range(n_ops)}
    columns = [*edge.values(), *has.values()]
    columns += _shape(edge, has, used, n_ops)
    by_length = _paths_by_uses(edge, {v: np.ones_like(wide[0]) for v in INTERIOR})
    columns += [*by_length, sum_(by_length)]
    for op in range(n_ops):
        columns += _paths_by_uses(edge, {v: has[v, op] for v in INTERIOR})
    columns += _edge_types(edge, has, n_ops)
    out = np.empty((len(archs), len(columns)), np.float32)
    for i, column in enumerate(columns):
        out[:, i] = column
    return out


def sum_(columns: Iterable[NDArray[Any]]) -> Column:
    """Return the sum of columns as int16."""
    total: Column = np.stack(list(columns)).sum(axis=0, dtype=np.int16)
    return total


def _shape(
    edge: dict[tuple[int, int], Column],
    has: dict[tuple[int, int], Column],
    used: dict[int, NDArray[np.bool_]],
    n_ops: int,
) -> list[Column]:
    ones = {v: np.ones_like(edge[0, 1]) for v in INTERIOR}
    incoming = [sum_(edge[i, v] for i in range(v)) for v in range(1, V)]
    outgoing = [sum_(edge[v, j] for j in range(v + 1, V)) for v in range(V - 1)]
    columns = [sum_(used.values()), sum_(edge.values()), incoming[-1], outgoing[0]]
    columns += [np.max(incoming, axis=0), np.max(outgoing, axis=0)]
    columns.append(_extreme_path(edge, ones, np.minimum, FAR))
    for op in range(n_ops):
        uses = {v: has[v, op] for v in INTERIOR}
        columns.append(sum_(uses.values()))
        columns.append(_extreme_path(edge, uses, np.maximum, -FAR))
        columns.append(_extreme_path(edge, uses, np.minimum, FAR))
    return columns


def _extreme_path(edge: dict[tuple[int, int], Column], weight: dict[int, Column], best: np.ufunc, none: int) -> Column:
    """Return the maximum or minimum total vertex weight of a path from input to output."""
    total = [np.zeros_like(edge[0, 1])]
    for v in range(1, V):
        at = np.full_like(total[0], none)
        for i in range(v):
            at = best(at, np.where(edge[i, v] > 0, total[i], none))
        total.append(at + weight[v] if v < V - 1 else at)
    return total[-1]


def _paths_by_uses(edge: dict[tuple[int, int], Column], uses: dict[int, Column]) -> list[Column]:
    """Return the numbers of paths through exactly 0, 1, ..., 5 of the vertices in `uses`."""
    zero = np.zeros_like(edge[0, 1])
    count = [[zero + 1] + [zero] * (V - 2)]
    for v in range(1, V):
        here = [sum_([count[i][k] * edge[i, v] for i in range(v)]) for k in range(min(v, V - 1))]
        here += [zero] * (V - 1 - len(here))
        if v < V - 1:
            here = [np.where(uses[v] > 0, here[k - 1] if k else zero, here[k]) for k in range(V - 1)]
        count.append(here)
    return count[-1]


def _edge_types(edge: dict[tuple[int, int], Column], has: dict[tuple[int, int], Column], n_ops: int) -> list[Column]:
    """Return the number of edges of each type, by the operation (or input, output) at both ends."""
    columns = [sum_([edge[0, v] * has[v, op] for v in INTERIOR]) for op in range(n_ops)]
    columns += [sum_([edge[v, V - 1] * has[v, op] for v in INTERIOR]) for op in range(n_ops)]
    inner = [pair for pair in edge if pair[0] > 0 and pair[1] < V - 1]
    for a in range(n_ops):
        into = {(i, j): edge[i, j] * has[i, a] for i, j in inner}
        columns += [sum_([into[i, j] * has[j, b] for i, j in inner]) for b in range(n_ops)]
    return columns
