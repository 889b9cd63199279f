"""The interface of a search space. All methods take and return whole matrices of architectures."""

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
"""Maximum number of architectures that are listed in memory."""

LARGE_SPACE_SAMPLE = 100_000
"""Architectures sampled to represent a space that is too large to list."""

MAX_STALE_FACTOR = 5
"""`sample_distinct` gives up after this multiple of the architectures found so far without a new one."""

MAX_MUTATE_TRIES = 64
"""Redraws of a random edit that gave an invalid network or one at fewer edits than requested."""


class Space(ABC):
    """A search space: an architecture is a row of small integers, a set of architectures a matrix.

    Two architectures are identical if and only if their keys are equal. Each space defines which
    ones are: isomorphic networks, or networks that compute the same function. All methods take and
    return `(n, genome_len)` int8 matrices of *canonical* rows: each network has one canonical form.

    A subclass sets `name`, `genome_len` and `max_edits` and implements the abstract methods;
    `lissnas.testing.SpaceSuite` tests it.

    Example:
        >>> import lissnas
        >>> space = lissnas.space("nas_bench_macro")
        >>> archs = space.parse(["22212220", "00001111"])
        >>> archs.shape, space.costs(archs)["params"].tolist()
        ((2, 8), [1985514, 1418538])
        >>> neighbors, parents = space.neighbors(archs)  # all architectures one edit away
        >>> len(neighbors)
        33
    """

    name: str
    source: str = ""
    """The publication or file that defines the space, for display."""
    genome_len: int
    max_edits: int
    """Maximum edit distance: the number of slots that an edit can change (paper, section 4.2)."""
    kinds: tuple[str, ...] = ()
    """Names of the kinds of edit, if there are several."""
    size_exact: bool = True
    """Whether `size()` counts distinct networks. If False, it counts descriptions."""
    slot_choices: tuple[int, ...] = ()
    """Number of choices of each decision in `slots`."""
    metric_name: str = ""
    """The metric's column in labels, empty if the space defines none."""
    maximize: bool = True
    """False if that metric is minimized; labels are then negated when they are read."""

    @cached_property
    def n_features(self) -> int:
        """Number of columns that `encode` returns."""
        return int(self.encode(np.empty((0, self.genome_len), np.int8)).shape[1])

    @cached_property
    def cost_names(self) -> tuple[str, ...]:
        """Names of the costs that `costs` returns, e.g. ``("flops", "params")``."""
        return tuple(self.costs(np.empty((0, self.genome_len), np.int8)))

    @abstractmethod
    def size(self) -> int:
        """Return the number of distinct architectures as an exact Python int."""

    @abstractmethod
    def sample(self, n: int, rng: Generator) -> Archs:
        """Draw `n` canonical rows, independent and uniform over the *distinct* architectures."""

    @abstractmethod
    def key(self, archs: Archs) -> Keys:
        """Return `(n,)` keys; raises InvalidArchitecture for the first invalid row."""

    @abstractmethod
    def neighbors(self, archs: Archs) -> tuple[Archs, IntArray]:
        """Return all architectures at edit distance 1 from each row, and the `(m,)` index of their parent row.

        Neighbors are sorted by parent and unique for each parent.
        """

    @abstractmethod
    def mutate(self, archs: Archs, edits: IntArray, rng: Generator, kind: str | None = None) -> Archs:
        """Return for each row a random architecture at *exactly* `edits[i]` edits from it.

        `kind` restricts the edits to one of `kinds`. A row is returned unchanged if no such architecture
        was drawn (there may be none), so compare keys if only changed rows are needed.
        """

    @abstractmethod
    def encode(self, archs: Archs) -> Features:
        """Return `(n, n_features)` float32 features, the input of predictors."""

    @abstractmethod
    def format(self, archs: Archs) -> list[str]:
        """Return the architectures in the published notation of their benchmark."""

    @abstractmethod
    def parse(self, names: Sequence[str]) -> Archs:
        """Return the rows of architectures in the notation of `format`; raises InvalidArchitecture(row, reason)."""

    def enumerate(self) -> Archs:
        """Return every architecture once, in ascending order of keys; raises UserError if the space is too large."""
        raise UserError(f"space {self.name} is too large to list ({self.size():,} architectures)")

    def possible(self) -> BoolArray:
        """Return a `(n_slots, max_choices)` mask of the choices that each decision has."""
        return np.arange(max(self.slot_choices)) < np.array(self.slot_choices)[:, None]

    def all_or_many(self, rng: Generator) -> Archs:
        """Return every architecture if the space can be listed, else a large uniform sample."""
        return self.enumerate() if self.size() <= LISTABLE else self.sample(LARGE_SPACE_SAMPLE, rng)

    def canonicalize(self, rows: Archs) -> Archs:
        """Return the canonical form of each row's network."""
        return rows

    def slots(self, archs: Archs) -> Archs:
        """Return `(n, n_slots)`: the choice at each decision, -1 if the architecture doesn't have that decision.

        Methods that prune operations rank and drop these choices; `slot_choices` has their numbers.
        """
        return archs

    def costs(self, archs: Archs) -> Mapping[str, IntArray]:
        """Return `flops` (multiply-adds) and `params`, `(n,)` each; an empty mapping if costs are unknown."""
        return {}

    def sample_distinct(self, n: int, rng: Generator, without: Keys | None = None) -> Archs:
        """Draw `n` distinct architectures, uniform over all such sets, excluding the keys in `without`.

        The rows are in random order, so that each prefix is a uniform sample too. Raises UserError if there
        are fewer, or, in a space that can't be counted, if sampling finds fewer.
        """
        taken = np.sort(without) if without is not None else np.empty(0, np.uint64)
        n_left = self.size() - len(taken)
        if n > n_left:
            raise UserError(f"requested {n:,} more architectures of {self.name}, which has {n_left:,} left")
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
            if not self.size_exact and stale >= MAX_STALE_FACTOR * len(rows) + 1000:
                raise UserError(
                    f"requested {n:,} more architectures of {self.name}, of which {len(rows):,} were found; "
                    f"{stale:,} further draws gave no new one"
                )
        return rows[:n]

    def check_rows(self, archs: Archs) -> None:
        """Raise UserError unless `archs` has the shape `(n, genome_len)`."""
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
    """Call `draw` with the rows to edit until it succeeded for each, at most `MAX_MUTATE_TRIES` times.

    `draw` takes the `(m,)` indices of the remaining rows and returns for which of them it stored an edited one.
    """
    todo = np.flatnonzero(edits > 0)
    for _ in range(MAX_MUTATE_TRIES):
        if not len(todo):
            break
        todo = todo[~draw(todo)]


