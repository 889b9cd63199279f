"""TransNAS-Bench-101: 4,096 cells (micro), 3,256 skeletons (macro), and their union (Duan et al., 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lissnas.core.errors import InvalidArchitecture
from lissnas.spaces.base import Archs, BoolArray, Features, IntArray, as_bytes, raise_first
from lissnas.spaces.chain import convolution
from lissnas.spaces.choices import ChoiceSpace

SOURCE = "TransNAS-Bench-101 (Duan et al., 2021)"
BASE, IMAGE = 64, 256
"""Channels after the stem, and the side of the images that costs are counted for."""
STEM = convolution(3, 3, BASE // 2, IMAGE // 2) + convolution(3, BASE // 2, BASE, IMAGE // 4)
"""Multiply-adds and parameters of what comes before the modules."""
MICRO_MODULES = (4, 1, 4, 1, 4)
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""The six edges of a micro cell, in the order of its digits: a, b c, d e f."""
PATHS = ((3,), (0, 4), (1, 5), (0, 2, 5))
"""The four ways from node 0 to node 3, as positions of digits."""
MACRO_LENGTH = 6


class TransNASMicro(ChoiceSpace):
    """Cells of four nodes; digit 0 none, 1 skip, 2 ReLU-conv1x1-BN, 3 ReLU-conv3x3-BN on each edge."""

    cost_names = ("flops", "params")

    def __init__(self) -> None:
        super().__init__("transnas_micro", [4] * 6, SOURCE)
        self.n_features += N_MICRO_FEATURES

    def costs(self, archs: Archs) -> Mapping[str, IntArray]:
        """Return multiply-adds and parameters of the encoder."""
        self.check_rows(archs)
        return _micro_costs(archs)

    def encode(self, archs: Archs) -> Features:
        """Return one-hot edges, their counts, what the four paths hold, and costs."""
        return np.concatenate([super().encode(archs), _micro_features(archs)], axis=1)

    def format(self, archs: Archs) -> list[str]:
        """Return `64-41414-a_bc_def`."""
        return [f"64-41414-{s[0]}_{s[1:3]}_{s[3:]}" for s in super().format(archs)]

    def parse(self, names: Sequence[str]) -> Archs:
        """Read `64-41414-a_bc_def`."""
        codes, lengths = as_bytes(names, 17)
        frame = np.frombuffer(b"64-41414- _  _   ", np.uint8)
        fits = ((codes == frame) | (frame == ord(" "))).all(axis=1) & (lengths == 17)
        raise_first(~fits, "expected 64-41414-a_bc_def with digits 0 to 3")
        return self.from_digits(codes[:, [9, 11, 12, 14, 15, 16]])


class TransNASMacro(ChoiceSpace):
    """Skeletons of 4 to 6 modules; digit 1 plain, 2 channels x2, 3 resolution /2, 4 both.

    One to four modules halve the resolution and one to three double the channels. A shorter
    skeleton is padded with 0, so appending or dropping the last module is one edit.
    """

    cost_names = ("flops", "params")

    def __init__(self) -> None:
        super().__init__("transnas_macro", [5] * MACRO_LENGTH, SOURCE)
        self.n_features += N_MACRO_FEATURES

    def valid(self, rows: Archs) -> BoolArray:
        """Return which rows are padded at the end only and keep within the limits."""
        return _macro_valid(rows)

    def costs(self, archs: Archs) -> Mapping[str, IntArray]:
        """Return multiply-adds and parameters of the encoder."""
        self.check_rows(archs)
        return _macro_costs(archs)

    def encode(self, archs: Archs) -> Features:
        """Return one-hot modules, their counts, width and resolution after each, and costs."""
        return np.concatenate([super().encode(archs), _macro_features(archs)], axis=1)

    def format(self, archs: Archs) -> list[str]:
        """Return `64-<modules>-basic`."""
        return [f"64-{s.rstrip('0')}-basic" for s in super().format(archs)]

    def parse(self, names: Sequence[str]) -> Archs:
        """Read `64-<modules>-basic`."""
        digits = [s[3:-6] if s.startswith("64-") and s.endswith("-basic") else "" for s in names]
        codes, lengths = as_bytes(digits, MACRO_LENGTH)
        raise_first((lengths < 4) | (codes == ord("0")).any(axis=1), "expected 64-<4 to 6 digits 1 to 4>-basic")
        return self.from_digits(np.where(codes == 0, np.uint8(ord("0")), codes))


