"""TransNAS-Bench-101: 4,096 cells (micro), 3,256 skeletons (macro), and their union (Duan et al., 2021)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np

from lissnas.core.errors import InvalidArchitecture
from lissnas.spaces.base import Archs, BoolArray, Features, IntArray, as_bytes, raise_first
from lissnas.spaces.chain import convolution
from lissnas.spaces.choices import ChoiceSpace

SOURCE = "TransNAS-Bench-101 (Duan et al., 2021)"
BASE = 64
"""Channels after the stem."""
IMAGE = 256
"""Image side that costs are computed for, in pixels."""
STEM = convolution(3, 3, BASE // 2, IMAGE // 2) + convolution(3, BASE // 2, BASE, IMAGE // 4)
"""Multiply-adds and parameters of the stem."""
MICRO_MODULES = (4, 1, 4, 1, 4)
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""The six edges of a micro cell, in the order of its digits: a, b c, d e f."""
PATHS = ((3,), (0, 4), (1, 5), (0, 2, 5))
"""The four paths from node 0 to node 3, as positions of digits."""
MACRO_LENGTH = 6


class TransNASMicro(ChoiceSpace):
    """Cells of four nodes; the digit of an edge is 0 none, 1 skip, 2 ReLU-conv1x1-BN or 3 ReLU-conv3x3-BN."""

    def __init__(self) -> None:
        super().__init__("transnas_micro", [4] * 6, SOURCE)

    @cached_property
    def cost_tables(self) -> tuple[Sequence[IntArray], IntArray]:
        """For each edge the `(4, 2)` multiply-adds and parameters by digit, in the whole encoder, and the stem's."""
        tables = np.zeros((len(EDGES), 4, 2), np.int64)
        width, side, none = BASE, IMAGE // 4, np.zeros(2, np.int64)
        for module in MICRO_MODULES:
            for halves in (module == 4, False):
                inputs, width, side = width, width * (1 + halves), side // (1 + halves)
                for table, (tail, _) in zip(tables, EDGES, strict=True):
                    cin = inputs if tail == 0 else width
                    narrow, wide = (convolution(kernel, cin, width, side) for kernel in (1, 3))
                    table += np.array([none, narrow if halves and tail == 0 else none, narrow, wide])
        return list(tables), STEM

    def encode(self, archs: Archs) -> Features:
        """Return one-hot edges, their counts, statistics of the four paths, and costs.

        For each path: whether it is complete, and its convolutions. Over all paths: their number and depth.
        """
        columns = []
        for path in PATHS:
            digits = archs[:, list(path)]
            whole = (digits > 0).all(axis=1)
            columns += [whole, whole * (digits >= 2).sum(axis=1), whole * (digits == 3).sum(axis=1)]
        per_path = np.stack(columns, axis=1).reshape(len(archs), len(PATHS), 3)
        columns += [
            per_path[:, :, 0].sum(axis=1),
            *per_path[:, :, 1:].max(axis=1).T,
            per_path[:, :, 2].sum(axis=1),
        ]
        return np.column_stack([super().encode(archs), *columns, *self.costs(archs).values()]).astype(np.float32)

    def format(self, archs: Archs) -> list[str]:
        """Return `64-41414-a_bc_def`."""
        return [f"64-41414-{s[0]}_{s[1:3]}_{s[3:]}" for s in super().format(archs)]

    def parse(self, names: Sequence[str]) -> Archs:
        """Return the rows of `64-41414-a_bc_def`."""
        codes, lengths = as_bytes(names, 17)
        frame = np.frombuffer(b"64-41414- _  _   ", np.uint8)
        fits = ((codes == frame) | (frame == ord(" "))).all(axis=1) & (lengths == 17)
        raise_first(~fits, "expected 64-41414-a_bc_def with digits 0 to 3")
        return self.from_digits(codes[:, [9, 11, 12, 14, 15, 16]])