def distinct_children(parents: IntArray, keys: Keys, parent_keys: Keys) -> IntArray:
    """Return the indices of children, each key once for each parent, without the parent itself.

    `parents` (row indices) and `keys` are `(m,)`, `parent_keys` is `(n,)`. The result is sorted by parent,
    then key, so that it doesn't depend on the order of the edits.
    """
    order = np.lexsort((keys, parents))
    p, k = parents[order], keys[order]
    first = k != parent_keys[p]
    first[1:] &= (p[1:] != p[:-1]) | (k[1:] != k[:-1])
    kept: IntArray = order[first]
    return kept


def first_of_each(keys: Keys) -> IntArray:
    """Return the index of the first occurrence of each key, ascending."""
    return np.sort(np.unique(keys, return_index=True)[1])


def as_bytes(names: Sequence[str], width: int) -> tuple[NDArray[np.uint8], IntArray]:
    """Return names as an `(n, width)` matrix of ASCII codes, padded with 0, and their lengths.

    The length is -1 if a name is longer than `width` or contains NUL or a non-ASCII character.
    """
    lengths = np.fromiter((len(s) if s.isascii() and "\0" not in s else -1 for s in names), np.int64, len(names))
    lengths[lengths > width] = -1
    text = [s if ok else "" for s, ok in zip(names, lengths >= 0, strict=True)]
    codes = np.array(text, dtype=f"S{width}").view(np.uint8).reshape(len(text), width)
    return codes, lengths


def raise_first(bad: BoolArray | np.bool_, reason: str) -> None:
    """Raise InvalidArchitecture for the first row with `bad`, if any."""
    if np.any(bad):
        raise InvalidArchitecture(int(np.argmax(bad)), reason)


def is_in(keys: Keys, sorted_keys: Keys) -> BoolArray:
    """Return a mask of the keys that are in `sorted_keys`."""
    if not len(sorted_keys):
        return np.zeros(len(keys), bool)
    at = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
    return np.asarray(sorted_keys[at] == keys)


def draw_slots(rate: FloatArray | IntArray, k: IntArray, rng: Generator) -> BoolArray:
    """Draw `k[i] >= 1` distinct slots of row i without replacement, weighted by `rate`; return an `(n, slots)` mask.

    A slot of rate 0 is never drawn: if fewer than `k[i]` slots have a positive rate, all of them are drawn.
    """
    with np.errstate(divide="ignore"):
        arrival = rng.exponential(size=rate.shape) / rate
    last = np.sort(arrival, axis=1)[np.arange(len(arrival)), np.minimum(k, arrival.shape[1]) - 1]
    return np.asarray((arrival <= last[:, None]) & (rate > 0))