class TransNAS(ChoiceSpace):
    """Both spaces side by side: digit 0 says which (0 micro, 1 macro), and no edit changes it."""

    cost_names = ("flops", "params")
    fixed = (0,)

    def __init__(self) -> None:
        super().__init__("transnas", [2, *[5] * MACRO_LENGTH], f"{SOURCE}, the paper's 7,352")
        self._parts = (TransNASMicro(), TransNASMacro())
        self.n_features = 1 + sum(part.n_features for part in self._parts)
        self.slot_choices = (2, *(n for part in self._parts for n in part.slot_choices))

    def valid(self, rows: Archs) -> BoolArray:
        """Return which rows are networks of the space that their first digit names."""
        macro = rows[:, 0] == 1
        return np.where(macro, _macro_valid(rows[:, 1:]), (rows[:, 1:] < 4).all(axis=1))

    def costs(self, archs: Archs) -> Mapping[str, IntArray]:
        """Return multiply-adds and parameters of the encoder."""
        self.check_rows(archs)
        out = {name: np.zeros(len(archs), np.int64) for name in self.cost_names}
        for which, part in enumerate(self._parts):
            at = archs[:, 0] == which
            for name, values in part.costs(archs[at, 1:]).items():
                out[name][at] = values
        return out

    def slots(self, archs: Archs) -> Archs:
        """Return which part, then the choices in each part, -1 in the other one."""
        micro = archs[:, :1] == 0
        absent = np.int8(-1)
        parts = (np.where(micro, archs[:, 1:], absent), np.where(micro, absent, archs[:, 1:]))
        return np.concatenate([archs[:, :1], *parts], axis=1)

    def encode(self, archs: Archs) -> Features:
        """Return which part, then the features of each part, zeros for the other one's."""
        self.check_rows(archs)
        out = np.zeros((len(archs), self.n_features), np.float32)
        out[:, 0] = archs[:, 0]
        first = 1
        for which, part in enumerate(self._parts):
            at = np.flatnonzero(archs[:, 0] == which)
            out[at, first : first + part.n_features] = part.encode(archs[at, 1:])
            first += part.n_features
        return out

    def format(self, archs: Archs) -> list[str]:
        """Return each network in the notation of its part."""
        out = np.empty(len(archs), object)
        for which, part in enumerate(self._parts):
            at = archs[:, 0] == which
            out[at] = part.format(archs[at, 1:])
        return list(out)

    def parse(self, names: Sequence[str]) -> Archs:
        """Read `64-41414-a_bc_def` and `64-<modules>-basic`."""
        micro, macro = self._parts
        is_macro = np.fromiter((s.endswith("-basic") for s in names), bool, len(names))
        rows = np.empty((len(names), self.genome_len), np.int8)
        rows[:, 0] = is_macro
        for at, part in ((np.flatnonzero(~is_macro), micro), (np.flatnonzero(is_macro), macro)):
            try:
                rows[at, 1:] = part.parse([names[int(i)] for i in at])
            except InvalidArchitecture as error:
                raise InvalidArchitecture(int(at[error.row]), error.reason) from None
        return rows


def _macro_valid(rows: Archs) -> BoolArray:
    used = rows > 0
    padded = (used[:, 1:] <= used[:, :-1]).all(axis=1)
    halvings = ((rows == 3) | (rows == 4)).sum(axis=1)
    doublings = ((rows == 2) | (rows == 4)).sum(axis=1)
    length = used.sum(axis=1)
    return np.asarray(
        padded
        & (length >= 4)
        & (halvings >= 1)
        & (halvings <= 4)
        & (doublings >= 1)
        & (doublings <= 3)
        & (rows <= 4).all(axis=1)
    )


def _micro_costs(rows: Archs) -> dict[str, IntArray]:
    flops, params = (np.full(len(rows), c) for c in STEM)
    width, side = np.full(len(rows), BASE), np.full(len(rows), IMAGE // 4)
    zero = np.zeros(len(rows), np.int64)
    for module in MICRO_MODULES:
        for first in (True, False):
            halves = module == 4 and first
            inputs, width, side = width, width * (1 + halves), side // (1 + halves)
            for position, (tail, _) in enumerate(EDGES):
                cin = inputs if tail == 0 else width
                skip = convolution(1, cin, width, side) if halves and tail == 0 else (zero, zero)
                by_digit = (
                    (zero, zero),
                    skip,
                    convolution(1, cin, width, side),
                    convolution(3, cin, width, side),
                )
                for digit, (f, p) in enumerate(by_digit):
                    here = rows[:, position] == digit
                    flops, params = flops + here * f, params + here * p
    return {"flops": flops, "params": params}


def _macro_costs(rows: Archs) -> dict[str, IntArray]:
    flops, params = (np.full(len(rows), c) for c in STEM)
    width, side = np.full(len(rows), BASE), np.full(len(rows), IMAGE // 4)
    for position in range(MACRO_LENGTH):
        digit = rows[:, position]
        used = digit > 0
        wide, small = (digit == 2) | (digit == 4), (digit == 3) | (digit == 4)
        inputs, width, side = width, np.where(wide, 2 * width, width), np.where(small, side // 2, side)
        main = convolution(3, inputs, width, side)
        same = convolution(3, width, width, side)
        shortcut = convolution(1, inputs, width, side)
        for i, total in enumerate((flops, params)):
            total += used * (main[i] + 3 * same[i] + (wide | small) * shortcut[i])
    return {"flops": flops, "params": params}


N_MICRO_FEATURES = 4 * 3 + 4 + 2


def _micro_features(rows: Archs) -> NDArray[np.float32]:
    """Return for each path whether it is whole and its convolutions; over paths their number and depth."""
    columns = []
    for path in PATHS:
        digits = rows[:, list(path)]
        whole = (digits > 0).all(axis=1)
        columns += [whole, whole * (digits >= 2).sum(axis=1), whole * (digits == 3).sum(axis=1)]
    per_path = np.stack(columns, axis=1).reshape(len(rows), len(PATHS), 3)
    columns += [
        per_path[:, :, 0].sum(axis=1),
        *per_path[:, :, 1:].max(axis=1).T,
        per_path[:, :, 2].sum(axis=1),
    ]
    return np.column_stack([*columns, *_micro_costs(rows).values()]).astype(np.float32)


N_MACRO_FEATURES = 2 * MACRO_LENGTH + 3 + 2


def _macro_features(rows: Archs) -> NDArray[np.float32]:
    """Return how often width doubled and resolution halved up to each module, and in all."""
    wide = np.cumsum((rows == 2) | (rows == 4), axis=1)
    small = np.cumsum((rows == 3) | (rows == 4), axis=1)
    totals = [(rows > 0).sum(axis=1), wide[:, -1], small[:, -1]]
    return np.column_stack([wide, small, *totals, *_macro_costs(rows).values()]).astype(np.float32)
