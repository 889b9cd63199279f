"""What a search space is: whole matrices of architectures in, whole matrices out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from lissnas.core.errors import InvalidArchitecture, UnknownName, UserError

Archs: TypeAlias = NDArray[np.int8]
Keys: TypeAlias = NDArray[np.uint64]
IntArray: TypeAlias = NDArray[np.int64]
FloatArray: TypeAlias = NDArray[np.float64]
Features: TypeAlias = NDArray[np.float32]
BoolArray: TypeAlias = NDArray[np.bool_]

LISTABLE = 10_000_000
"""Largest number of architectures that is ever listed in memory."""

UNLISTED = 100_000
"""Networks that stand for a space too large to list."""

STALE = 5
"""How many times as many architectures as are known are drawn without a new one before there count as no more."""

MUTATE_TRIES = 64
"""Redraws of a random edit that gave an invalid network or one that is nearer than asked."""


class Space(ABC):
    """A search space, seen through matrices: a row of small integers is an architecture.

    An architecture's *identity* is its key: equal keys mean the same network (isomorphic, or
    equal in function, as each space says), different keys mean different ones. All methods take
    and give `(n, genome_len)` int8 matrices of *canonical* rows: one form for each network.

    A subclass sets `name`, `genome_len`, `max_edits` and fills in the abstract methods;
    `lissnas.testing.SpaceSuite` tests it.
    """

    name: str
    source: str = ""
    """Where the space comes from, for people."""
    genome_len: int
    max_edits: int
    """The total edit distance available: how many slots an edit can change (paper, section 4.2)."""
    kinds: tuple[str, ...] = ()
    """Names of the kinds of edit, where there is more than one."""
    size_exact: bool = True
    """Whether `size()` counts distinct networks; if not, it counts descriptions."""
    slot_choices: tuple[int, ...] = ()
    """How many choices each decision has that `slots` gives."""

    @cached_property
    def n_features(self) -> int:
        """How many columns `encode` gives."""
        return int(self.encode(np.empty((0, self.genome_len), np.int8)).shape[1])

    @cached_property
    def cost_names(self) -> tuple[str, ...]:
        """The costs that `costs` knows, e.g. ``("flops", "params")``."""
        return tuple(self.costs(np.empty((0, self.genome_len), np.int8)))

    @abstractmethod
    def size(self) -> int:
        """Return the number of distinct architectures as an exact Python int."""

    @abstractmethod
    def sample(self, n: int, rng: Generator) -> Archs:
        """Draw `n` canonical rows, independent and uniform over the *distinct* architectures."""

    @abstractmethod
    def key(self, archs: Archs) -> Keys:
        """Return `(n,)` keys; raises InvalidArchitecture at the first row that is not one."""

    @abstractmethod
    def neighbors(self, archs: Archs) -> tuple[Archs, IntArray]:
        """Return all architectures at edit distance 1 of each row, and each one's parent row.

        Sorted by parent, no neighbour twice under the same parent.
        """

    @abstractmethod
    def mutate(self, archs: Archs, edits: IntArray, rng: Generator, kind: str | None = None) -> Archs:
        """Return for each row a random architecture at *exactly* `edits[i]` edits from it.

        `kind` restricts the edits to one of `kinds`. A row for which none turned up (it may have
        none) comes back unchanged, so a caller that needs only changed rows compares keys.
        """

    @abstractmethod
    def encode(self, archs: Archs) -> Features:
        """Return the `(n, n_features)` float32 features that predictors read."""

    @abstractmethod
    def format(self, archs: Archs) -> list[str]:
        """Return each architecture in the published notation of its benchmark."""

    @abstractmethod
    def parse(self, names: Sequence[str]) -> Archs:
        """Read the notation that `format` writes; raises InvalidArchitecture(row, reason)."""

    def enumerate(self) -> Archs:
        """Return every architecture once, in the order of keys; raises UserError where it can't."""
        raise UserError(f"space {self.name} is too large to list ({self.size():,} architectures)")

    def possible(self) -> BoolArray:
        """Return `(n_slots, most choices)`: which choices each decision has."""
        return np.arange(max(self.slot_choices)) < np.array(self.slot_choices)[:, None]

    def all_or_many(self, rng: Generator) -> Archs:
        """Return every architecture where they can be listed, else a large uniform sample."""
        return self.enumerate() if self.size() <= LISTABLE else self.sample(UNLISTED, rng)

    def canonicalize(self, rows: Archs) -> Archs:
        """Return the one form that stands for each row's network."""
        return rows

    def slots(self, archs: Archs) -> Archs:
        """Return `(n, n_slots)`: the choice at each decision, -1 where a decision does not arise.

        What methods that prune operations rank and drop; `slot_choices` says how many there are.
        """
        return archs

    def costs(self, archs: Archs) -> Mapping[str, IntArray]:
        """Return `flops` (multiply-adds) and `params` by architecture; empty where unknown."""
        return {}

    def sample_distinct(self, n: int, rng: Generator, without: Keys | None = None) -> Archs:
        """Draw `n` different architectures, uniform over such sets, none of them in `without`.

        The rows come in random order, so that each prefix is a uniform sample too. Raises UserError
        if there aren't as many, or, in a space that can't be counted, if they don't turn up.
        """
        taken = np.sort(without) if without is not None else np.empty(0, np.uint64)
        room = self.size() - len(taken)
        if n > room:
            raise UserError(f"asked for {n:,} more architectures of {self.name}, which has {room:,} left")
        if 4 * (n + len(taken)) > self.size() and self.size() <= LISTABLE:
            rows = self.enumerate()
            rows = rows[~is_in(self.key(rows), taken)]
            return rows[rng.permutation(len(rows))[:n]]
        rows, keys, stale = np.empty((0, self.genome_len), np.int8), np.empty(0, np.uint64), 0
        while len(rows) < n:
            more = self.sample(n - len(rows) + 16, rng)
            before = len(rows)
            rows, keys = np.concatenate([rows, more]), np.concatenate([keys, self.key(more)])
            first = first_of_each(keys)
            first = first[~is_in(keys[first], taken)]
            rows, keys = rows[first], keys[first]
            stale = 0 if len(rows) > before else stale + len(more)
            if not self.size_exact and stale >= STALE * len(rows) + 1000:
                raise UserError(
                    f"asked for {n:,} more architectures of {self.name}, of which {len(rows):,} turned up; "
                    f"{stale:,} further draws gave none"
                )
        return rows[:n]

    def check_rows(self, archs: Archs) -> None:
        """Raise UserError unless `archs` is a matrix of rows of this space's length."""
        if archs.ndim != 2 or archs.shape[1] != self.genome_len:
            raise UserError(
                f"archs: expected a matrix of shape (n, {self.genome_len}) for {self.name}, found {archs.shape}"
            )

    def check_kind(self, kind: str | None) -> None:
        """Raise UnknownName unless `kind` is None or one of this space's kinds of edit."""
        if kind is not None and kind not in self.kinds:
            raise UnknownName(f"kind of edit in {self.name}", kind, self.kinds or ("none",))

    def __repr__(self) -> str:
        return f"<Space {self.name}: {self.size():,} architectures>"


