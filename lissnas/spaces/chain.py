"""Chains of layers with one operation for each layer: the common skeleton and its costs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from lissnas.spaces.base import Archs, Features, IntArray
from lissnas.spaces.choices import ChoiceSpace


class Layer(NamedTuple):
    """A searchable layer: its channels and stride."""

    inputs: int
    outputs: int
    stride: int

    @property
    def changes(self) -> bool:
        """Whether the layer changes channels or resolution, so that it can't be an identity."""
        return self.stride > 1 or self.inputs != self.outputs


class Stage(NamedTuple):
    """Layers with the same output channels; the first one has the stride."""

    outputs: int
    layers: int
    stride: int


@dataclass(frozen=True)
class Skeleton:
    """The fixed part of all networks of a chain.

    In order: a 3x3 convolution to `stem` channels; if `first` is not 0, a separable convolution to `first`
    channels; the stages; a 1x1 convolution to `last` channels; global pooling; if `hidden` is not 0, a
    linear layer without bias to `hidden` features; the classifier. `image` is the side in pixels.
    """

    image: int
    classes: int
    stem: int
    stem_stride: int
    stages: tuple[Stage, ...]
    last: int
    first: int = 0
    hidden: int = 0
    bias: bool = True

    @property
    def layers(self) -> list[Layer]:
        """The searchable layers, in order."""
        out = []
        width = self.first or self.stem
        for stage in self.stages:
            for i in range(stage.layers):
                out.append(Layer(width, stage.outputs, 1 if i else stage.stride))
                width = stage.outputs
        return out

    @property
    def spans(self) -> list[slice]:
        """The positions of each stage's layers."""
        ends = np.cumsum([stage.layers for stage in self.stages]).tolist()
        return [slice(end - stage.layers, end) for end, stage in zip(ends, self.stages, strict=True)]


class ChainSpace(ChoiceSpace):
    """A product space whose positions are the layers of a skeleton; a subclass defines `operation_costs`."""

    def __init__(self, name: str, radix: Sequence[int], skeleton: Skeleton, source: str) -> None:
        super().__init__(name, radix, source)
        self.skeleton = skeleton

    @abstractmethod
    def operation_costs(self, choice: int, layer: Layer, side: int) -> IntArray:
        """Return the `(2,)` multiply-adds and parameters of a choice in a layer whose input has `side`² pixels."""

    @cached_property
    def cost_tables(self) -> tuple[Sequence[IntArray], IntArray]:
        """For each layer the `(choices, 2)` multiply-adds and parameters, and the `(2,)` costs of the fixed part."""
        s = self.skeleton
        side = half(s.image, s.stem_stride)
        shared = convolution(3, 3, s.stem, side)
        if s.first:
            shared += convolution(3, s.stem, s.stem, side, groups=s.stem) + convolution(1, s.stem, s.first, side)
        tables = []
        for layer, n_choices in zip(s.layers, self.radix.tolist(), strict=True):
            tables.append(np.array([self.operation_costs(c, layer, side) for c in range(n_choices)]))
            side = half(side, layer.stride)
        shared += convolution(1, s.stages[-1].outputs, s.last, side)
        weights = s.last * s.hidden + (s.hidden or s.last) * s.classes
        return tables, shared + np.array([weights, weights + s.bias * s.classes])

    def encode(self, archs: Archs) -> Features:
        """Return one-hot choices, their counts in total and by stage, and costs."""
        costs = [c[:, None] for c in self.costs(archs).values()]
        return np.concatenate([super().encode(archs), *costs], axis=1, dtype=np.float32)

    @property
    def counted_spans(self) -> Sequence[slice]:
        """All layers, then the layers of each stage."""
        return (slice(None), *self.skeleton.spans)


def half(side: int, stride: int) -> int:
    """Return the side of the output of a padded convolution: `side / stride`, rounded up."""
    return -(-side // stride)


def convolution(
    kernel: int, inputs: int | IntArray, outputs: int | IntArray, side: int | IntArray, groups: int = 1
) -> IntArray:
    """Return multiply-adds and parameters of a convolution without bias and its batch norm, `(2,)` or `(2, n)`.

    `side` is the side of its output. The batch norm has two parameters per channel and no multiply-adds.
    """
    weights = kernel * kernel * inputs * outputs // groups
    return np.array([weights * side**2, weights + 2 * outputs])


def mobile_block(kernel: int, expansion: int, layer: Layer, side: int) -> IntArray:
    """Return the costs of a MobileNetV2 block: 1x1 expansion, depthwise convolution, 1x1 projection."""
    middle, small = layer.inputs * expansion, half(side, layer.stride)
    return (
        convolution(1, layer.inputs, middle, side)
        + convolution(kernel, middle, middle, small, groups=middle)
        + convolution(1, middle, layer.outputs, small)
    )
