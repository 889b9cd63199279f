"""The spaces of HW-GPT-Bench: GPT-2-like decoders of 10 to 12, 22 to 24, 34 to 36 layers (Sukthanker et al., 2024)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from lissnas.core.errors import InvalidArchitecture, short
from lissnas.spaces import base
from lissnas.spaces.base import Archs, BoolArray, Features, FloatArray, IntArray
from lissnas.spaces.choices import ChoiceSpace

VOCABULARY = 50_254
"""Tokens of the published models; embedding and output layer share no weights."""
CONTEXT = 1_024
"""Tokens of the sequence that `flops` counts."""
HEAD = 64
"""Dimensions of an attention head."""
BIASES = ("True", "False")
"""Whether linear layers have biases."""
EMBED = 0
"""Position of the embedding width."""
LAYERS = 1
"""Position of the number of layers."""
BIAS = 2
"""Position of the biases."""
FIRST_LAYER = 3
"""Position of the first layer's MLP ratio."""

GROUP = 4
"""Layers that are formatted at once."""
PARSED = 1 << 14
"""Names that are parsed at once."""


class Values(NamedTuple):
    """The choices of each decision."""

    embed: tuple[int, ...]
    layers: tuple[int, ...]
    """Consecutive numbers, ascending."""
    ratio: tuple[int, ...]
    """Width of a layer's MLP as a multiple of the embedding width."""
    heads: tuple[int, ...]
    """Attention heads of a layer."""


SCALES: dict[str, Values] = {
    "gpt_s": Values((192, 384, 768), (10, 11, 12), (2, 3, 4), (4, 8, 12)),
    "gpt_m": Values((256, 512, 1024), (22, 23, 24), (2, 3, 4), (8, 12, 16)),
    "gpt_l": Values((320, 640, 1280), (34, 35, 36), (2, 3, 4), (8, 16, 20)),
}
"""The published spaces of 1.9e12, 5.4e23 and 1.5e35 networks."""


