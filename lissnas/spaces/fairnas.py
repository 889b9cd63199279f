"""The FairNAS space: 19 layers of six MobileNetV2 blocks (Chu et al., 2021)."""

from __future__ import annotations

from lissnas.spaces.base import IntArray
from lissnas.spaces.chain import ChainSpace, Layer, Skeleton, Stage, mobile_block

OPERATIONS = ((3, 3), (3, 5), (3, 7), (6, 3), (6, 5), (6, 7))
"""Expansion and kernel of choices 0 to 5."""
SKELETON = Skeleton(
    image=224,
    classes=1000,
    stem=32,
    stem_stride=2,
    first=16,
    stages=(Stage(32, 2, 2), Stage(40, 4, 2), Stage(80, 4, 2), Stage(96, 4, 1), Stage(192, 4, 2), Stage(320, 1, 1)),
    last=1280,
)


class FairNAS(ChainSpace):
    """Choices 0 to 2 are expansion 3 with kernels 3, 5, 7; choices 3 to 5 are expansion 6 with the same kernels."""

    def __init__(self) -> None:
        super().__init__("fairnas", [len(OPERATIONS)] * 19, SKELETON, "FairNAS (Chu et al., 2021)")

    def operation_costs(self, choice: int, layer: Layer, side: int) -> IntArray:
        """Return the `(2,)` costs of a block with the expansion and kernel of a choice."""
        expansion, kernel = OPERATIONS[choice]
        return mobile_block(kernel, expansion, layer, side)