def retry_edits(edits: IntArray, draw: Callable[[IntArray], BoolArray]) -> None:
    """Call `draw` with the rows that have edits, until it has returned True for each or the tries are used up.

    `draw` takes the `(m,)` rows that are left, and returns for which of them it kept an edited architecture.
    """
    todo = np.flatnonzero(edits > 0)
    for _ in range(MUTATE_TRIES):
        if not len(todo):
            break
        todo = todo[~draw(todo)]


def distinct_children(parents: IntArray, keys: Keys, own: Keys) -> IntArray:
    """Return which entries are the first of their key under their parent and not the parent itself.

    `parents` and `keys` are `(m,)`, `own` the `(n,)` keys of the parents; the result is sorted by
    parent, then key, so that it doesn't depend on the order of the moves that made the entries.
    """
    order = np.lexsort((keys, parents))
    p, k = parents[order], keys[order]
    first = k != own[p]
    first[1:] &= (p[1:] != p[:-1]) | (k[1:] != k[:-1])
    kept: IntArray = order[first]
    return kept


def first_of_each(keys: Keys) -> IntArray:
    """Return where each key stands first, ascending."""
    return np.sort(np.unique(keys, return_index=True)[1])


def as_bytes(names: Sequence[str], width: int) -> tuple[NDArray[np.uint8], IntArray]:
    """Return names as an `(n, width)` matrix of ASCII codes, padded with 0, and their lengths.

    A name that is longer than `width` or holds NUL or anything but ASCII has length -1.
    """
    lengths = np.fromiter((len(s) if s.isascii() and "\0" not in s else -1 for s in names), np.int64, len(names))
    lengths[lengths > width] = -1
    text = [s if ok else "" for s, ok in zip(names, lengths >= 0, strict=True)]
    codes = np.array(text, dtype=f"S{width}").view(np.uint8).reshape(len(text), width)
    return codes, lengths


def raise_first(bad: BoolArray | np.bool_, reason: str) -> None:
    """Raise InvalidArchitecture for the first row where `bad` holds."""
    if np.any(bad):
        raise InvalidArchitecture(int(np.argmax(bad)), reason)


def is_in(keys: Keys, sorted_keys: Keys) -> BoolArray:
    """Return which keys are among the sorted ones."""
    if not len(sorted_keys):
        return np.zeros(len(keys), bool)
    at = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
    return np.asarray(sorted_keys[at] == keys)


def draw_slots(rate: FloatArray | IntArray, k: IntArray, rng: Generator) -> BoolArray:
    """Draw `k[i]` different slots of row i, 1 or more, each next one in proportion to its rate, `(n, slots)`.

    A slot of rate 0 is never drawn, so that a row with fewer others has fewer.
    """
    with np.errstate(divide="ignore"):
        race = rng.exponential(size=rate.shape) / rate
    last = np.sort(race, axis=1)[np.arange(len(race)), np.minimum(k, race.shape[1]) - 1]
    return np.asarray((race <= last[:, None]) & (rate > 0))