class GPT(ChoiceSpace):
    """A row has the embedding width, the number of layers, biases, then the MLP ratio and heads of each layer.

    Positions of layers that a network lacks are *inactive*: choice 0 in the canonical form. One edit changes
    one active position. An edit that adds layers also sets their ratios and heads, so the distance is the
    number of positions that are active in both networks and differ. Keys of spaces with more than 2^64 rows are
    hashes.
    """

    metric_name = "perplexity"
    maximize = False

    def __init__(self, name: str, values: Values) -> None:
        self.values = values
        self.max_layers = values.layers[-1]
        radix = [len(values.embed), len(values.layers), len(BIASES)]
        radix += [len(values.ratio)] * self.max_layers + [len(values.heads)] * self.max_layers
        super().__init__(name, radix, "HW-GPT-Bench (Sukthanker et al., 2024)")
        self.ratio = slice(FIRST_LAYER, FIRST_LAYER + self.max_layers)
        self.heads = slice(self.ratio.stop, self.genome_len)

    # -- active positions --------------------------------------------------------------------------
    @cached_property
    def _active(self) -> BoolArray:
        """A `(choices of layers, genome_len)` mask of the positions of a network."""
        layer = np.arange(self.max_layers)
        present = layer < np.array(self.values.layers)[:, None]
        always = np.ones((len(present), FIRST_LAYER), bool)
        return np.concatenate([always, present, present], axis=1)

    def active(self, rows: Archs) -> BoolArray:
        """Return an `(n, genome_len)` mask of the positions that the networks have."""
        return self._active[rows[:, LAYERS]]

    def canonicalize(self, rows: Archs) -> Archs:
        """Return the rows with choice 0 at inactive positions."""
        return np.where(self.active(rows), rows, np.int8(0))

    def slots(self, archs: Archs) -> Archs:
        """Return the choice at each position, -1 if it is inactive."""
        return np.where(self.active(archs), archs, np.int8(-1))

    # -- size, samples -----------------------------------------------------------------------------
    def size(self) -> int:
        """Return the number of networks."""
        return self.count_product(self.possible())

    def _ways(self, allowed: BoolArray) -> list[int]:
        """Return for each number of layers how many networks use allowed choices only."""
        counts = [int(n) for n in allowed.sum(axis=1)]
        ways = []
        for choice, layers in enumerate(self.values.layers):
            total = counts[EMBED] * int(allowed[LAYERS, choice]) * counts[BIAS]
            for ratio, heads in zip(counts[self.ratio][:layers], counts[self.heads][:layers], strict=True):
                total *= ratio * heads
            ways.append(total)
        return ways

    def count_product(self, allowed: BoolArray) -> int:
        """Return the number of networks that use allowed choices only, the sum over numbers of layers."""
        return sum(self._ways(allowed))

    def sample(self, n: int, rng: Generator) -> Archs:
        """Draw `n` uniform networks."""
        return self.sample_product(self.possible(), n, rng)

    def sample_product(self, allowed: BoolArray, n: int, rng: Generator) -> Archs:
        """Draw `n` of these networks, independent and uniform: first the number of layers, by how many have it."""
        ways = self._ways(allowed)
        total = sum(ways)
        rows = np.zeros((n, self.genome_len), np.int8)
        rows[:, LAYERS] = rng.choice(len(ways), n, p=[w / total for w in ways])
        for position, choices in enumerate(allowed):
            if position == LAYERS:
                continue
            drawn = np.flatnonzero(choices)
            if len(drawn):  # no choice is allowed only if no drawn network has the position
                rows[:, position] = drawn[rng.integers(0, len(drawn), n)]
        return self.canonicalize(rows)

    # -- edits -------------------------------------------------------------------------------------
    @cached_property
    def _optional(self) -> list[int]:
        """The positions that some networks lack."""
        return np.flatnonzero(~self._active.all(axis=0)).tolist()

    @cached_property
    def _fillings(self) -> Archs:
        """All combinations of choices at the optional positions."""
        return np.array(list(itertools.product(*(range(self.radix[p]) for p in self._optional))), np.int8)

    def variants(self, rows: Archs) -> Archs:
        """Return the forms of each network: every filling of its inactive positions.

        Only balls need them; `distance`, `neighbors` and `mutate` compare active positions.
        """
        at = self._optional
        forms = np.repeat(rows[:, None, :], len(self._fillings), axis=1)
        forms[:, :, at] = np.where(self.active(rows)[:, None, at], forms[:, :, at], self._fillings)
        return forms

    def distance(self, a: Archs, b: Archs) -> IntArray:
        """Return the `(n,)` exact edit distances from row i of `a` to row i of `b`."""
        differ: IntArray = ((a != b) & self.active(a) & self.active(b)).sum(axis=1)
        return differ

    def _forms_to_edit(self, rows: Archs, position: int) -> tuple[Archs, IntArray]:
        """Return the rows in which the position is active, with every filling if an edit of it can add layers."""
        at = np.flatnonzero(self.active(rows)[:, position])
        if position == LAYERS:
            return self.variants(rows[at]), at
        return rows[at, None], at

    def _redraw(self, archs: Archs, edits: IntArray, rng: Generator) -> Archs:
        """Fill the inactive positions of row i at random, then change `edits[i]` active ones."""
        active = self.active(archs)
        rows = np.where(active, archs, rng.integers(0, self.radix, archs.shape, np.int8))
        chosen = base.draw_slots(self._n_steps * active, edits, rng)
        step = rng.integers(1, self.radix, rows.shape)
        return np.where(chosen, (rows + step) % self.radix, rows).astype(np.int8)

    # -- costs and features ------------------------------------------------------------------------
    def _present(self, archs: Archs, span: slice, choices: Sequence[int]) -> FloatArray:
        """Return `(n, max_layers)` numbers of each layer, 0 for absent ones."""
        active: FloatArray = np.array(choices, np.float64)[archs[:, span]] * self.active(archs)[:, span]
        return active

    def costs(self, archs: Archs) -> Mapping[str, IntArray]:
        """Return parameters and floating-point operations (two per multiply-add) of a sequence of 1,024 tokens.

        The formulas of HW-GPT-Bench. With V tokens, width d, and for each layer H = 64 heads and MLP ratio r:
        ``params`` = 2 V d + 2 d + sum of (4 d H + 2 d^2 r + 4 d + bias (3 H + 2 d + r d)), and
        ``flops`` = 2 params x 1,024 + 8 d x 1,024^2 x layers.
        """
        self.check_rows(archs)
        width = np.array(self.values.embed)[archs[:, EMBED]]
        layers = np.array(self.values.layers)[archs[:, LAYERS]]
        bias = archs[:, BIAS] == BIASES.index("True")
        ratio = self._present(archs, self.ratio, self.values.ratio).sum(axis=1).astype(np.int64)
        inner = HEAD * self._present(archs, self.heads, self.values.heads).sum(axis=1).astype(np.int64)
        matrices = 4 * width * inner + 2 * width**2 * ratio + 4 * width * layers
        biases = bias * (3 * inner + 2 * width * layers + width * ratio)
        params: IntArray = 2 * VOCABULARY * width + 2 * width + matrices + biases
        return {"flops": 2 * params * CONTEXT + 8 * width * layers * CONTEXT**2, "params": params}

    @cached_property
    def _thirds(self) -> Features:
        """A `(choices of layers, max_layers, 3)` mask: all layers of a network, its first and its last third."""
        layer, layers = np.arange(self.max_layers), np.array(self.values.layers)[:, None]
        present, from_end = layer < layers, layers - 1 - layer
        parts = [present, 3 * layer < layers, present & (3 * from_end < layers)]
        return np.stack(parts, axis=2).astype(np.float32)

    def one_hot(self, archs: Archs) -> Features:
        """Return the one-hot choices in the order of positions, zeros for inactive ones."""
        self.check_rows(archs)
        position, choice = self._hot
        hot: Features = ((archs[:, position] == choice) & self.active(archs)[:, position]).astype(np.float32)
        return hot

    def encode(self, archs: Archs) -> Features:
        """Return one-hot choices of active positions, aggregates of ratios and heads, layers, and log2 of the costs.

        The aggregates are the sum and the mean over all layers, and the means over the first and the last third.
        """
        costs = self.costs(archs)
        parts = self._thirds[archs[:, LAYERS]]
        count = parts.sum(axis=1)
        columns = []
        for span, choices in ((self.ratio, self.values.ratio), (self.heads, self.values.heads)):
            total = np.einsum("nl,nlk->nk", self._present(archs, span, choices), parts)
            columns += [total[:, :1], total / count]
        columns += [
            np.array(self.values.layers)[archs[:, LAYERS], None],
            *(np.log2(c)[:, None] for c in costs.values()),
        ]
        return np.concatenate([self.one_hot(archs), *columns], axis=1, dtype=np.float32)

    # -- notation ----------------------------------------------------------------------------------
    @cached_property
    def _starts(self) -> list[str]:
        """The first three parts of names, by the mixed-radix index of their choices."""
        v = self.values
        parts = itertools.product(v.embed, v.layers, BIASES)
        return [f"embed-{embed}|layers-{layers}|bias-{bias}" for embed, layers, bias in parts]

    def _texts(self, archs: Archs, span: slice, choices: Sequence[int]) -> Iterator[str]:
        """Return for each row the texts of its layers' choices, such as ``-2-3-4``."""
        texts = ["", *(f"-{x}" for x in choices)]
        # A group of layers is one number, so that a row is a few texts.
        joined = np.array(["".join(group) for group in itertools.product(texts, repeat=GROUP)], object)
        groups = -(-self.max_layers // GROUP)
        digits = np.zeros((len(archs), groups * GROUP), np.int64)
        digits[:, : self.max_layers] = self.slots(archs)[:, span] + 1
        weights = len(texts) ** np.arange(GROUP)[::-1]
        return map("".join, joined[digits.reshape(len(archs), groups, GROUP) @ weights].tolist())

    def format(self, archs: Archs) -> list[str]:
        """Return names like ``embed-768|layers-10|bias-True|r-2-3-...|h-4-8-...``, with as many r and h as layers."""
        self.check_rows(archs)
        v = self.values
        starts = self._starts
        number = np.ravel_multi_index(tuple(archs[:, :FIRST_LAYER].T), self.radix[:FIRST_LAYER])
        parts = zip(
            number.tolist(),
            self._texts(archs, self.ratio, v.ratio),
            self._texts(archs, self.heads, v.heads),
            strict=True,
        )
        return [f"{starts[start]}|r{ratio}|h{heads}" for start, ratio, heads in parts]

    @cached_property
    def _fields(self) -> list[tuple[str, dict[str, int]]]:
        """The label of each part of a name, and the choice of each text that it may have."""
        v = self.values
        parts = (("embed", v.embed), ("layers", v.layers), ("bias", BIASES), ("r", v.ratio), ("h", v.heads))
        return [(label, {str(x): i for i, x in enumerate(choices)}) for label, choices in parts]

    def parse(self, names: Sequence[str]) -> Archs:
        """Return the rows of names in the notation of `format`."""
        rows = np.zeros((len(names), self.genome_len), np.int8)
        for lo in range(0, len(names), PARSED):
            part = names[lo : lo + PARSED]
            rows[lo : lo + PARSED] = found = self._read(part)
            for i, (name, read) in enumerate(zip(part, self.format(found), strict=True), lo):
                if name != read:
                    raise InvalidArchitecture(i, self._invalid_name(name))
        return rows

    def _read(self, names: Sequence[str]) -> Archs:
        """Return the rows of valid names, and some row for each invalid one."""
        number_of = {start: i for i, start in enumerate(self._starts)}
        rows = np.zeros((len(names), self.genome_len), np.int8)
        starts, _, rest = zip(*(name.partition("|r") for name in names), strict=True)
        ratio, _, heads = zip(*(text.partition("|h") for text in rest), strict=True)
        number = np.array([number_of.get(start, 0) for start in starts])
        rows[:, :FIRST_LAYER] = np.stack(np.unravel_index(number, self.radix[:FIRST_LAYER]), axis=1)
        for span, texts, choices in ((self.ratio, ratio, self.values.ratio), (self.heads, heads, self.values.heads)):
            # Each choice becomes one character, the longest texts first: -12 is not -1 and a 2.
            for choice, text in sorted(enumerate(f"-{x}" for x in choices), key=lambda pair: -len(pair[1])):
                texts = tuple([t.replace(text, chr(choice)) for t in texts])
            joined = "".join([t[: self.max_layers].ljust(self.max_layers, "\0") for t in texts])
            codes = np.frombuffer(joined.encode("latin-1", "replace"), np.uint8).reshape(len(names), -1)
            rows[:, span] = np.minimum(codes, len(choices) - 1)
        return self.canonicalize(rows)

    def _invalid_name(self, name: str) -> str:
        """Return why a name is invalid, for error messages."""
        parts = [part.split("-") for part in name.split("|")]
        if [part[0] for part in parts] != [label for label, _ in self._fields]:
            expected = "|".join(f"{label}-..." for label, _ in self._fields)
            return f"expected {expected}, found {short(repr(name))}"
        length = 1
        for (label, choices), (_, *texts) in zip(self._fields, parts, strict=True):
            unknown = [text for text in texts if text not in choices]
            if unknown:
                return f"{label}: expected {', '.join(choices)}, found {short(repr(unknown[0]))}"
            length = int(parts[LAYERS][1]) if label in ("r", "h") else 1
            if len(texts) != length:
                break
        wanted = "1 value" if length == 1 else f"{length} values, one for each layer"
        return f"{label}: expected {wanted}, found {len(texts)}"
