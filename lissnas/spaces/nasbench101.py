"""NAS-Bench-101: 423,624 cells of at most seven vertices and nine edges (Ying et al., 2019)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lissnas.spaces.base import Archs, IntArray
from lissnas.spaces.cell import CellSpace, adjacency
from lissnas.spaces.cell_notation import INTERIOR, N_EDGES, V
from lissnas.spaces.chain import convolution

OPS = ("conv3x3", "conv1x1", "maxpool3x3")
STEM = 128
"""Stem channels of the published skeleton, three stacks of three cells."""
CLASSES = 10
IMAGE = 32
"""Image side in pixels."""


class NASBench101(CellSpace):
    """The space of cells with the exact costs of its published skeleton."""

    def __init__(self) -> None:
        super().__init__("nasbench101", OPS, 9, "NAS-Bench-101 (Ying et al., 2019)")

    def costs(self, archs: Archs) -> Mapping[str, IntArray]:
        """Return multiply-adds of convolutions and classifier, and parameters, of the full network."""
        self.check_rows(archs)
        matrix = adjacency(archs).astype(np.int64)
        kernel = np.array([9, 1, 0])[archs[:, N_EDGES:]]  # weights per pair of channels; pooling has none
        flops, params = (np.full(len(archs), c, np.int64) for c in convolution(3, 3, STEM, IMAGE))
        width, side = STEM, IMAGE
        for stack in range(3):
            out, side = (width, side) if stack == 0 else (2 * width, side // 2)
            vertices = channels(matrix, out)
            for inputs, times in ((width, 1), (out, 2)):
                f, p = _cell(matrix, kernel, vertices, inputs, out, side)
                flops, params = flops + times * f, params + times * p
            width = out
        return {"flops": flops + width * CLASSES, "params": params + (width + 1) * CLASSES}


def channels(matrix: IntArray, out: int) -> IntArray:
    """Return the `(n, 7)` channels of each vertex of cells with `out` output channels.

    As in the published code: the vertices connected to the output share its channels, the first ones get the
    remainder; each other vertex has as many as the widest vertex that it feeds.
    """
    width = np.zeros((len(matrix), V), np.int64)
    last = matrix[:, 1 : V - 1, V - 1]
    parts = np.maximum(last.sum(axis=1, keepdims=True), 1)
    extra = np.cumsum(last, axis=1) <= out % parts
    width[:, 1 : V - 1] = last * (out // parts + extra)
    for v in range(V - 3, 0, -1):
        widest = (matrix[:, v, 1 : V - 1] * width[:, 1 : V - 1]).max(axis=1)
        width[:, v] = np.where(last[:, v - 1] > 0, width[:, v], widest)
    return width


def _cell(
    matrix: IntArray, kernel: IntArray, width: IntArray, inputs: int, out: int, side: int
) -> tuple[IntArray, IntArray]:
    """Return `(n,)` multiply-adds and parameters of cells: operations and projections of the input.

    `width` are the `channels` of cells with `out` output channels.
    """
    interior = width[:, 1 : V - 1]
    weights = kernel * interior**2 + matrix[:, 0, 1 : V - 1] * inputs * interior
    norms = (kernel > 0) * interior + matrix[:, 0, 1 : V - 1] * interior
    skip = matrix[:, 0, V - 1]
    total = weights.sum(axis=1) + skip * inputs * out
    return total * side**2, total + 2 * (norms.sum(axis=1) + skip * out)


assert INTERIOR == 5  # the rules above are those of seven vertices
