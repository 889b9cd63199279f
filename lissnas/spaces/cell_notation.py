"""The row of a cell with operations on vertices, and its notation `<bits>-<ops>`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from lissnas.core.errors import short
from lissnas.spaces.base import Archs, as_bytes, raise_first
from lissnas.spaces.edge_cell_parts import Bits

V = 7
"""Vertices of the padded cell: input 0, interior 1 to 5, output 6."""
INTERIOR = V - 2
TAIL, HEAD = np.triu_indices(V, 1)
N_EDGES = len(TAIL)
"""21 slots for edges, row by row of the upper triangle; bit e of an edge set is slot e."""
EDGE = {(int(i), int(j)): e for e, (i, j) in enumerate(zip(TAIL, HEAD, strict=True))}
"""The slot of each edge."""


def format_cells(rows: Archs, used: Bits) -> list[str]:
    """Return `<bits>-<ops>` of rows without unused vertices; `used` is `(n,)`, the used vertices as bits."""
    out = np.empty(len(rows), object)
    for vertices in np.unique(used):
        at = np.flatnonzero(used == vertices)
        keep = [v for v in range(V) if vertices >> v & 1]
        columns = [EDGE[pair] for pair in itertools.combinations(keep, 2)]
        columns += [N_EDGES + v - 1 for v in keep[1:-1]]
        digits = rows[at][:, columns].astype(np.uint8) + np.uint8(ord("0"))
        text = np.insert(digits, len(keep) * (len(keep) - 1) // 2, ord("-"), axis=1)
        out[at] = [s.decode() for s in np.ascontiguousarray(text).view(f"S{text.shape[1]}").ravel()]
    return list(out)


def parse_cells(names: Sequence[str], ops: Sequence[str]) -> Archs:
    """Return the rows of names, in the labelling of the name; raises InvalidArchitecture."""
    codes, lengths = as_bytes(names, N_EDGES + 1 + INTERIOR)
    rows = np.zeros((len(codes), N_EDGES + INTERIOR), np.int8)
    known, bad_edge, bad_op = (np.zeros(len(codes), bool) for _ in range(3))
    for n in range(2, V + 1):
        n_edges = n * (n - 1) // 2
        at = np.flatnonzero((lengths == n_edges + n - 1) & (codes[:, n_edges] == ord("-")))
        known[at] = True
        vertex = [*range(n - 1), V - 1]
        slots = [EDGE[vertex[i], vertex[j]] for i, j in itertools.combinations(range(n), 2)]
        digits = codes[at].astype(np.int16) - ord("0")
        edges, labels = digits[:, :n_edges], digits[:, n_edges + 1 : n_edges + n - 1]
        bad_edge[at] = ((edges < 0) | (edges > 1)).any(axis=1)
        bad_op[at] = ((labels < 0) | (labels >= len(ops))).any(axis=1)
        rows[at[:, None], slots] = edges
        rows[at, N_EDGES : N_EDGES + n - 2] = labels
    bad = ~known | bad_edge | bad_op
    if bad.any():
        first = int(np.argmax(bad))
        reason = (
            "expected <bits>-<ops>: 1, 3, 6, 10, 15 or 21 upper-triangle bits, "
            "then one digit for each of the 0 to 5 interior vertices"
            if not known[first]
            else "an edge is neither 0 nor 1"
            if bad_edge[first]
            else f"an operation is not 0 to {len(ops) - 1} ({', '.join(ops)})"
        )
        raise_first(bad, f"{reason}, found {short(repr(names[first]))}")
    return rows
