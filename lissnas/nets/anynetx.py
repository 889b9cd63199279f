"""Stand-alone networks of AnyNetX: the space has no supernet in the literature."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from lissnas.core.errors import UserError
from lissnas.nets.base import Scale, Supernet
from lissnas.nets.blocks import Norm, convolve, init_like_mobilenet, relu
from lissnas.spaces import Archs
from lissnas.spaces.anynetx import STEM, AnyNetX, fitted


class AnyNetXBody(Supernet):
    """A supernet of a single architecture: stem, stages of blocks, pooling and classifier.

    `archs` is its row, `(1, genome_len)`. Widths are scaled before they are rounded to multiples of the
    group width, so that groups keep their width in narrow networks.
    """

    def __init__(self, space: AnyNetX, archs: Archs, scale: Scale, norm: Norm) -> None:
        super().__init__(space, scale)
        self.row = tuple(archs[0].tolist())
        described = space.described(archs)
        widths = [scale.channels(w) for w in described.width[0].tolist()]
        built = fitted(described._replace(width=np.array([widths])))
        inputs = scale.channels(STEM)
        self.stem = nn.Sequential(*convolve(3, inputs, 3, norm, scale.stem_stride, act=relu))
        blocks: list[nn.Module] = []
        for depth, width, inner, group in zip(*(value[0].tolist() for value in built), strict=True):
            for i in range(depth):
                blocks.append(XBlock(inputs, width, 1 if i else 2, inner, group, norm))
                inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(inputs, scale.classes)
        init_like_mobilenet(self)  # as in RegNet's code

    def features(self, x: Tensor, path: tuple[int, ...]) -> Tensor:
        """Return the pooled output of the last block; raises UserError for another architecture."""
        if path != self.row:
            raise UserError(f"path: expected {self.row}, the only one built of {self.space_name}, found {path}")
        pooled: Tensor = self.blocks(self.stem(x)).mean(dim=(2, 3))
        return pooled


class XBlock(nn.Module):
    """RegNet's X block: 1x1, 3x3 in groups of `group` channels, 1x1 convolution; ReLU of the sum with the shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, inner: int, group: int, norm: Norm) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *convolve(inputs, inner, 1, norm, act=relu),
            *convolve(inner, inner, 3, norm, stride, groups=inner // group, act=relu),
            *convolve(inner, outputs, 1, norm),
        )
        changes = stride > 1 or inputs != outputs
        self.shortcut = nn.Sequential(*convolve(inputs, outputs, 1, norm, stride)) if changes else nn.Identity()
        self.act = relu()

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        y: Tensor = self.act(self.shortcut(x) + self.body(x))
        return y
