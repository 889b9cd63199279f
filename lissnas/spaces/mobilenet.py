"""The MobileNet space of ProxylessNAS and ABS: 21 layers, 15 of which are optional (Hu et al., 2020)."""

from __future__ import annotations

import numpy as np

from lissnas.spaces.base import IntArray
from lissnas.spaces.chain import ChainSpace, Layer, Skeleton, Stage, mobile_block
from lissnas.spaces.fairnas import OPERATIONS

IDENTITY = len(OPERATIONS)
"""The choice that skips a layer, available if the layer changes neither channels nor resolution."""
SKELETON = Skeleton(
    image=224,
    classes=1000,
    stem=40,
    stem_stride=2,
    first=24,
    stages=(Stage(32, 4, 2), Stage(56, 4, 2), Stage(112, 4, 2), Stage(128, 4, 1), Stage(256, 4, 2), Stage(432, 1, 1)),
    last=1728,
)


class MobileNet(ChainSpace):
    """Choices 0 to 5 as in FairNAS; 6 is the identity, in all layers except the first of each stage."""

    def __init__(self) -> None:
        radix = [IDENTITY + (not layer.changes) for layer in SKELETON.layers]
        super().__init__("mobilenet", radix, SKELETON, "MobileNet of ABS (Hu et al., 2020)")

    def operation_costs(self, choice: int, layer: Layer, side: int) -> IntArray:
        """Return the `(2,)` costs of a block, 0 for an identity."""
        if choice == IDENTITY:
            return np.zeros(2, np.int64)
        expansion, kernel = OPERATIONS[choice]
        return mobile_block(kernel, expansion, layer, side)
