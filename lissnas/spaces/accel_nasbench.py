"""The space of Accel-NASBench: seven blocks of one to four MnasNet layers, for ImageNet (Ahmad et al., 2024)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from lissnas.core.errors import InvalidArchitecture, short
from lissnas.spaces.base import Archs, Features, IntArray
from lissnas.spaces.chain import half
from lissnas.spaces.choices import ChoiceSpace

EXPANSIONS = (1, 4, 6)
KERNELS = (3, 5)
IMAGE = 224
"""Image side, in pixels."""
CLASSES = 1_000
STEM = 32
"""Output channels of the stem, a 3x3 convolution of stride 2."""
LAST = 1_280
"""Output channels of the last 1x1 convolution."""
SQUEEZE = 4
"""Squeeze-and-excitation has the layer's input channels divided by this."""


class Block(NamedTuple):
    """Layers with the same output channels; the first one has the stride."""

    outputs: int
    max_layers: int
    stride: int


BLOCKS = (
    Block(16, 3, 1),
    Block(24, 3, 2),
    Block(40, 3, 2),
    Block(80, 3, 2),
    Block(112, 3, 1),
    Block(192, 4, 2),
    Block(320, 3, 1),
)
N_BLOCKS = len(BLOCKS)


class AccelNASBench(ChoiceSpace):
    """A row has the expansions of the seven blocks, then their kernels, numbers of layers, squeeze-and-excitation.

    All layers of a block share these choices. Every row is a network, and no two rows are the same one.
    """

    def __init__(self) -> None:
        radix = [len(EXPANSIONS)] * N_BLOCKS + [len(KERNELS)] * N_BLOCKS
        radix += [block.max_layers for block in BLOCKS] + [2] * N_BLOCKS
        super().__init__("accel_nasbench", radix, "Accel-NASBench (Ahmad et al., 2024)")

    # -- costs and features ------------------------------------------------------------------------
    @cached_property
    def _block_costs(self) -> list[IntArray]:
        """For each block the `(expansions, kernels, layers, 2, 2)` costs of its choices."""
        tables, inputs, side = [], STEM, half(IMAGE, 2)
        for block in BLOCKS:
            choices = itertools.product(EXPANSIONS, KERNELS, range(1, block.max_layers + 1), (False, True))
            costs = [block_costs(block, inputs, side, *choice) for choice in choices]
            tables.append(np.reshape(costs, (len(EXPANSIONS), len(KERNELS), block.max_layers, 2, 2)))
            inputs, side = block.outputs, half(side, block.stride)
        return tables

    def costs(self, archs: Archs) -> Mapping[str, IntArray]:
        """Return multiply-adds and parameters at 224 pixels, counted as the publication does.

        A batch norm counts as four multiply-adds per value, average pooling as one per value and one per channel.
        """
        self.check_rows(archs)
        total = np.tile(fixed_costs(), (len(archs), 1))
        by_kind = archs.reshape(len(archs), 4, N_BLOCKS)
        for i, table in enumerate(self._block_costs):
            expansion, kernel, layers, squeezed = by_kind[:, :, i].T
            total += table[expansion, kernel, layers, squeezed]
        return dict(zip(("flops", "params"), total.T, strict=True))

    @property
    def counted_spans(self) -> Sequence[slice]:
        """Expansions, kernels, numbers of layers, squeeze-and-excitation."""
        return [slice(kind * N_BLOCKS, (kind + 1) * N_BLOCKS) for kind in range(4)]

    def encode(self, archs: Archs) -> Features:
        """Return one-hot choices, the counts of each choice over the blocks, and log2 of the costs."""
        costs = [np.log2(c)[:, None] for c in self.costs(archs).values()]
        return np.concatenate([super().encode(archs), *costs], axis=1, dtype=np.float32)

    # -- notation ----------------------------------------------------------------------------------
    @cached_property
    def _names(self) -> list[str]:
        """The notation of a block, by the mixed-radix index of its choices (numbers of layers up to four)."""
        choices = itertools.product(EXPANSIONS, KERNELS, range(1, 5), (0, 1))
        return [f"e{e}k{k}l{layers}s{squeezed}" for e, k, layers, squeezed in choices]

    @cached_property
    def _number(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self._names)}

    def format(self, archs: Archs) -> list[str]:
        """Return blocks like `e6k3l2s1` joined by `|`: expansion, kernel, layers, squeeze-and-excitation."""
        self.check_rows(archs)
        names = self._names
        by_kind = archs.reshape(len(archs), 4, N_BLOCKS).astype(np.int64)
        expansion, kernel, layers, squeezed = by_kind.transpose(1, 0, 2)
        numbers: IntArray = ((expansion * 2 + kernel) * 4 + layers) * 2 + squeezed
        return ["|".join([names[i] for i in row]) for row in numbers.tolist()]

    def parse(self, names: Sequence[str]) -> Archs:
        """Return the rows of names in the notation of `format`."""
        numbers = []
        for row, name in enumerate(names):
            blocks = name.split("|")
            if len(blocks) != N_BLOCKS:
                raise InvalidArchitecture(row, f"expected {N_BLOCKS} blocks joined by '|', found {len(blocks)}")
            for i, (text, block) in enumerate(zip(blocks, BLOCKS, strict=True)):
                if text not in self._number or int(text[5]) > block.max_layers:
                    raise InvalidArchitecture(
                        row,
                        f"block {i}: expected e1, e4 or e6, k3 or k5, l1 to l{block.max_layers}, s0 or s1, "
                        f"e.g. e6k3l2s1, found {short(repr(text))}",
                    )
            numbers.append([self._number[text] for text in blocks])
        index = np.array(numbers, np.int64).reshape(-1, N_BLOCKS)
        kinds = np.stack(np.unravel_index(index, (3, 2, 4, 2)), axis=1)
        return kinds.reshape(len(names), self.genome_len).astype(np.int8)


