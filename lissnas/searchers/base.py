"""Searchers: functions that evaluate at most `n` architectures of a space or subspace, made of functions that propose.

A proposer is a function of the history alone, so that a search can stop after any evaluation and resume to the same
history, and can wait for trainings that run elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np
from numpy.random import Generator

from lissnas.core.errors import LissnasError
from lissnas.core.rng import stream
from lissnas.oracles.base import Oracle, evaluate
from lissnas.spaces import Archs, FloatArray, IntArray, Keys, Space
from lissnas.spaces.base import LISTABLE, first_of_each, is_in
from lissnas.spaces.subspace import Subspace

MAX_DRAWS = 20
"""Uniform samples that are drawn to find members without a value, each four times as many as are needed."""
MAX_FAILED = 10
"""Evaluations after which a search stops if all failed."""

Searched: TypeAlias = Space | Subspace
"""What is searched."""


@dataclass(frozen=True)
class History:
    """All evaluated architectures, each once, in order of evaluation; NaN is the score of a failed training."""

    rows: Archs
    scores: FloatArray = field(default_factory=lambda: np.empty(0))
    generation: IntArray = field(default_factory=lambda: np.empty(0, np.int64))
    sign: int = 1
    """The factor from scores, of which more is better, to values of the metric: -1 if it is minimized."""

    @property
    def values(self) -> FloatArray:
        """The scores in the metric's sign."""
        return self.sign * self.scores

    @classmethod
    def empty(cls, space: Space) -> History:
        """Return the history before the first evaluation."""
        return cls(np.empty((0, space.genome_len), np.int8))

    def extended(self, rows: Archs, scores: FloatArray, generation: int) -> History:
        """Return the history with a generation appended."""
        return History(
            np.concatenate([self.rows, rows]),
            np.concatenate([self.scores, scores]),
            np.concatenate([self.generation, np.full(len(rows), generation)]),
            self.sign,
        )

    def best(self, k: int) -> IntArray:
        """Return the indices of the `k` highest scores, best first; ties in order of evaluation."""
        return np.argsort(-self.scores, kind="stable")[: min(k, len(self.known()))]

    def known(self) -> IntArray:
        """Return the indices of the architectures with a score, in order of evaluation."""
        return np.flatnonzero(~np.isnan(self.scores))

    def evaluated(self, space: Space, oracle: Oracle, rows: Archs, generation: int) -> History:
        """Return the history with a generation evaluated and appended; raises LissnasError if only failures were."""
        values = evaluate(oracle, space, rows, may_fail=True)
        history = self.extended(rows, values, generation)
        if len(history.rows) >= MAX_FAILED and not len(history.known()):
            raise LissnasError(f"all {len(history.rows):,} evaluations of {space.name} failed (nan)")
        return history


Proposer: TypeAlias = Callable[[Searched, History, int, Generator], Archs]
"""Returns the next `n` architectures to evaluate; what was evaluated or is proposed twice is left out by the search."""


class Searcher(Protocol):
    """Evaluates at most `n` architectures of a space or subspace and returns all of them, in order of evaluation."""

    def __call__(self, searched: Searched, oracle: Oracle, n: int, rng: Generator, /) -> History:
        """Search; values are higher is better, NaN for a failed training."""
        ...


@dataclass(frozen=True)
class Search:
    """A searcher that asks a proposer for batches; what is missing from a batch is drawn uniformly."""

    propose: Proposer
    batch: int = 1

    def __call__(
        self,
        searched: Searched,
        oracle: Oracle,
        n: int,
        rng: Generator,
        history: History | None = None,
        on_batch: Callable[[History], None] = lambda history: None,
    ) -> History:
        """Search until `n` architectures are evaluated or none is left; continues an earlier `history`.

        A continued search with a generator of the same seed gives the history of a search that never stopped, if it
        was stopped after a whole batch. Raises LissnasError if the first ten evaluations failed.
        """
        space, seed = space_of(searched), int(rng.integers(2**32))
        history = History.empty(space) if history is None else history
        while (done := len(history.rows)) < n:
            step = stream(seed, "search", done)
            wanted = min(self.batch, n - done)
            rows = fresh(searched, self.propose(searched, history, wanted, step), history.rows, wanted, step)
            if not len(rows):
                break
            history = history.evaluated(space, oracle, rows, int(history.generation.max()) + 1 if done else 0)
            on_batch(history)
        return history


def space_of(searched: Searched) -> Space:
    """Return the space itself, or the space of a subspace."""
    return searched.space if isinstance(searched, Subspace) else searched


def can_list(searched: Subspace) -> bool:
    """Return whether the members of a subspace can be listed."""
    return searched.kind == "set" or (searched.kind == "product" and searched.space.size() <= LISTABLE)


def inside(searched: Searched, rows: Archs) -> Archs:
    """Return the rows that are members of what is searched."""
    return rows[searched.contains(rows)] if isinstance(searched, Subspace) and len(rows) else rows


def without(space: Space, rows: Archs, taken: Keys) -> Archs:
    """Return the distinct rows whose key is not in the sorted keys `taken`, in order."""
    keys = space.key(rows)
    first = first_of_each(keys)
    return rows[first[~is_in(keys[first], taken)]]


def fresh(searched: Searched, proposed: Archs, evaluated: Archs, n: int, rng: Generator) -> Archs:
    """Return the first `n` distinct members of `proposed` that were not evaluated, filled up uniformly."""
    space = space_of(searched)
    taken = np.sort(space.key(evaluated))
    rows = without(space, inside(searched, proposed), taken)[:n]
    if len(rows) == n:
        return rows
    taken = np.sort(np.concatenate([taken, space.key(rows)]))
    return np.concatenate([rows, uniform(searched, n - len(rows), taken, rng)])


def uniform(searched: Searched, n: int, taken: Keys, rng: Generator) -> Archs:
    """Draw up to `n` distinct members whose key is not in the sorted keys `taken`; all that are left if they are few.

    A union of balls, or a product that is too large to list, is sampled until enough are found.
    """
    space = space_of(searched)
    if not isinstance(searched, Subspace):
        return space.sample_distinct(min(n, max(0, space.size() - len(taken))), rng, without=taken)
    if can_list(searched):
        left = without(space, searched.members, taken)
        return left[rng.permutation(len(left))[:n]]
    found = np.empty((0, space.genome_len), np.int8)
    for _ in range(MAX_DRAWS):
        found = without(space, np.concatenate([found, searched.sample(4 * n, rng)]), taken)[:n]
        if len(found) == n:
            break
    return found
