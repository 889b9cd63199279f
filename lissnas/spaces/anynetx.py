"""AnyNetX A to E, the spaces of RegNet's design steps: four stages of free shape (Radosavovic et al., 2020)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from lissnas.core.errors import InvalidArchitecture, short
from lissnas.spaces.base import Archs, BoolArray, Features, IntArray
from lissnas.spaces.chain import half
from lissnas.spaces.choices import ChoiceSpace

IMAGE = 224
"""Image side of the full-size network, in pixels."""
CLASSES = 1000
STEM = 32
"""Output channels of the stem, a 3x3 convolution."""
STEM_STRIDE = 2
STAGES = 4


class Values(NamedTuple):
    """The possible values of each parameter of a stage, ascending."""

    depth: tuple[int, ...] = tuple(range(1, 17))
    width: tuple[int, ...] = tuple(range(8, 1025, 8))
    bottleneck: tuple[int, ...] = (1, 2, 4)
    group: tuple[int, ...] = (1, 2, 4, 8, 16, 32)


VALUES = Values()
"""The values of the publication."""

STEPS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "anynetx": (frozenset(), frozenset()),
    "anynetx_b": (frozenset({"bottleneck"}), frozenset()),
    "anynetx_c": (frozenset({"bottleneck", "group"}), frozenset()),
    "anynetx_d": (frozenset({"bottleneck", "group"}), frozenset({"width"})),
    "anynetx_e": (frozenset({"bottleneck", "group"}), frozenset({"width", "depth"})),
}
"""For AnyNetX A to E: the parameters that all stages share, and those that are non-decreasing over stages."""


class Described(NamedTuple):
    """The parameters of stages as described by rows, each `(n, stages)`."""

    depth: IntArray
    width: IntArray
    bottleneck: IntArray
    group: IntArray


class Stages(NamedTuple):
    """The shapes of stages as built, each `(n, stages)`."""

    depth: IntArray
    width: IntArray
    inner: IntArray
    """Channels between the 1x1 convolutions of a block."""
    group: IntArray
    """Channels per group of the 3x3 convolution."""


class AnyNetX(ChoiceSpace):
    """Four stages of residual bottleneck blocks; the first block of each stage halves the resolution.

    A row has the choices of depth for each stage, then width, bottleneck ratio, group width; a shared
    parameter has one position. Rows (descriptions) are the identity, and `size()` counts them, as the
    publication does. Because `fitted` rounds values that can't be built, several descriptions may give the
    same network: A has (16 x 1,496)^4 = 3.3e17 distinct networks, 18 % of its size. The share of
    descriptions that are built without rounding is 17 % in A, 21 % in B, 51 % in C, D and E.

    The published sizes of A (1.8e18), B (6.8e16) and C (3.2e14) agree with `size()`. Those of D (1.3e13)
    and E (5.5e11) are C's divided by 4! once and twice, which would be right only if all stages differed.
    There are C(v + 3, 4) non-decreasing sequences of v values, so D has 1.38e13 and E 8.2e11.
    """

    size_exact = False

    def __init__(
        self,
        name: str,
        shared: frozenset[str] = frozenset(),
        ordered: frozenset[str] = frozenset(),
        values: Values = VALUES,
        stages: int = STAGES,
    ) -> None:
        self.values = values
        self.stages = stages
        self.shared, self.ordered = shared, ordered
        self.spans: dict[str, slice] = {}
        radix: list[int] = []
        for parameter, choices in values._asdict().items():
            positions = 1 if parameter in shared else stages
            self.spans[parameter] = slice(len(radix), len(radix) + positions)
            radix += [len(choices)] * positions
        super().__init__(name, radix, "AnyNetX of RegNet (Radosavovic et al., 2020)")

    # -- the rules ---------------------------------------------------------------------------
    @property
    def free(self) -> bool:
        """Whether every row is valid: no parameter is ordered."""
        return not self.ordered

    def valid(self, rows: Archs) -> BoolArray:
        """Return an `(n,)` mask of the rows whose ordered parameters are non-decreasing."""
        ok = np.ones(len(rows), bool)
        for parameter in self.ordered:
            part = rows[:, self.spans[parameter]]
            ok &= (part[:, 1:] >= part[:, :-1]).all(axis=1)
        return ok

    def size(self) -> int:
        """Return the number of descriptions."""
        return self.count_product(self.possible())

    def count_product(self, allowed: BoolArray) -> int:
        """Return the number of descriptions that use allowed choices only."""
        total = 1
        for parameter, span in self.spans.items():
            if parameter in self.ordered:
                total *= int(ways_to_end(allowed[span])[-1].sum())
            else:
                total *= math.prod(int(n) for n in allowed[span].sum(axis=1))
        return total

    def sample_product(self, allowed: BoolArray, n: int, rng: Generator) -> Archs:
        """Draw `n` of them, independent and uniform. Ordered positions are drawn from the last to the first."""
        rows = np.empty((n, self.genome_len), np.int8)
        for parameter, span in self.spans.items():
            if parameter not in self.ordered:
                rows[:, span] = super().sample_product(allowed[span], n, rng)
                continue
            upper = np.full(n, allowed.shape[1] - 1)
            for position, ways in reversed([*enumerate(ways_to_end(allowed[span]), span.start)]):
                total = np.cumsum(ways)
                upper = np.searchsorted(total, rng.integers(0, total[upper]), side="right")
                rows[:, position] = upper
        return rows

    def sample(self, n: int, rng: Generator) -> Archs:
        """Draw `n` descriptions: independent positions, and uniform non-decreasing sequences of ordered ones."""
        rows = rng.integers(0, self.radix, (n, self.genome_len)).astype(np.int8)
        for parameter in sorted(self.ordered):
            rows[:, self.spans[parameter]] = non_decreasing(n, self.stages, len(getattr(self.values, parameter)), rng)
        return rows

    def _redraw(self, archs: Archs, edits: IntArray, rng: Generator) -> Archs:
        """Change positions, then sort adjacent changed ones of ordered parameters, so that fewer draws are invalid."""
        rows = super()._redraw(archs, edits, rng)
        for parameter in self.ordered:
            span = self.spans[parameter]
            choice = rows[:, span].astype(np.int64)
            same = choice == archs[:, span]
            # Number the runs of changed positions and each unchanged one, so that sorting stays within runs.
            run = 2 * (np.cumsum(same, axis=1) - same) + same
            radix = len(getattr(self.values, parameter))
            rows[:, span] = np.sort(run * radix + choice, axis=1) % radix
        return rows

    # -- notation ----------------------------------------------------------------------------
    @cached_property
    def _names(self) -> list[str]:
        """The notation of a stage, by its mixed-radix index."""
        return [f"{d}x{w}b{b}g{g}" for d, w, b, g in product(*self.values)]

    @cached_property
    def _number(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self._names)}

    def format(self, archs: Archs) -> list[str]:
        """Return the stages as depth, width, bottleneck ratio and group width, e.g. ``2x64b1g16|...``."""
        self.check_rows(archs)
        number = np.zeros((len(archs), self.stages), np.int64)
        for span, choices in zip(self.spans.values(), self.values, strict=True):
            number = number * len(choices) + archs[:, span]
        names = self._names
        return ["|".join([names[i] for i in row]) for row in number.tolist()]

    def parse(self, names: Sequence[str]) -> Archs:
        """Return the rows of names; raises InvalidArchitecture, also if stages differ in a shared parameter."""
        parts = [name.split("|") for name in names]
        count = np.array([len(part) for part in parts], np.int64)
        flat = [self._number.get(text, -1) for part in parts for text in part]
        known = np.array(flat, np.int64) >= 0
        owner = np.repeat(np.arange(len(parts)), count)
        bad = count != self.stages
        bad[owner[~known]] = True
        if bad.any():
            at = int(np.argmax(bad))
            self.parse(names[:at])  # raises if an earlier row breaks a rule
            raise InvalidArchitecture(at, self._invalid_stage(parts[at]))
        number = np.array(flat, np.int64).reshape(len(parts), self.stages)
        rows = np.empty((len(parts), self.genome_len), np.int8)
        broken: list[tuple[int, str]] = []
        for parameter, choices in reversed(self.values._asdict().items()):
            number, choice = np.divmod(number, len(choices))
            step = np.diff(choice)
            if parameter in self.shared:
                bad, reason = (step != 0).any(axis=1), f"all stages of {self.name} must share one {parameter}"
            elif parameter in self.ordered:
                bad, reason = (step < 0).any(axis=1), f"{parameter} decreases; it must be non-decreasing in {self.name}"
            else:
                bad, reason = np.zeros(len(parts), bool), ""
            if bad.any():
                broken.append((int(np.argmax(bad)), reason))
            rows[:, self.spans[parameter]] = choice[:, :1] if parameter in self.shared else choice
        if broken:
            raise InvalidArchitecture(*min(broken))
        return rows

    def _invalid_stage(self, parts: list[str]) -> str:
        """Return why the stages of a name are invalid, for error messages."""
        if len(parts) != self.stages:
            return f"expected {self.stages} stages, e.g. 2x64b1g16|..., found {len(parts)}"
        at = next(i for i, text in enumerate(parts) if text not in self._number)
        v = self.values
        found = short(repr(parts[at]))
        return (
            f"stage {at} is {found}, expected {{depth}}x{{width}}b{{bottleneck}}g{{group width}}, e.g. 2x64b1g16, with "
            f"depth {v.depth[0]} to {v.depth[-1]}, width {v.width[0]} to {v.width[-1]} in steps of 8, "
            f"bottleneck in {v.bottleneck}, group width in {v.group}"
        )

    # -- networks ----------------------------------------------------------------------------
    def described(self, archs: Archs) -> Described:
        """Return the parameters of rows, shared ones repeated for each stage."""
        self.check_rows(archs)
        shape = (len(archs), self.stages)
        return Described(
            *(
                np.broadcast_to(np.array(choices)[archs[:, span]], shape)
                for span, choices in zip(self.spans.values(), self.values, strict=True)
            )
        )

    def costs(self, archs: Archs) -> Mapping[str, IntArray]:
        """Return multiply-adds of convolutions and classifier, and parameters, of the full-size network."""
        built = fitted(self.described(archs))
        return total_costs(built, *stage_costs(built))

    def encode(self, archs: Archs) -> Features:
        """Return depth, sizes and costs of each stage as built, then totals.

        All but depths and bottleneck ratios are log2. Descriptions of the same network have equal features.
        """
        built = fitted(self.described(archs))
        by_stage = stage_costs(built)
        sizes = [built.width, built.inner, built.group, built.inner // built.group, *by_stage]
        logs = [np.log2(size) for size in (*sizes, *total_costs(built, *by_stage).values())]
        plain = [built.depth, built.depth.sum(axis=1), built.width // built.inner]
        return np.column_stack([*plain, *logs]).astype(np.float32)


def ways_to_end(allowed: BoolArray) -> list[IntArray]:
    """Return for each position the number of non-decreasing sequences up to it that end with each choice."""
    ways = [allowed[0].astype(np.int64)]
    for choices in allowed[1:]:
        ways.append(np.cumsum(ways[-1]) * choices)
    return ways


def fitted(described: Described) -> Stages:
    """Return the stages as built: the inner channels are rounded to a multiple of the group width.

    As in RegNet's code: inner channels are width / bottleneck, the group width is at most that, halves
    round to even multiples, and the width becomes bottleneck x inner channels.
    """
    depth, width, bottleneck, group = described
    inner = np.maximum(1, width // bottleneck)
    group = np.minimum(group, inner)
    inner = np.rint(inner / group).astype(np.int64) * group
    return Stages(depth, inner * bottleneck, inner, group)


def stage_costs(built: Stages) -> tuple[IntArray, IntArray]:
    """Return multiply-adds and parameters of each stage of the full-size network, `(n, stages)` each.

    A block is a 1x1, a grouped 3x3 and a 1x1 convolution. The first block of a stage has the stride and a
    1x1 convolution on its shortcut. Batch norms have two parameters per channel.
    """
    depth, width, inner, group = built
    before: IntArray = np.concatenate([np.full((len(width), 1), STEM, np.int64), width[:, :-1]], axis=1)
    sides = [half(IMAGE, STEM_STRIDE)]
    for _ in range(width.shape[1]):
        sides.append(half(sides[-1], 2))
    pixels: IntArray = np.array(sides, np.int64) ** 2
    large, small = pixels[:-1], pixels[1:]
    enter = before * inner  # the only convolution at the input resolution of the stage
    first = inner * (9 * group + width) + before * width
    block = inner * (width + 9 * group + width)
    flops: IntArray = enter * large + (first + (depth - 1) * block) * small
    params: IntArray = enter + first + (depth - 1) * block + 2 * (depth * (2 * inner + width) + width)
    return flops, params


def total_costs(built: Stages, flops: IntArray, params: IntArray) -> dict[str, IntArray]:
    """Return the costs of networks, `(n,)` each: the costs of their stages, the stem and the classifier."""
    stem, last = 27 * STEM, built.width[:, -1]
    return {
        "flops": flops.sum(axis=1) + stem * half(IMAGE, STEM_STRIDE) ** 2 + last * CLASSES,
        "params": params.sum(axis=1) + stem + 2 * STEM + (last + 1) * CLASSES,
    }


def non_decreasing(n: int, length: int, radix: int, rng: Generator) -> IntArray:
    """Draw `(n, length)` uniform non-decreasing sequences of numbers from 0 to radix - 1.

    Such a sequence plus 0, 1, 2, ... is a subset of `length` out of radix + length - 1 numbers, which
    Floyd's algorithm draws.
    """
    chosen = np.empty((n, length), np.int64)
    for i in range(length):
        last = radix - 1 + i
        drawn = rng.integers(0, last + 1, n)
        taken = (chosen[:, :i] == drawn[:, None]).any(axis=1)
        chosen[:, i] = np.where(taken, last, drawn)
    return np.sort(chosen, axis=1) - np.arange(length)
