"""Product spaces: an architecture is one choice for each position. Rows may be invalid or equal to others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.random import Generator

from lissnas.core.errors import InvalidArchitecture
from lissnas.spaces import base
from lissnas.spaces.base import Archs, BoolArray, Features, IntArray, Keys, Space

CHUNK = 1 << 18
"""Rows listed at once."""
MUTATE_CHUNK = 1 << 17
"""Rows edited at once."""


class ChoiceSpace(Space):
    """A space with `radix[i]` choices at position i. An edit changes the choice at one position.

    A subclass may restrict it with `valid`. If several rows are the same network, it overrides
    `canonicalize` and `variants` (all forms). The distance of two networks is the minimum number of
    differing positions over all their forms.
    """

    fixed: tuple[int, ...] = ()
    """Positions that no edit changes."""
    exact_keys: bool
    """Whether a key is the row's index. With more than 2^64 rows it is a 64-bit hash of the row."""

    def __init__(self, name: str, radix: Sequence[int], source: str = "") -> None:
        self.name = name
        self.source = source
        self.radix = np.asarray(radix, np.int64)
        self.genome_len = len(radix)
        self.slot_choices = tuple(int(r) for r in radix)
        self.max_edits = len(radix) - len(self.fixed)
        self.n_rows = math.prod(map(int, radix))
        self.exact_keys = self.n_rows <= 2**64

    # -- methods that subclasses override ----------------------------------------------------
    def valid(self, rows: Archs) -> BoolArray:
        """Return an `(n,)` mask of the rows that are networks of the space; digits must be in range."""
        return np.ones(len(rows), bool)

    def invalid_reason(self, row: Archs) -> str:
        """Return why a row is invalid, for error messages."""
        return f"not a network of {self.name}"

    @cached_property
    def cost_tables(self) -> tuple[Sequence[IntArray], IntArray] | None:
        """For each position the `(choices, 2)` multiply-adds and parameters, and the `(2,)` costs of the fixed part."""
        return None

    def variants(self, rows: Archs) -> Archs:
        """Return all forms of each network, `(n, k, genome_len)`, repeated if there are fewer than k."""
        return rows[:, None, :]

    def centre_forms(self, rows: Archs) -> Archs:
        """Return enough forms of each network to find its distance to any `variants`: `(n, k, genome_len)`."""
        return self.variants(rows)

    def networks(self, rows: Archs) -> tuple[Archs, BoolArray]:
        """Return the canonical form of each row's network, and an `(n,)` mask of rows that are a form of a network.

        Digits must be in range. Ignore the returned row if its mask is False.
        """
        if self.free:
            return rows, np.ones(len(rows), bool)
        ok = self.valid(rows)
        out = rows.copy()
        out[ok] = self.canonicalize(rows[ok])
        return out, ok

    # -- the protocol ------------------------------------------------------------------------
    @cached_property
    def _weights(self) -> Keys:
        """The weight of each position in the mixed-radix index; the last position varies fastest."""
        weights = [math.prod(map(int, self.radix[i + 1 :])) for i in range(self.genome_len)]
        return np.array(weights, np.uint64)

    @cached_property
    def _listing(self) -> Archs:
        total = self.n_rows
        if total > base.LISTABLE:
            return super().enumerate()
        parts = (np.arange(lo, min(lo + CHUNK, total), dtype=np.uint64) for lo in range(0, total, CHUNK))
        rows = map(self.unkey, parts)
        return np.concatenate([part if self.free else part[self._is_canonical(part)] for part in rows])

    def unkey(self, keys: Keys) -> Archs:
        """Return the rows with the given keys (if `exact_keys`)."""
        return (keys[:, None] // self._weights % self.radix.astype(np.uint64)).astype(np.int8)

    def _raw_key(self, rows: Archs) -> Keys:
        if not self.exact_keys:
            return row_hash(rows)
        keys = np.zeros(rows.shape[:-1], np.uint64)
        for i, weight in enumerate(self._weights):
            keys += rows[..., i].astype(np.uint64) * weight
        return keys

    def _is_canonical(self, rows: Archs) -> BoolArray:
        canonical, ok = self.networks(rows)
        return np.asarray(ok & (canonical == rows).all(axis=1))

    def enumerate(self) -> Archs:
        """Return every architecture once, in ascending order of keys."""
        return self._listing.copy()

    def size(self) -> int:
        """Return the number of networks, by listing if rows are restricted; of rows if `size_exact` is False."""
        return len(self._listing) if self.size_exact and not self.free else self.n_rows

    @property
    def free(self) -> bool:
        """Whether every row is a distinct network: no restrictions, no equal rows."""
        cls = type(self)
        return cls.valid is ChoiceSpace.valid and cls.canonicalize is Space.canonicalize

    def count_product(self, allowed: BoolArray) -> int | None:
        """Return the number of networks that use allowed choices only; None if counting needs a listing.

        `allowed` is a `(n_slots, max_choices)` mask; decisions that a network doesn't have are ignored.
        """
        return math.prod(int(n) for n in allowed.sum(axis=1)) if self.free else None

    def sample_product(self, allowed: BoolArray, n: int, rng: Generator) -> Archs:
        """Draw `n` networks that use allowed choices only, independent and uniform; needs `count_product() > 0`."""
        columns = [rng.choice(np.flatnonzero(choices), n) for choices in allowed]
        return np.stack(columns, axis=1).astype(np.int8)

    def sample(self, n: int, rng: Generator) -> Archs:
        """Draw uniform networks by rejection: uniform rows, of which valid canonical ones are accepted."""
        found = np.empty((0, self.genome_len), np.int8)
        while len(found) < n:
            rows = rng.integers(0, self.radix, (2 * (n - len(found)) + 16, self.genome_len)).astype(np.int8)
            found = np.concatenate([found, rows[self._is_canonical(rows)]])
        return found[:n]

    def key(self, archs: Archs) -> Keys:
        """Return the mixed-radix number of each row's canonical form."""
        self.check_rows(archs)
        base.raise_first(((archs < 0) | (archs >= self.radix)).any(axis=1), "a choice is out of range")
        self._check_valid(archs)
        return self._raw_key(self.canonicalize(archs))

    def _check_valid(self, rows: Archs) -> None:
        bad = ~self.valid(rows)
        if bad.any():
            base.raise_first(bad, self.invalid_reason(rows[np.argmax(bad)]))

    @cached_property
    def _n_steps(self) -> IntArray:
        """Number of other choices that an edit has at each position."""
        n_steps = self.radix - 1
        n_steps[list(self.fixed)] = 0
        return n_steps

    def neighbors(self, archs: Archs) -> tuple[Archs, IntArray]:
        """Return all networks with a form that differs at one position from a form of the row, and their parent row."""
        parent_keys, canonical = self.key(archs), self.canonicalize(archs)
        found, parents = [np.empty((0, self.genome_len), np.int8)], [np.empty(0, np.int64)]
        for p, n_steps in enumerate(self._n_steps.tolist()):
            forms, at = self._forms_to_edit(canonical, p)
            edited = np.repeat(forms[:, :, None], n_steps, axis=2)
            edited[..., p] = (edited[..., p] + np.arange(1, n_steps + 1)) % self.radix[p]
            rows, ok = self.networks(edited.reshape(-1, self.genome_len))
            found.append(rows[ok])
            parents.append(np.repeat(at, forms.shape[1] * n_steps)[ok])
        children, parent = np.concatenate(found), np.concatenate(parents)
        keep = base.distinct_children(parent, self._raw_key(children), parent_keys)
        return children[keep], parent[keep]

    def _forms_to_edit(self, rows: Archs, position: int) -> tuple[Archs, IntArray]:
        """Return the `(m, k, genome_len)` forms in which an edit may change a position, and the `(m,)` row of each."""
        return self.variants(rows), np.arange(len(rows))

    def distance(self, a: Archs, b: Archs) -> IntArray:
        """Return the `(n,)` exact edit distances from row i of `a` to row i of `b`."""
        fa, fb = self.variants(a), self.variants(b)
        best = np.full(len(a), self.genome_len)
        for i in range(fa.shape[1]):
            for j in range(fb.shape[1]):
                best = np.minimum(best, (fa[:, i] != fb[:, j]).sum(axis=1))
        return best

    def mutate(self, archs: Archs, edits: IntArray, rng: Generator, kind: str | None = None) -> Archs:
        """Return a random network at exactly `edits[i]` changed positions from each row."""
        self.check_rows(archs)
        self.check_kind(kind)
        if len(archs) > MUTATE_CHUNK:  # drawing takes some 60 times the memory of the rows
            starts = range(0, len(archs), MUTATE_CHUNK)
            chunks = [slice(lo, lo + MUTATE_CHUNK) for lo in starts]
            return np.concatenate([self.mutate(archs[c], edits[c], rng, kind) for c in chunks])
        out = archs.copy()

        def draw(todo: IntArray) -> BoolArray:
            rows, ok = self.networks(self._redraw(archs[todo], edits[todo], rng))
            ok[ok] = self.distance(archs[todo[ok]], rows[ok]) == edits[todo[ok]]
            out[todo[ok]] = rows[ok]
            return ok

        base.retry_edits(edits, draw)
        return out

    def _redraw(self, archs: Archs, edits: IntArray, rng: Generator) -> Archs:
        """Change `edits[i]` distinct positions of a random form of row i to another choice."""
        forms = self.variants(archs)
        rows = forms[np.arange(len(forms)), rng.integers(0, forms.shape[1], len(forms))]
        # Uniform over single edits, so a position is drawn in proportion to its number of other choices.
        chosen = base.draw_slots(np.broadcast_to(self._n_steps, rows.shape), edits, rng)
        step = rng.integers(1, np.maximum(self.radix, 2), rows.shape)
        at = np.nonzero(chosen)
        rows[at] = (rows[at] + step[at]) % self.radix[at[1]]
        return rows

    def costs(self, archs: Archs) -> Mapping[str, IntArray]:
        """Return multiply-adds of convolutions and classifier, and parameters; empty without `cost_tables`."""
        self.check_rows(archs)
        if self.cost_tables is None:
            return {}
        tables, shared = self.cost_tables
        total = np.tile(shared, (len(archs), 1))
        for column, table in zip(archs.T, tables, strict=True):
            total += table[column]
        return dict(zip(("flops", "params"), total.T, strict=True))

    @cached_property
    def _hot(self) -> tuple[IntArray, Archs]:
        """Position and choice of each column of the one-hot encoding."""
        position = np.repeat(np.arange(self.genome_len), self.radix)
        choice = np.concatenate([np.arange(r, dtype=np.int8) for r in self.radix])
        return position, choice

    @property
    def counted_spans(self) -> Sequence[slice]:
        """Spans of positions in each of which `encode` counts the occurrences of each choice."""
        return (slice(None),)

    @cached_property
    def _counts(self) -> Features:
        """The 0-1 matrix that maps the one-hot encoding to counts."""
        position, choice = self._hot
        inside = [np.isin(position, np.arange(self.genome_len)[span]) for span in self.counted_spans]
        which = choice[:, None] == np.arange(int(self.radix.max()))
        return np.concatenate([which & in_span[:, None] for in_span in inside], axis=1, dtype=np.float32)

    def encode(self, archs: Archs) -> Features:
        """Return the one-hot encoding of each position, then the counts of each choice in each counted span."""
        self.check_rows(archs)
        position, choice = self._hot
        counts = self._counts
        out = np.empty((len(archs), len(position) + counts.shape[1]), np.float32)
        hot = out[:, : len(position)]
        hot[...] = archs[:, position] == choice
        np.matmul(hot, counts, out=out[:, len(position) :])  # small integers, exact in any order of summation
        return out

    def format(self, archs: Archs) -> list[str]:
        """Return each row as a string of digits."""
        text = np.ascontiguousarray((archs + ord("0")).astype(np.uint8))
        return [s.decode() for s in text.view(f"S{self.genome_len}").ravel()]

    def parse(self, names: Sequence[str]) -> Archs:
        """Return the rows of strings of digits."""
        codes, lengths = base.as_bytes(names, self.genome_len)
        base.raise_first(lengths != self.genome_len, f"expected {self.genome_len} digits")
        return self.from_digits(codes)

    def from_digits(self, codes: np.ndarray[tuple[int, int], np.dtype[np.uint8]]) -> Archs:
        """Return canonical rows from `(n, genome_len)` ASCII digits; raises InvalidArchitecture."""
        bad = (codes < ord("0")) | (codes >= ord("0") + self.radix)
        if bad.any():
            row = int(np.argmax(bad.any(axis=1)))
            at = int(np.argmax(bad[row]))
            text, top = chr(codes[row, at]), int(self.radix[at]) - 1
            raise InvalidArchitecture(row, f"position {at} is {text!r}, expected 0 to {top}")
        rows = (codes - ord("0")).astype(np.int8)
        self._check_valid(rows)
        return self.canonicalize(rows)


def row_hash(rows: Archs) -> Keys:
    """Return a 64-bit hash of each row, the same on every machine."""
    keys = np.full(rows.shape[:-1], 0x9E3779B97F4A7C15, np.uint64)
    for i in range(rows.shape[-1]):  # one round of splitmix64 per position
        keys = (keys ^ rows[..., i].astype(np.uint64)) * np.uint64(0xBF58476D1CE4E5B9)
        keys ^= keys >> np.uint64(29)
        keys = keys * np.uint64(0x94D049BB133111EB)
        keys ^= keys >> np.uint64(32)
    return keys
