"""Networks and supernets of chain-structured spaces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor, nn

from lissnas.nets.base import Scale, Supernet, pick
from lissnas.nets.blocks import (
    Activation,
    MobileBlock,
    Norm,
    ShuffleBlock,
    XceptionBlock,
    convolve,
    init_like_mobilenet,
    init_like_spos,
    relu,
    relu6,
)
from lissnas.spaces import ChainSpace, fairnas, mobilenet, nas_bench_macro, shufflenetv2
from lissnas.spaces.base import BoolArray
from lissnas.spaces.chain import Layer, Skeleton


@dataclass(frozen=True)
class Design:
    """Operations, activation and initialization of a chain space's networks."""

    operation: Callable[[int, Layer, Norm], nn.Module]
    act: Activation
    init: Callable[[nn.Module], None] = lambda network: None
    """Initializes the weights; torch's default if the publication specifies none."""
    dropout: float = 0.0
    shared_affine: bool = True


class ChainSupernet(Supernet):
    """A stem, layers with one operation each, a 1x1 convolution, pooling and the classifier."""

    def __init__(self, space: ChainSpace, allowed: BoolArray, scale: Scale, norm: Norm) -> None:
        super().__init__(space, scale)
        design, s = DESIGNS[space.name], scaled(space.skeleton, scale)
        stem = convolve(3, s.stem, 3, norm, s.stem_stride, act=design.act)
        if s.first:
            stem.append(MobileBlock(s.stem, s.first, 1, kernel=3, expansion=1, norm=norm, act=design.act))
        self.stem = nn.Sequential(*stem)
        self.layers = nn.ModuleList(
            nn.ModuleDict({str(c): design.operation(c, layer, norm) for c in np.flatnonzero(choices).tolist()})
            for layer, choices in zip(s.layers, allowed, strict=True)
        )
        self.last = nn.Sequential(*convolve(s.stages[-1].outputs, s.last, 1, norm, act=design.act))
        self.dropout = nn.Dropout(design.dropout)
        self.classifier = nn.Linear(s.last, s.classes, bias=s.bias)
        design.init(self)

    def features(self, x: Tensor, path: tuple[int, ...]) -> Tensor:
        """Return the pooled output of the last convolution."""
        x = self.stem(x)
        for i, (operations, choice) in enumerate(zip(self.layers, path, strict=True)):
            assert isinstance(operations, nn.ModuleDict)
            x = pick(operations, choice, f"layer {i}")(x)
        pooled: Tensor = self.dropout(self.last(x).mean(dim=(2, 3)))
        return pooled


def scaled(skeleton: Skeleton, scale: Scale) -> Skeleton:
    """Return the skeleton with the width, stem stride and classes of `scale`."""
    return replace(
        skeleton,
        classes=scale.classes,
        stem=scale.channels(skeleton.stem),
        stem_stride=scale.stem_stride,
        first=scale.channels(skeleton.first) if skeleton.first else 0,
        stages=tuple(stage._replace(outputs=scale.channels(stage.outputs)) for stage in skeleton.stages),
        last=scale.channels(skeleton.last),
    )


def _shuffle(choice: int, layer: Layer, norm: Norm) -> nn.Module:
    if choice == shufflenetv2.XCEPTION:
        return XceptionBlock(*layer, norm)
    return ShuffleBlock(*layer, shufflenetv2.KERNELS[choice], norm)


def _mobile(choice: int, layer: Layer, norm: Norm) -> nn.Module:
    if choice == mobilenet.IDENTITY:
        return nn.Identity()
    expansion, kernel = fairnas.OPERATIONS[choice]
    return MobileBlock(*layer, kernel, expansion, norm, relu6)


def _macro(choice: int, layer: Layer, norm: Norm) -> nn.Module:
    if choice:
        return MobileBlock(*layer, nas_bench_macro.KERNEL[choice], nas_bench_macro.EXPANSION[choice], norm, relu)
    if layer.changes:
        return nn.Sequential(*convolve(layer.inputs, layer.outputs, 1, norm, layer.stride))
    return nn.Identity()


DESIGNS = {
    "nas_bench_macro": Design(_macro, relu),
    "shufflenetv2": Design(_shuffle, relu, init_like_spos, dropout=0.1, shared_affine=False),
    "fairnas": Design(_mobile, relu6, init_like_mobilenet),
    "mobilenet": Design(_mobile, relu6, init_like_mobilenet),
}
