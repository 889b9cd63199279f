"""The Once-for-All MobileNetV3 space: five stages of two to four blocks, 2e19 networks (Cai et al., 2020)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from lissnas.core.errors import InvalidArchitecture, short
from lissnas.spaces.base import Archs, BoolArray, Features, IntArray, Keys
from lissnas.spaces.chain import ChainSpace, Layer, Skeleton, Stage, mobile_block

KERNELS = (3, 5, 7)
EXPANSIONS = (3, 4, 6)
ABSENT = len(KERNELS) * len(EXPANSIONS)
"""The digit of an absent block; other digits are 3 x (index of kernel) + index of expansion."""
STAGES = 5
DEPTH = 4
"""Maximum number of blocks of a stage."""
BLOCKS = STAGES * DEPTH
CONFIGURATIONS = 9**2 + 9**3 + 9**4
"""7,371 configurations of a stage: two, three or four blocks of nine choices."""

SKELETON = Skeleton(
    image=224,
    classes=1000,
    stem=16,
    stem_stride=2,
    first=16,
    stages=tuple(Stage(width, DEPTH, stride) for width, stride in ((24, 2), (40, 2), (80, 2), (112, 1), (160, 2))),
    last=960,
    hidden=1280,
)
SQUEEZED = (40, 112, 160)
"""Output channels of the stages whose blocks have squeeze-and-excitation."""


class OFAMobileNetV3(ChainSpace):
    """Twenty blocks, four per stage: digits 0 to 8 are kernel and expansion, 9 is an absent block.

    Blocks can be absent only at the end of a stage, which has at least two. One edit changes the kernel
    and/or the expansion of a block, or adds or removes the last block of a stage. It changes one digit,
    so the distance is the number of differing digits. Images have a side of 224 pixels, the width factor
    is 1.0. A key is the index in lexicographic order modulo 2^64. There are 7,371^5 > 2^64 networks; two
    share a key if and only if their indices differ by 2^64. They then differ in every stage, so networks
    at a distance below 5 never share a key.
    """

    def __init__(self) -> None:
        radix = [ABSENT, ABSENT, ABSENT + 1, ABSENT + 1] * STAGES
        super().__init__("ofa_mobilenetv3", radix, SKELETON, "Once-for-All MobileNetV3 (Cai et al., 2020)")

    # -- configurations of stages ------------------------------------------------------------------
    @cached_property
    def _configurations(self) -> Archs:
        """The `(7371, 4)` digits of each configuration of a stage, in lexicographic order."""
        rows = np.indices((ABSENT, ABSENT, ABSENT + 1, ABSENT + 1)).reshape(DEPTH, -1).T
        return rows[_ends_in_order(rows[:, 2:])].astype(np.int8)

    def _numbers(self, archs: Archs) -> IntArray:
        """Return the `(n, 5)` indices of the configurations of stages."""
        first, second, third, last = (archs[:, i::DEPTH].astype(np.int64) for i in range(DEPTH))
        # Without a third block there is only one configuration of the rest, not ten.
        rest = np.minimum((ABSENT + 1) * third + last, ABSENT * (ABSENT + 1))
        numbers: IntArray = (ABSENT * first + second) * (ABSENT * (ABSENT + 1) + 1) + rest
        return numbers

    @cached_property
    def _weights(self) -> Keys:
        """The weight of each stage's configuration in the index of a network."""
        return np.array([CONFIGURATIONS**i for i in reversed(range(STAGES))], np.uint64)

    def _raw_key(self, rows: Archs) -> Keys:
        keys: Keys = (self._numbers(rows).astype(np.uint64) * self._weights).sum(axis=1, dtype=np.uint64)
        return keys

    def unkey(self, keys: Keys) -> Archs:
        """Return the rows with the given keys; if two rows share a key, the one with the lower index."""
        numbers = keys[:, None] // self._weights % np.uint64(CONFIGURATIONS)
        return self._rows(numbers)

    def _rows(self, numbers: Keys | IntArray) -> Archs:
        """Return the rows with the given `(n, 5)` configurations of stages."""
        rows: Archs = self._configurations[numbers].reshape(-1, BLOCKS)
        return rows

    # -- the protocol ------------------------------------------------------------------------------
    def size(self) -> int:
        """Return 7,371^5."""
        return int(CONFIGURATIONS**STAGES)

    def valid(self, rows: Archs) -> BoolArray:
        """Return an `(n,)` mask of the rows without an absent block before a present one in a stage."""
        return np.asarray(_ends_in_order(rows.reshape(-1, STAGES, DEPTH)[:, :, 2:]).all(axis=1))

    def sample(self, n: int, rng: Generator) -> Archs:
        """Draw `n` uniform networks: a uniform configuration for each stage."""
        return self._rows(rng.integers(0, CONFIGURATIONS, (n, STAGES)))

    def slots(self, archs: Archs) -> Archs:
        """Return the digits, -1 for the fourth block of a stage if the third is absent."""
        out = archs.copy()
        out[:, DEPTH - 1 :: DEPTH][archs[:, DEPTH - 2 :: DEPTH] == ABSENT] = -1
        return out

    def _stages_allowed(self, allowed: BoolArray) -> BoolArray:
        """Return a `(5, 7371)` mask of the configurations of each stage that use allowed choices only."""
        digits = self._configurations
        two_blocks = digits[:, 2] == ABSENT  # without a third block the fourth is not a decision
        by_block = allowed.reshape(STAGES, DEPTH, -1)[:, np.arange(DEPTH), digits]
        by_block[:, two_blocks, DEPTH - 1] = True
        return np.asarray(by_block.all(axis=2))

    def count_product(self, allowed: BoolArray) -> int:
        """Return the number of networks that use allowed choices only, the product over stages."""
        return math.prod(int(n) for n in self._stages_allowed(allowed).sum(axis=1))

    def sample_product(self, allowed: BoolArray, n: int, rng: Generator) -> Archs:
        """Draw `n` of these networks, independent and uniform: an allowed configuration for each stage."""
        numbers = [rng.choice(np.flatnonzero(stage), n) for stage in self._stages_allowed(allowed)]
        return self._rows(np.stack(numbers, axis=1))

    def operation_costs(self, choice: int, layer: Layer, side: int) -> IntArray:
        """Return the `(2,)` costs of a MobileNetV3 block at width 1.0, including squeeze-and-excitation if present."""
        if choice == ABSENT:
            return np.zeros(2, np.int64)
        kernel, expansion = KERNELS[choice // len(EXPANSIONS)], EXPANSIONS[choice % len(EXPANSIONS)]
        total = mobile_block(kernel, expansion, layer, side)
        if layer.outputs in SQUEEZED:  # two 1x1 convolutions with bias, without batch norm, on one pixel
            middle = layer.inputs * expansion
            narrow = _divisible(middle // 4)
            total += np.array([2 * middle * narrow, 2 * middle * narrow + middle + narrow])
        return total

    @cached_property
    def _stage_features(self) -> list[Features]:
        """For each configuration: one-hot kernels (12) and expansions (12), counts of both (3 each), and depth."""
        digits = self._configurations[:, :, None]
        kernels = digits // 3 == np.arange(3)
        expansions = (digits % 3 == np.arange(3)) & (digits < ABSENT)
        kinds = [
            *(hot.reshape(CONFIGURATIONS, -1) for hot in (kernels, expansions)),
            *(hot.sum(axis=1) for hot in (kernels, expansions)),
            kernels.sum(axis=(1, 2))[:, None],
        ]
        return [kind.astype(np.float32) for kind in kinds]

    def one_hot(self, archs: Archs) -> Features:
        """Return `(n, 120)`: one-hot kernels of the twenty blocks, then expansions, zeros for absent ones."""
        return self._features(archs, self._stage_features[:2])

    def encode(self, archs: Archs) -> Features:
        """Return one-hot kernels and expansions, their counts by stage, depths, and costs."""
        costs = np.column_stack([*self.costs(archs).values()])
        return np.concatenate([self._features(archs, self._stage_features), costs], axis=1, dtype=np.float32)

    def _features(self, archs: Archs, kinds: Sequence[Features]) -> Features:
        """Return features of all stages, grouped by kind."""
        self.check_rows(archs)
        numbers = self._numbers(archs)
        return np.concatenate([kind[numbers].reshape(len(archs), STAGES * kind.shape[1]) for kind in kinds], axis=1)

    # -- notation ----------------------------------------------------------------------------------
    @cached_property
    def _names(self) -> list[str]:
        """The notation of each configuration of a stage."""
        blocks = [f"k{kernel}e{e}" for kernel in KERNELS for e in EXPANSIONS]
        return ["-".join(blocks[c] for c in row if c < ABSENT) for row in self._configurations.tolist()]

    @cached_property
    def _number_of(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self._names)}

    def format(self, archs: Archs) -> list[str]:
        """Return stages joined by `|`, each like `k3e6-k5e4`: kernel and expansion of two to four blocks."""
        names = self._names
        return ["|".join([names[i] for i in row]) for row in self._numbers(archs).tolist()]

    def parse(self, names: Sequence[str]) -> Archs:
        """Return the rows of names in the notation of `format`."""
        numbers = []
        for row, name in enumerate(names):
            stages = name.split("|")
            if len(stages) != STAGES:
                raise InvalidArchitecture(row, f"expected {STAGES} stages joined by '|', found {len(stages)}")
            for i, stage in enumerate(stages):
                if stage not in self._number_of:
                    expected = "expected 2 to 4 blocks joined by '-', each k3, k5 or k7 and e3, e4 or e6"
                    raise InvalidArchitecture(row, f"stage {i}: {expected}, found {short(repr(stage))}")
            numbers.append([self._number_of[stage] for stage in stages])
        return self._rows(np.array(numbers, np.int64).reshape(-1, STAGES))


def _ends_in_order(last_two: NDArray[np.integer]) -> BoolArray:
    """Return a mask: whether the fourth block is absent if the third one is (these two are the last axis)."""
    return np.asarray((last_two[..., 0] < ABSENT) | (last_two[..., 1] == ABSENT))


def _divisible(channels: float) -> int:
    """Return the nearest multiple of 8 that is at least 8 and at least 90 % of a number of channels."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest
