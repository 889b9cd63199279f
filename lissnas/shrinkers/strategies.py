"""The two variants of the method: how large the first sample is, what the next space is, when to stop, what to return.

* `Elite`, the default: the best of everything seen, down to a target size;
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
from lissnas.shrinkers.memory_budget import memory_for
from lissnas.shrinkers.problem import Problem
from lissnas.shrinkers.selection import USELESS, Strata, target_size
from lissnas.shrinkers.state import INDICES, State, labels_due
from lissnas.spaces import IntArray
from lissnas.spaces.balls import Balls
from lissnas.spaces.base import LISTABLE

MAX_FIRST = 20_000
"""Largest first sample by rule; a larger target is grown to."""
MIN_ROWS = 3
"""Rows in memory for each architecture of the target: with fewer the result gets worse (measured)."""
KEPT_QUARTERS = 3
"""Quarters of the memory's rows that stay when the worst ones are forgotten."""
SMALL = 30_000
"""A larger target is reached from a space of so many: the search for the best regions takes a quarter of the queries,
for the same mean (measured)."""
GROWTH = 4
"""How many times such a space grows at once."""
SETTLED = 0.3
"""It grows once less than this share of it is new."""
CENTRES = 400_000
"""Best architectures that the centers of balls are chosen from."""
NO_RISE = "the mean prediction rose"
"""How the reason begins for which the paper's loop returns its last space but one."""


@dataclass(frozen=True)
class Strategy(ABC):
    """What differs between the variants of the method; everything else is the loop's."""

    params: ShrinkParams
    collects_children: ClassVar[bool] = False
    """Whether the next space is made of the neighbors, so that they have to be remembered."""

    def check(self, problem: Problem) -> None:  # noqa: B027  # accepts every problem unless overridden
        """Raise UserError for a target that can't be reached, before anything is drawn."""

    @abstractmethod
    def target(self, state: State, problem: Problem) -> State:
        """Return the state with the target size and, if a rule chose it, a note."""

    @abstractmethod
    def first_size(self, state: State, problem: Problem) -> int:
        """Return the size of the first sample."""

    def strata(self, state: State, problem: Problem) -> State:
        """Return the state with strata made from its first sample, if the selection has quotas."""
        return state

    @abstractmethod
    def top(self, state: State, among: IntArray, k: int, strict: bool = False) -> IntArray:
        """Return the `k` best rows of `among`, best first."""

    @abstractmethod
    def seeds(self, state: State) -> IntArray:
        """Return the seed architectures of the next iteration, best first."""

    def forget(self, state: State, problem: Problem) -> State:
        """Return the state with room in memory for the next part of the neighbors."""
        return state

    @abstractmethod
    def choose(self, state: State, problem: Problem, shrinking: bool = True) -> State:
        """Return the state with its next space; `shrinking` False keeps its size."""

    @abstractmethod
    def converged(self, state: State, problem: Problem, turnover: float) -> str:
        """Return why the method is done, or an empty text."""

    @abstractmethod
    def final(self, state: State, problem: Problem) -> tuple[IntArray, Balls | None]:
        """Return the rows of the shrunk space, or what its balls were chosen from, and those balls."""

    def wanted(self, state: State) -> int | None:
        """Return the size that a result below is reported as too small; None if there is none."""
        return None


def strategy_of(params: ShrinkParams) -> Strategy:
    """Return the strategy of the chosen variant."""
    if isinstance(params.method, EliteConfig):
        return Elite(params, params.method)
    return Paper(params, params.method)


