"""NAS-Bench-Macro: eight layers of three choices, 3,969 networks by function (Su et al., 2021)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lissnas.spaces.base import Archs, Features, IntArray
from lissnas.spaces.choices import ChoiceSpace

STAGES = (slice(0, 2), slice(2, 5), slice(5, 8))
WIDTHS = (64, 128, 256)
STEM, LAST, CLASSES, IMAGE = 32, 1280, 10, 32
EXPANSION = (0, 3, 6)
KERNEL = (1, 3, 5)


class NASBenchMacro(ChoiceSpace):
    """Choice 0 identity, 1 MobileNetV2 block k3 e3, 2 the same k5 e6; strings of equal function are one.

    An identity does nothing but in the first layer of a stage, where it has to halve the
    resolution; so inside a stage only the order of the other choices matters.
    """

    cost_names = ("flops", "params")

    def __init__(self) -> None:
        super().__init__("nas_bench_macro", [3] * 8, "NAS-Bench-Macro (Su et al., 2021)")
        self.n_features += len(self.cost_names) + len(STAGES)

    def canonical(self, rows: Archs) -> Archs:
        """Move identities behind the other choices of their stage, but for the stage's first layer."""
        out = rows.copy()
        for stage in STAGES:
            rest = slice(stage.start + 1, stage.stop)
            order = np.argsort(rows[:, rest] == 0, axis=1, kind="stable")
            out[:, rest] = np.take_along_axis(rows[:, rest], order, axis=1)
        return out

    def variants(self, rows: Archs) -> Archs:
        """Return the four forms: in the second and third stage the last two layers may change places."""
        forms = np.repeat(rows[:, None, :], 4, axis=1)
        for bit, stage in enumerate(STAGES[1:]):
            a, b = stage.start + 1, stage.start + 2
            swap = (rows[:, a] == 0) | (rows[:, b] == 0)
            for form in range(4):
                if form >> bit & 1:
                    forms[swap, form, a], forms[swap, form, b] = rows[swap, b], rows[swap, a]
        return forms

    def costs(self, archs: Archs) -> Mapping[str, IntArray]:
        """Return multiply-adds and parameters, equal to the published table's."""
        self.check_rows(archs)
        flops = np.zeros(len(archs), np.int64)
        params = np.zeros(len(archs), np.int64)
        for layer, table in enumerate(_LAYER_COSTS):
            f, p = table[archs[:, layer]].T
            flops, params = flops + f, params + p
        f, p = _FIXED_COSTS
        return {"flops": flops + f, "params": params + p}

    def encode(self, archs: Archs) -> Features:
        """Return one-hot choices, their counts, blocks in each stage, and costs."""
        depth = [(archs[:, stage] > 0).sum(axis=1) for stage in STAGES]
        extra = np.column_stack([*depth, *self.costs(archs).values()]).astype(np.float32)
        return np.concatenate([super().encode(archs), extra], axis=1)


def _convolution(kernel: int, inputs: int, outputs: int, side: int, groups: int = 1) -> IntArray:
    """Multiply-adds and parameters of a convolution without bias and its batch norm."""
    weights = kernel * kernel * inputs * outputs // groups
    return np.array([weights * side**2, weights + 2 * outputs])


def _block(choice: int, inputs: int, outputs: int, side_in: int, side_out: int) -> IntArray:
    if choice == 0:
        if inputs == outputs and side_in == side_out:
            return np.zeros(2, np.int64)
        return _convolution(1, inputs, outputs, side_out)
    mid = inputs * EXPANSION[choice]
    return (
        _convolution(1, inputs, mid, side_in)
        + _convolution(KERNEL[choice], mid, mid, side_out, groups=mid)
        + _convolution(1, mid, outputs, side_out)
    )


def _layer_costs() -> list[IntArray]:
    tables = []
    width, side = STEM, IMAGE
    for stage, out in zip(STAGES, WIDTHS, strict=True):
        for _ in range(stage.start, stage.stop):
            small = side // 2 if width != out else side
            tables.append(np.array([_block(c, width, out, side, small) for c in range(3)]))
            width, side = out, small
    return tables


_LAYER_COSTS = _layer_costs()
_FIXED_COSTS = (
    _convolution(3, 3, STEM, IMAGE)
    + _convolution(1, WIDTHS[-1], LAST, IMAGE // 8)
    + np.array([LAST * CLASSES, (LAST + 1) * CLASSES])
)
