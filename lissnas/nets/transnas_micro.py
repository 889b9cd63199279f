"""Networks and supernets of TransNAS-Bench-101's micro space: the encoder and a classifier."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from lissnas.core.errors import UserError
from lissnas.nets.base import Scale, Supernet, pick
from lissnas.nets.blocks import FactorizedReduce, Norm, convolve, init_like_mobilenet
from lissnas.spaces import Space
from lissnas.spaces.base import BoolArray
from lissnas.spaces.chain import half
from lissnas.spaces.transnas import BASE, EDGES, MICRO_MODULES

CELLS_PER_MODULE = 2
STEM_STRIDES = {4: (2, 2), 2: (2, 1), 1: (1, 1)}
"""Strides of the stem's two convolutions, by their total stride."""


class TransNASMicroSupernet(Supernet):
    """A stem of two convolutions and five modules of two cells; modules 4 halve the resolution, double the channels."""

    def __init__(self, space: Space, allowed: BoolArray, scale: Scale, norm: Norm) -> None:
        super().__init__(space, scale)
        if scale.stem_stride not in STEM_STRIDES:
            raise UserError(f"stem_stride: expected 1, 2 or 4 for {space.name}, found {scale.stem_stride}")
        first, second = STEM_STRIDES[scale.stem_stride]
        width = scale.channels(BASE)
        self.stem = nn.Sequential(
            *convolve(3, width // 2, 3, norm, first, act=nn.ReLU), *convolve(width // 2, width, 3, norm, second)
        )
        self.cells = nn.ModuleList()
        for module in MICRO_MODULES:
            for i in range(CELLS_PER_MODULE):
                halves = module == 4 and i == 0
                outputs = 2 * width if halves else width
                self.cells.append(MicroCell(width, outputs, 2 if halves else 1, allowed, norm))
                width = outputs
        self.classifier = nn.Linear(width, scale.classes)
        init_like_mobilenet(self)

    def features(self, x: Tensor, path: tuple[int, ...]) -> Tensor:
        """Return the pooled output of the last cell."""
        x = self.stem(x)
        for cell in self.cells:
            x = cell(x, path)
        return x.mean(dim=(2, 3))


class MicroCell(nn.Module):
    """Four nodes; each is the sum of the operations on the edges from earlier nodes."""

    def __init__(self, inputs: int, outputs: int, stride: int, allowed: BoolArray, norm: Norm) -> None:
        super().__init__()
        self.outputs, self.stride = outputs, stride
        self.edges = nn.ModuleList()
        for (tail, _), choices in zip(EDGES, allowed, strict=True):
            size = (inputs, outputs, stride) if tail == 0 else (outputs, outputs, 1)
            built = np.flatnonzero(choices).tolist()
            self.edges.append(nn.ModuleDict({str(c): edge_operation(c, *size, norm) for c in built if c}))

    def forward(self, x: Tensor, digits: tuple[int, ...]) -> Tensor:
        """Return the last node; nodes without inputs are zero, and their outgoing edges still run."""
        n, _, height, width = x.shape
        nodes = [x]
        for node in (1, 2, 3):
            total: Tensor | None = None
            for i, (tail, head) in enumerate(EDGES):
                if head == node and digits[i]:
                    operations = self.edges[i]
                    assert isinstance(operations, nn.ModuleDict)
                    term = pick(operations, digits[i], f"edge {i}")(nodes[tail])
                    total = term if total is None else total + term
            if total is None:
                total = x.new_zeros(n, self.outputs, half(height, self.stride), half(width, self.stride))
            nodes.append(total)
        return nodes[-1]


class ReLUConvolution(nn.Module):
    """ReLU, convolution and norm; the ReLU is not in-place, because other edges share the input."""

    def __init__(self, inputs: int, outputs: int, stride: int, kernel: int, norm: Norm) -> None:
        super().__init__()
        self.body = nn.Sequential(*convolve(inputs, outputs, kernel, norm, stride))

    def forward(self, x: Tensor) -> Tensor:
        """Return `outputs` channels."""
        y: Tensor = self.body(F.relu(x))
        return y


def edge_operation(choice: int, inputs: int, outputs: int, stride: int, norm: Norm) -> nn.Module:
    """Return the operation of a digit, 1 to 3, on an edge."""
    if choice > 1:
        return ReLUConvolution(inputs, outputs, stride, {2: 1, 3: 3}[choice], norm)
    if inputs == outputs and stride == 1:
        return nn.Identity()
    return FactorizedReduce(inputs, outputs, stride, norm)