@dataclass(frozen=True)
class Elite(Strategy):
    """Keep the best of everything seen, with a quota for each stratum, down to a target size."""

    config: EliteConfig

    @cached_property
    def unlisted(self) -> bool:
        """Whether the target is too large to list, so that the result is a union of balls."""
        return self.params.target_size is not None and self.params.target_size > LISTABLE

    @property
    def listed_target(self) -> int | None:
        """How many architectures to look for: the target, or enough to put balls around if it can't be listed."""
        return SMALL if self.unlisted else self.params.target_size

    def check(self, problem: Problem) -> None:
        """Raise UserError for a target that balls can't make up, or that needs more memory."""
        target, space = self.params.target_size, problem.space
        if target is None:
            if problem.predictor is not None:
                raise UserError("target_size: needed with a predictor that is fitted already")
            return
        if self.unlisted:
            radii_for(with_balls(space, target), target)
        needed = MIN_ROWS * (self.listed_target or 0)
        if problem.memory_rows < needed:
            gib = memory_for(needed, space.genome_len)
            raise UserError(
                f"memory: {self.params.memory:g} GiB holds {problem.memory_rows:,} networks of {space.name} and what "
                f"is known of them; a target of {target:,} needs {needed:,} at least: --memory {gib:.1f}"
            )

    def target(self, state: State, problem: Problem) -> State:
        """Return the state with the requested target, else the one that the first labels suggest."""
        if self.params.target_size is not None:
            return replace(state, target=self.listed_target)
        state = state.cross_validate(problem)
        size, share = target_size(problem.space, state.cross_validated, state.archive.labels[state.archive.labelled])
        note = f"target size {size:,}: by cross-validation the best {100 * share:.0f} % hold 9 in 10 of the best"
        if share >= USELESS:
            note += "; the labels say next to nothing about this space, more or better ones are needed"
        return replace(state, target=size, notes=(*state.notes, note))

    def first_size(self, state: State, problem: Problem) -> int:
        """Return half of the target, at least 250, unless a size is set."""
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
        """Return the best `k`, after each stratum's quota."""
        return state.archive.top(among, k, state.strata, self.config.diversity, strict)

    def seeds(self, state: State) -> IntArray:
        """Return the best of the current space that have not been seeds before."""
        best = self.top(state, state.current, math.ceil(self.config.seed_fraction * len(state.current)))
        return best[~state.archive.expanded[best]]

    def forget(self, state: State, problem: Problem) -> State:
        """Drop the worst rows if the next part of the neighbors would not fit in memory.

        The best of all stay, as many as fit in three quarters of the memory; so do former seeds, since rows name
        what they were made from, labelled rows, the space itself, and what represents the full space.
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
        """Return the state with the best of all as its next space, one step nearer to the target size."""
        assert state.target is not None
        capacity = state.capacity
        if shrinking:
            grown = max(SMALL, capacity if state.turnover() > SETTLED else GROWTH * capacity)
            capacity = max(min(state.target, grown), math.ceil(self.config.shrink_rate * capacity))
        members = self.top(state, np.arange(len(state.archive)), capacity)
        return replace(state, current=members, capacity=capacity)

    def converged(self, state: State, problem: Problem, turnover: float) -> str:
        """Return that no seed is left, or that too little of the space is new at the target size."""
        if labels_due(state, problem):
            return ""
        if not len(state.seeds) and len(state.current) <= len(state.previous):  # one that grew has others
            return "no seed is left to expand"
        least = self.config.min_turnover
        if state.capacity == state.target and turnover < least:
            return f"{100 * turnover:.2f} % of the space is new, less than {100 * least:g} %"
        return ""

    def final(self, state: State, problem: Problem) -> tuple[IntArray, Balls | None]:
        """Return the target's best of all; if it is too large to list, balls around the best of all."""
        assert state.target is not None
        everything = np.arange(len(state.archive))
        members = self.top(state, everything, state.target, strict=True)
        if not self.unlisted:
            return members, None
        assert state.predictor is not None
        assert self.params.target_size is not None
        ranked = state.archive.rows[self.top(state, everything, CENTRES)]
        rng = stream(self.params.seed, "balls")
        return members, cover(problem.space, ranked, self.params.target_size, state.predictor, rng, problem.threads)

    def wanted(self, state: State) -> int | None:
        """Return the target."""
        return self.params.target_size if self.unlisted else state.target


@dataclass(frozen=True)
class Paper(Strategy):
    """Take the seeds and all their neighbors, while the mean prediction rises."""

    config: PaperConfig
    collects_children: ClassVar[bool] = True

    def target(self, state: State, problem: Problem) -> State:
        """Return the state with the requested target, if there is one."""
        return replace(state, target=self.params.target_size)

    def first_size(self, state: State, problem: Problem) -> int:
        """Return the size that the parameters resolved to."""
        assert self.config.first_size is not None
        return self.config.first_size

    def top(self, state: State, among: IntArray, k: int, strict: bool = False) -> IntArray:
        """Return the best `k` by score alone."""
        return state.archive.top(among, k, None, 0.0, strict)

    def seeds(self, state: State) -> IntArray:
        """Return the best of the current space."""
        return self.top(state, state.current, math.ceil(self.config.seed_fraction * len(state.current)))

    def choose(self, state: State, problem: Problem, shrinking: bool = True) -> State:
        """Return the state with seeds and neighbors as its next space."""
        members = np.unique(np.concatenate([state.seeds, state.children]))
        return replace(state, current=self.top(state, members, len(members)))

    def converged(self, state: State, problem: Problem, turnover: float) -> str:
        """Return that the mean prediction no longer rises, or that the target is reached."""
        rise = state.records[-1]["mean_predicted"] - state.records[-2]["mean_predicted"]
        tolerance = self.config.tolerance * problem.source.point
        if rise < tolerance:
            first = " in the first iteration: the first sample is returned" if state.iteration == 1 else ""
            return f"{NO_RISE} by {rise:.3g}, less than {tolerance:.3g}{first}"
        if state.target is not None and len(state.current) <= state.target:
            return f"the target size of {state.target:,} is reached"
        return ""

    def final(self, state: State, problem: Problem) -> tuple[IntArray, Balls | None]:
        """Return the last space whose mean rose."""
        return state.previous if state.stop.startswith(NO_RISE) else state.current, None
