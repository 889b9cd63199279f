"""NAS-Bench-Macro: eight layers of three choices, 3,969 functionally distinct networks (Su et al., 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lissnas.spaces.base import Archs, Features, IntArray
from lissnas.spaces.chain import ChainSpace, Layer, Skeleton, Stage, convolution, half, mobile_block
from lissnas.spaces.choices import ChoiceSpace

SKELETON = Skeleton(
    image=32,
    classes=10,
    stem=32,
    stem_stride=1,
    stages=(Stage(64, 2, 2), Stage(128, 3, 2), Stage(256, 3, 2)),
    last=1280,
)
STAGES = SKELETON.spans
EXPANSION = (0, 3, 6)
KERNEL = (1, 3, 5)


class NASBenchMacro(ChainSpace):
    """Choice 0 is identity, 1 a MobileNetV2 block with kernel 3 and expansion 3, 2 with kernel 5 and expansion 6.

    Strings that are functionally equal are the same architecture: an identity has no effect except in the
    first layer of a stage, which halves the resolution, so only the order of the other choices matters.
    """

    def __init__(self) -> None:
        super().__init__("nas_bench_macro", [3] * 8, SKELETON, "NAS-Bench-Macro (Su et al., 2021)")

    def canonicalize(self, rows: Archs) -> Archs:
        """Move identities to the end of their stage, except in the stage's first layer."""
        out = rows.copy()
        for stage in STAGES:
            rest = slice(stage.start + 1, stage.stop)
            order = np.argsort(rows[:, rest] == 0, axis=1, kind="stable")
            out[:, rest] = np.take_along_axis(rows[:, rest], order, axis=1)
        return out

    def variants(self, rows: Archs) -> Archs:
        """Return the `(n, 4, 8)` forms: the last two layers of the second and third stage can be exchanged."""
        forms = np.repeat(rows[:, None, :], 4, axis=1)
        for bit, stage in enumerate(STAGES[1:]):
            a, b = stage.start + 1, stage.start + 2
            swap = (rows[:, a] == 0) | (rows[:, b] == 0)
            for form in range(4):
                if form >> bit & 1:
                    forms[swap, form, a], forms[swap, form, b] = rows[swap, b], rows[swap, a]
        return forms

    def operation_costs(self, choice: int, layer: Layer, side: int) -> IntArray:
        """Return the `(2,)` costs of a choice. An identity that changes channels or resolution is a 1x1 convolution."""
        if choice:
            return mobile_block(KERNEL[choice], EXPANSION[choice], layer, side)
        if not layer.changes:
            return np.zeros(2, np.int64)
        return convolution(1, layer.inputs, layer.outputs, half(side, layer.stride))

    @property
    def counted_spans(self) -> Sequence[slice]:
        """All layers; `encode` counts the blocks of each stage itself."""
        return (slice(None),)

    def encode(self, archs: Archs) -> Features:
        """Return one-hot choices, their counts, blocks in each stage, and costs."""
        depth = [(archs[:, stage] > 0).sum(axis=1) for stage in STAGES]
        extra = np.column_stack([*depth, *self.costs(archs).values()]).astype(np.float32)
        return np.concatenate([ChoiceSpace.encode(self, archs), extra], axis=1)
