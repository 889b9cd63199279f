"""Two variants of the method, with different first sample, selection, stopping rule and result.

* `Elite`, the default: the best architectures seen, down to a target size;
* `Paper`: the seeds and all their neighbors, while the mean prediction rises (paper, section 4.3).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np

from lissnas.config import MIN_FIRST_SIZE, EliteConfig, PaperConfig, ShrinkParams
from lissnas.core.errors import UserError
from lissnas.core.rng import stream
from lissnas.shrinkers.archive import UNLABELLED
from lissnas.shrinkers.cover import cover, radii_for, with_balls
from lissnas.shrinkers.memory_budget import memory_needed
from lissnas.shrinkers.problem import Problem
from lissnas.shrinkers.selection import MAX_USEFUL_SHARE, Strata, target_size
from lissnas.shrinkers.state import INDICES, State, labels_due
from lissnas.spaces import IntArray
from lissnas.spaces.balls import Balls
from lissnas.spaces.base import LISTABLE

MAX_FIRST = 20_000
"""Maximum size of the first sample by rule; the space grows to a larger target."""
MIN_ROWS = 3
"""Minimum rows in memory per architecture of the target: with fewer the result is worse (measured)."""
KEPT_QUARTERS = 3
"""Quarters of the rows in memory that are kept when the lowest-scored ones are dropped."""
SEARCH_SIZE = 30_000
"""Size of the space from which it grows to a larger target: finding the best regions first takes a quarter of the
queries, for the same mean (measured)."""
GROWTH_FACTOR = 4
"""Maximum growth of such a space per iteration."""
MAX_GROWTH_TURNOVER = 0.3
"""It grows if at most this share of it is new."""
MAX_CENTRES = 400_000
"""Best architectures that are candidates for the centers of balls."""
NO_RISE = "the mean prediction rose"
"""Prefix of the stopping reason for which the paper's loop returns the space before the last."""


@dataclass(frozen=True)
class Strategy(ABC):
    """Interface of the variants of the method; everything else is shared by the loop."""

    params: ShrinkParams
    collects_children: ClassVar[bool] = False
    """Whether the next space consists of the neighbors, which then have to be collected."""

    def check(self, problem: Problem) -> None:  # noqa: B027  # accepts every problem unless overridden
        """Raise UserError for an unreachable target, before anything is drawn."""

    @abstractmethod
    def target(self, state: State, problem: Problem) -> State:
        """Return the state with the target size, and a note if it was chosen by the rule."""

    @abstractmethod
    def first_size(self, state: State, problem: Problem) -> int:
        """Return the size of the first sample."""

    def strata(self, state: State, problem: Problem) -> State:
        """Return the state with strata computed from the first sample, if the selection has quotas."""
        return state

    @abstractmethod
    def top(self, state: State, among: IntArray, k: int, strict: bool = False) -> IntArray:
        """Return the `k` best rows of `among`, best first."""

    @abstractmethod
    def seeds(self, state: State) -> IntArray:
        """Return the seed architectures of the next iteration, best first."""

    def drop_rows(self, state: State, problem: Problem) -> State:
        """Return the state with enough free memory for the next batch of neighbors."""
        return state

    @abstractmethod
    def choose(self, state: State, problem: Problem, shrinking: bool = True) -> State:
        """Return the state with the next space; `shrinking` False keeps its size."""

    @abstractmethod
    def converged(self, state: State, problem: Problem, turnover: float) -> str:
        """Return why the method has converged, or an empty string."""

    @abstractmethod
    def final(self, state: State, problem: Problem) -> tuple[IntArray, Balls | None]:
        """Return the rows of the shrunk space, or the candidates of its balls and the balls."""

    def wanted(self, state: State) -> int | None:
        """Return the target size, for the warning about a smaller result; None if there is none."""
        return None


def strategy_of(params: ShrinkParams) -> Strategy:
    """Return the strategy of the configured variant."""
    if isinstance(params.method, EliteConfig):
        return Elite(params, params.method)
    return Paper(params, params.method)