class TransNASMacro(ChoiceSpace):
    """Skeletons of 4 to 6 modules; a digit is 1 plain, 2 double channels, 3 half resolution or 4 both.

    One to four modules halve the resolution and one to three double the channels. Shorter skeletons
    are padded with 0, so adding or removing the last module is one edit.
    """

    def __init__(self) -> None:
        super().__init__("transnas_macro", [5] * MACRO_LENGTH, SOURCE)

    def valid(self, rows: Archs) -> BoolArray:
        """Return an `(n,)` mask of the rows that are padded at the end only and within the limits."""
        used = rows > 0
        wide, small = _changes(rows)
        ok = (used[:, 1:] <= used[:, :-1]).all(axis=1) & (used.sum(axis=1) >= 4)
        for count, maximum in ((small.sum(axis=1), 4), (wide.sum(axis=1), 3)):
            ok &= (count >= 1) & (count <= maximum)
        return np.asarray(ok)

    def costs(self, archs: Archs) -> Mapping[str, IntArray]:
        """Return multiply-adds and parameters of the encoder."""
        self.check_rows(archs)
        flops, params = (np.full(len(archs), c) for c in STEM)
        width, side = np.full(len(archs), BASE), np.full(len(archs), IMAGE // 4)
        for digit in archs.T:
            wide, small = _changes(digit)
            inputs, width, side = width, np.where(wide, 2 * width, width), np.where(small, side // 2, side)
            main = convolution(3, inputs, width, side)
            same = convolution(3, width, width, side)
            shortcut = convolution(1, inputs, width, side)
            for i, total in enumerate((flops, params)):
                total += (digit > 0) * (main[i] + 3 * same[i] + (wide | small) * shortcut[i])
        return {"flops": flops, "params": params}

    def encode(self, archs: Archs) -> Features:
        """Return one-hot modules, their counts, cumulative doublings of width and halvings of resolution, and costs."""
        wide, small = (np.cumsum(change, axis=1) for change in _changes(archs))
        totals = [(archs > 0).sum(axis=1), wide[:, -1], small[:, -1], *self.costs(archs).values()]
        return np.column_stack([super().encode(archs), wide, small, *totals]).astype(np.float32)

    def format(self, archs: Archs) -> list[str]:
        """Return `64-<modules>-basic`."""
        return [f"64-{s.rstrip('0')}-basic" for s in super().format(archs)]

    def parse(self, names: Sequence[str]) -> Archs:
        """Return the rows of `64-<modules>-basic`."""
        digits = [s[3:-6] if s.startswith("64-") and s.endswith("-basic") else "" for s in names]
        codes, lengths = as_bytes(digits, MACRO_LENGTH)
        raise_first((lengths < 4) | (codes == ord("0")).any(axis=1), "expected 64-<4 to 6 digits 1 to 4>-basic")
        return self.from_digits(np.where(codes == 0, np.uint8(ord("0")), codes))


class TransNAS(ChoiceSpace):
    """The union of both spaces: digit 0 is 0 for micro and 1 for macro; no edit changes it."""

    fixed = (0,)

    def __init__(self) -> None:
        super().__init__("transnas", [2, *[5] * MACRO_LENGTH], f"{SOURCE}, the paper's 7,352")
        self._parts = (TransNASMicro(), TransNASMacro())
        self.slot_choices = (2, *(n for part in self._parts for n in part.slot_choices))

    def _by_part(self, archs: Archs) -> Iterator[tuple[ChoiceSpace, IntArray, Archs]]:
        """Yield for each part the part, the indices of its rows, and its rows in the part's space."""
        self.check_rows(archs)
        for which, part in enumerate(self._parts):
            at = np.flatnonzero(archs[:, 0] == which)
            yield part, at, archs[at, 1:]

    def valid(self, rows: Archs) -> BoolArray:
        """Return an `(n,)` mask of the rows that are valid in the space of their first digit."""
        ok = np.zeros(len(rows), bool)
        for part, at, part_rows in self._by_part(rows):
            ok[at] = (part_rows < part.radix).all(axis=1) & part.valid(part_rows)
        return ok

    def costs(self, archs: Archs) -> Mapping[str, IntArray]:
        """Return multiply-adds and parameters of the encoder."""
        out = {name: np.zeros(len(archs), np.int64) for name in self._parts[0].cost_names}
        for part, at, part_rows in self._by_part(archs):
            for name, values in part.costs(part_rows).items():
                out[name][at] = values
        return out

    def slots(self, archs: Archs) -> Archs:
        """Return the part, then the slots of micro and of macro, -1 in the part that a row doesn't belong to."""
        micro = archs[:, :1] == 0
        absent = np.int8(-1)
        parts = (np.where(micro, archs[:, 1:], absent), np.where(micro, absent, archs[:, 1:]))
        return np.concatenate([archs[:, :1], *parts], axis=1)

    def encode(self, archs: Archs) -> Features:
        """Return the part, then the features of micro and of macro, 0 in the part that a row doesn't belong to."""
        out = [archs[:, :1].astype(np.float32)]
        for part, at, part_rows in self._by_part(archs):
            features = np.zeros((len(archs), part.n_features), np.float32)
            features[at] = part.encode(part_rows)
            out.append(features)
        return np.concatenate(out, axis=1)

    def format(self, archs: Archs) -> list[str]:
        """Return each network in the notation of its part."""
        out = np.empty(len(archs), object)
        for part, at, part_rows in self._by_part(archs):
            out[at] = part.format(part_rows)
        return list(out)

    def parse(self, names: Sequence[str]) -> Archs:
        """Return the rows of `64-41414-a_bc_def` and `64-<modules>-basic`."""
        is_macro = np.fromiter((s.endswith("-basic") for s in names), bool, len(names))
        rows = np.empty((len(names), self.genome_len), np.int8)
        rows[:, 0] = is_macro
        for which, part in enumerate(self._parts):
            at = np.flatnonzero(is_macro == which)
            try:
                rows[at, 1:] = part.parse([names[i] for i in at.tolist()])
            except InvalidArchitecture as error:
                raise InvalidArchitecture(int(at[error.row]), error.reason) from None
        return rows


def _changes(digits: Archs) -> tuple[BoolArray, BoolArray]:
    """Return a mask of the digits that double the channels, and one of those that halve the resolution."""
    return (digits == 2) | (digits == 4), (digits == 3) | (digits == 4)
