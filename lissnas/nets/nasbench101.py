"""Networks and supernets of NAS-Bench-101's cells."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lissnas.nets.base import Scale, Supernet, pick
from lissnas.nets.blocks import LeadingConvolution, Norm, convolve, init_like_nasbench, relu
from lissnas.spaces import Archs, CellSpace, IntArray
from lissnas.spaces.base import BoolArray
from lissnas.spaces.cell import adjacency
from lissnas.spaces.cell_notation import INTERIOR, N_EDGES, V
from lissnas.spaces.nasbench101 import OPS, STEM, channels

STACKS = 3
CELLS_PER_STACK = 3
KERNEL = {0: 3, 1: 1}
"""Kernel sizes of the operations with weights; the third operation is max-pooling."""
CHUNK = 1 << 16
"""Number of cells whose widths are computed at once."""


@dataclass(frozen=True)
class Widths:
    """Channels of each operation and of each projection of the input in a cell; 0: not built."""

    operations: IntArray  # (5, 3) by interior vertex and operation
    projections: IntArray  # (6,) by vertex that the input can feed: interior vertices, then the output


@dataclass(frozen=True)
class Vertex:
    """Operation, width and edges of a path at one interior vertex."""

    number: int
    operation: int
    width: int
    inputs: tuple[int, ...]
    """The interior vertices that feed it."""
    from_input: bool
    to_output: bool


class NASBench101Supernet(Supernet):
    """The published skeleton of three stacks of three cells; weights are shared by vertex and operation.

    The width of an operation depends on the cell's edges, so operations have the full width of the cell and a path
    uses their leading channels. Built for a single architecture, operations have the published widths.
    """

    def __init__(self, space: CellSpace, allowed: BoolArray, scale: Scale, norm: Norm, archs: Archs | None) -> None:
        super().__init__(space, scale)
        width = scale.channels(STEM)
        self.stem = nn.Sequential(*convolve(3, width, 3, norm, scale.stem_stride, act=relu))
        self.cells = nn.ModuleList()
        for stack in range(STACKS):
            outputs = scale.channels(STEM << stack)
            widths = widths_of_all(allowed, outputs) if archs is None else widths_of(archs, outputs)
            for _ in range(CELLS_PER_STACK):
                self.cells.append(Cell(width, outputs, widths, norm))
                width = outputs
        self.classifier = nn.Linear(width, scale.classes)
        init_like_nasbench(self)

    def features(self, x: Tensor, path: tuple[int, ...]) -> Tensor:
        """Return the pooled output of the last cell."""
        x = self.stem(x)
        for i, cell in enumerate(self.cells):
            if i and i % CELLS_PER_STACK == 0:
                x = F.max_pool2d(x, 2)
            x = cell(x, path)
        return x.mean(dim=(2, 3))


class Cell(nn.Module):
    """Operations by interior vertex, and 1x1 convolutions that project the cell's input for each vertex."""

    def __init__(self, inputs: int, outputs: int, widths: Widths, norm: Norm) -> None:
        super().__init__()
        self.outputs = outputs
        self.operations = nn.ModuleList(
            nn.ModuleDict({str(o): _operation(o, width, norm) for o, width in enumerate(row) if width})
            for row in widths.operations.tolist()
        )
        self.projections = nn.ModuleDict(
            {
                str(v): LeadingConvolution(inputs, width, 1, norm)
                for v, width in enumerate(widths.projections.tolist(), start=1)
                if width
            }
        )

    def forward(self, x: Tensor, path: tuple[int, ...]) -> Tensor:
        """Return the cell's output, `outputs` channels."""
        vertices, input_to_output = plan(path, self.outputs)
        values: dict[int, Tensor] = {}
        for v in vertices:
            terms = [values[u][:, : v.width] for u in v.inputs]
            if v.from_input:
                terms.append(self._projection(v.number)(x, v.width))
            total = terms[0]
            for term in terms[1:]:
                total = total + term
            operations = self.operations[v.number - 1]
            assert isinstance(operations, nn.ModuleDict)
            operation = pick(operations, v.operation, f"vertex {v.number}")
            values[v.number] = operation(total, v.width) if v.operation in KERNEL else operation(total)
        parts = [values[v.number] for v in vertices if v.to_output]
        if input_to_output:
            skip: Tensor = self._projection(V - 1)(x, self.outputs)
            return torch.cat(parts, dim=1) + skip if parts else skip
        return torch.cat(parts, dim=1)

    def _projection(self, vertex: int) -> nn.Module:
        return pick(self.projections, vertex, "the cell's input")


def _operation(choice: int, width: int, norm: Norm) -> nn.Module:
    if choice in KERNEL:
        return LeadingConvolution(width, width, KERNEL[choice], norm)
    return nn.MaxPool2d(3, stride=1, padding=1)


@lru_cache(maxsize=1 << 16)
def plan(path: tuple[int, ...], outputs: int) -> tuple[tuple[Vertex, ...], bool]:
    """Return the vertices of a path in a cell of `outputs` channels, and whether the input feeds the output."""
    row = np.array([path], np.int8)
    matrix = adjacency(row).astype(np.int64)
    width, edges = channels(matrix, outputs)[0].tolist(), matrix[0].tolist()
    vertices = tuple(
        Vertex(
            v,
            path[N_EDGES + v - 1],
            width[v],
            tuple(u for u in range(1, v) if edges[u][v]),
            bool(edges[0][v]),
            bool(edges[v][V - 1]),
        )
        for v in range(1, V - 1)
        if any(edges[v])
    )
    return vertices, bool(edges[0][V - 1])


def widths_of_all(allowed: BoolArray, outputs: int) -> Widths:
    """Return full widths for the allowed operations and the projections to their vertices."""
    return Widths(allowed * outputs, np.append(allowed.any(axis=1), True) * outputs)


def widths_of(archs: Archs, outputs: int) -> Widths:
    """Return the published widths of a single architecture, or full widths of all operations that several use."""
    operations = np.zeros((INTERIOR, len(OPS)), np.int64)
    projections = np.zeros(INTERIOR + 1, np.int64)
    for lo in range(0, len(archs), CHUNK):
        part = archs[lo : lo + CHUNK]
        matrix = adjacency(part).astype(np.int64)
        width = channels(matrix, outputs)
        width[:, V - 1] = outputs
        projections = np.maximum(projections, (width * matrix[:, 0])[:, 1:].max(axis=0))
        interior = width[:, 1 : V - 1] * matrix[:, 1 : V - 1].any(axis=2)
        for o in range(len(OPS)):
            operations[:, o] = np.maximum(operations[:, o], (interior * (part[:, N_EDGES:] == o)).max(axis=0))
    if len(archs) > 1:
        operations, projections = (np.where(w > 0, outputs, 0) for w in (operations, projections))
    return Widths(operations, projections)