@dataclass(frozen=True)
class Elite(Strategy):
    """Keep the best architectures seen, with a quota per stratum, down to a target size."""

    config: EliteConfig

    @cached_property
    def unlisted(self) -> bool:
        """Whether the target is too large to list, so that the result is a union of balls."""
        return self.params.target_size is not None and self.params.target_size > LISTABLE

    @property
    def listed_target(self) -> int | None:
        """Number of architectures to find: the target, or enough candidates for balls if it can't be listed."""
        return SEARCH_SIZE if self.unlisted else self.params.target_size

    def check(self, problem: Problem) -> None:
        """Raise UserError for a target that balls can't reach or that needs more memory."""
        target, space = self.params.target_size, problem.space
        if target is None:
            if problem.predictor is not None:
                raise UserError("target_size: required with a predictor that is already fitted")
            return
        if self.unlisted:
            radii_for(with_balls(space, target), target)
        needed = MIN_ROWS * (self.listed_target or 0)
        if problem.memory_rows < needed:
            gib = memory_needed(needed, space.genome_len)
            raise UserError(
                f"memory: {self.params.memory:g} GiB holds {problem.memory_rows:,} networks of {space.name} with "
                f"scores and labels; a target of {target:,} needs {needed:,} at least: --memory {gib:.1f}"
            )

    def target(self, state: State, problem: Problem) -> State:
        """Return the state with the configured target, or the one by the rule from the first labels."""
        if self.params.target_size is not None:
            return replace(state, target=self.listed_target)
        state = state.cross_validate(problem)
        size, share = target_size(problem.space, state.cross_validated, state.archive.labels[state.archive.labelled])
        note = f"target size {size:,}: by cross-validation the best {100 * share:.0f} % hold 9 in 10 of the best"
        if share >= MAX_USEFUL_SHARE:
            note += "; the labels say next to nothing about this space, more or better ones are needed"
        return replace(state, target=size, notes=(*state.notes, note))

    def first_size(self, state: State, problem: Problem) -> int:
        """Return half of the target, at least 250, unless a size is configured."""
        if self.config.first_size is not None:
            return self.config.first_size
        assert state.target is not None
        return int(min(max(state.target / 2, MIN_FIRST_SIZE), MAX_FIRST, problem.space.size() / 2))

    def strata(self, state: State, problem: Problem) -> State:
        """Return the state with strata of the first sample, unless diversity is 0."""
        if self.config.diversity == 0:
            return state
        rows = state.archive.rows
        strata = Strata.of(problem.space, rows[state.uniform], stream(self.params.seed, "strata"))
        stratum = strata.of_each(problem.space, rows).astype(np.int16)
        return replace(state, strata=strata, archive=replace(state.archive, stratum=stratum))

    def top(self, state: State, among: IntArray, k: int, strict: bool = False) -> IntArray:
        """Return the best `k` rows, with each stratum's quota."""
        return state.archive.top(among, k, state.strata, self.config.diversity, strict)

    def seeds(self, state: State) -> IntArray:
        """Return the best of the current space that have not been seeds before."""
        top = self.top(state, state.current, math.ceil(self.config.seed_fraction * len(state.current)))
        return top[~state.archive.expanded[top]]

    def drop_rows(self, state: State, problem: Problem) -> State:
        """Drop the lowest-scored rows if the next batch of neighbors would not fit in memory.

        Keeps the best rows, as many as fit in three quarters of the memory, and all former seeds (the parents of other
        rows), labelled rows, the current space, and the sample that represents the full space.
        """
        archive = state.archive
        if len(archive) + problem.at_once <= problem.memory_rows:
            return state
        keep = archive.expanded | (archive.label_round != UNLABELLED)
        for name in INDICES:
            keep[getattr(state, name)] = True
        free = max(0, KEPT_QUARTERS * problem.memory_rows // 4 - int(keep.sum()))
        keep[self.top(state, np.flatnonzero(~keep), free)] = True
        return state.keep(keep)

    def choose(self, state: State, problem: Problem, shrinking: bool = True) -> State:
        """Return the state with the best of all rows as its next space, one step closer to the target size."""
        assert state.target is not None
        capacity = state.capacity
        if shrinking:
            grown = capacity if state.turnover() > MAX_GROWTH_TURNOVER else GROWTH_FACTOR * capacity
            capacity = max(min(state.target, max(SEARCH_SIZE, grown)), math.ceil(self.config.shrink_rate * capacity))
        members = self.top(state, np.arange(len(state.archive)), capacity)
        return replace(state, current=members, capacity=capacity)

    def converged(self, state: State, problem: Problem, turnover: float) -> str:
        """Return the reason to stop: no seed is left, or the turnover is too low at the target size."""
        if labels_due(state, problem):
            return ""
        if not len(state.seeds) and len(state.current) <= len(state.previous):  # a space that grew has new seeds
            return "no seed is left to expand"
        minimum = self.config.min_turnover
        if state.capacity == state.target and turnover < minimum:
            return f"{100 * turnover:.2f} % of the space is new, less than {100 * minimum:g} %"
        return ""

    def final(self, state: State, problem: Problem) -> tuple[IntArray, Balls | None]:
        """Return the best rows of all at the target size; if it is too large to list, balls around the best."""
        assert state.target is not None
        everything = np.arange(len(state.archive))
        members = self.top(state, everything, state.target, strict=True)
        if not self.unlisted:
            return members, None
        assert state.predictor is not None
        assert self.params.target_size is not None
        ranked = state.archive.rows[self.top(state, everything, MAX_CENTRES)]
        rng = stream(self.params.seed, "balls")
        return members, cover(problem.space, ranked, self.params.target_size, state.predictor, rng, problem.threads)

    def wanted(self, state: State) -> int | None:
        """Return the target."""
        return self.params.target_size if self.unlisted else state.target


@dataclass(frozen=True)
class Paper(Strategy):
    """Keep the seeds and all their neighbors, while the mean prediction rises."""

    config: PaperConfig
    collects_children: ClassVar[bool] = True

    def target(self, state: State, problem: Problem) -> State:
        """Return the state with the configured target, if any."""
        return replace(state, target=self.params.target_size)

    def first_size(self, state: State, problem: Problem) -> int:
        """Return the resolved size."""
        assert self.config.first_size is not None
        return self.config.first_size

    def top(self, state: State, among: IntArray, k: int, strict: bool = False) -> IntArray:
        """Return the best `k` rows by score alone."""
        return state.archive.top(among, k, None, 0.0, strict)

    def seeds(self, state: State) -> IntArray:
        """Return the best of the current space."""
        return self.top(state, state.current, math.ceil(self.config.seed_fraction * len(state.current)))

    def choose(self, state: State, problem: Problem, shrinking: bool = True) -> State:
        """Return the state with seeds and neighbors as its next space."""
        members = np.unique(np.concatenate([state.seeds, state.children]))
        return replace(state, current=self.top(state, members, len(members)))

    def converged(self, state: State, problem: Problem, turnover: float) -> str:
        """Return the reason to stop: the mean prediction stopped rising, or the target is reached."""
        rise = state.records[-1]["mean_predicted"] - state.records[-2]["mean_predicted"]
        tolerance = self.config.tolerance * problem.source.point
        if rise < tolerance:
            first = " in the first iteration: the first sample is returned" if state.iteration == 1 else ""
            return f"{NO_RISE} by {rise:.3g}, less than {tolerance:.3g}{first}"
        if state.target is not None and len(state.current) <= state.target:
            return f"the target size of {state.target:,} is reached"
        return ""

    def final(self, state: State, problem: Problem) -> tuple[IntArray, Balls | None]:
        """Return the last space whose mean prediction rose."""
        return state.previous if state.stop.startswith(NO_RISE) else state.current, None