def convolution(kernel: int, inputs: int, outputs: int, side: int, groups: int = 1) -> IntArray:
    """Return the `(2,)` costs of a convolution without bias and its batch norm; `side` is that of its output."""
    weights = kernel * kernel * inputs * outputs // groups
    return np.array([(weights + 4 * outputs) * side**2, weights + 2 * outputs])


def pooling(channels: int, side: int) -> IntArray:
    """Return the `(2,)` costs of an average over all pixels."""
    return np.array([channels * (side**2 + 1), 0])


def block_costs(block: Block, inputs: int, side: int, expansion: int, kernel: int, layers: int, se: bool) -> IntArray:
    """Return the `(2,)` costs of a block whose input has `side`² pixels."""
    total = np.zeros(2, np.int64)
    for layer in range(layers):
        middle, small = inputs * expansion, half(side, 1 if layer else block.stride)
        if expansion > 1:
            total += convolution(1, inputs, middle, side)
        total += convolution(kernel, middle, middle, small, groups=middle)
        if se:  # two linear layers with bias on one pixel
            narrow = inputs // SQUEEZE
            weights = 2 * middle * narrow
            total += pooling(middle, small) + np.array([weights, weights + middle + narrow])
        total += convolution(1, middle, block.outputs, small)
        inputs, side = block.outputs, small
    return total


def fixed_costs() -> IntArray:
    """Return the `(2,)` costs of the stem, the last convolution, pooling and the classifier."""
    side = IMAGE // 2 ** (1 + sum(block.stride > 1 for block in BLOCKS))
    ends = convolution(3, 3, STEM, half(IMAGE, 2)) + convolution(1, BLOCKS[-1].outputs, LAST, side)
    weights = LAST * CLASSES
    total: IntArray = ends + pooling(LAST, side) + np.array([weights, weights + CLASSES])
    return total
