"""The ShuffleNetV2 space of Single Path One-Shot: 20 layers of four blocks (Guo et al., 2020)."""

from __future__ import annotations

from lissnas.spaces.base import IntArray
from lissnas.spaces.chain import ChainSpace, Layer, Skeleton, Stage, convolution, half

KERNELS = (3, 5, 7)
"""Kernels of the shuffle blocks, choices 0 to 2."""
XCEPTION = 3
"""The choice of the xception block, three separable 3x3 convolutions."""
SKELETON = Skeleton(
    image=224,
    classes=1000,
    stem=16,
    stem_stride=2,
    stages=(Stage(64, 4, 2), Stage(160, 4, 2), Stage(320, 8, 2), Stage(640, 4, 2)),
    last=1024,
    bias=False,
)


class ShuffleNetV2(ChainSpace):
    """Choices 0 to 2 are shuffle blocks with kernels 3, 5, 7; 3 is the xception block."""

    def __init__(self) -> None:
        super().__init__("shufflenetv2", [4] * 20, SKELETON, "ShuffleNetV2 of SPOS (Guo et al., 2020)")

    def operation_costs(self, choice: int, layer: Layer, side: int) -> IntArray:
        """Return the `(2,)` costs of a block: one branch on half the channels if the stride is 1, else two on all."""
        small = half(side, layer.stride)
        inputs, middle = branch_channels(layer)
        outputs = layer.outputs - inputs
        kernel = 3 if choice == XCEPTION else KERNELS[choice]
        if choice == XCEPTION:
            main = (
                convolution(3, inputs, inputs, small, groups=inputs)
                + convolution(1, inputs, middle, small)
                + convolution(3, middle, middle, small, groups=middle)
                + convolution(1, middle, middle, small)
                + convolution(3, middle, middle, small, groups=middle)
                + convolution(1, middle, outputs, small)
            )
        else:
            main = (
                convolution(1, inputs, middle, side)
                + convolution(kernel, middle, middle, small, groups=middle)
                + convolution(1, middle, outputs, small)
            )
        if layer.stride == 1:
            return main
        return main + convolution(kernel, inputs, inputs, small, groups=inputs) + convolution(1, inputs, inputs, small)


def branch_channels(layer: Layer) -> tuple[int, int]:
    """Return the input channels and the middle channels of a block's main branch."""
    return (layer.inputs // 2 if layer.stride == 1 else layer.inputs), layer.outputs // 2
