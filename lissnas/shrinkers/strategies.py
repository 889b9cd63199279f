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
"""Growth of such a space once its seed architectures are expanded."""
BATCH_SHARE = 0.02
"""Share of the space that is expanded at once, at least `MIN_BATCH` architectures."""
LARGE_BATCH_SHARE = 0.1
"""The same for spaces larger than `SEARCH_SIZE`: each batch copies all architectures seen."""
LARGE_SEED_SHARE = 0.6
"""Factor of `seed_fraction` for such spaces: a million of OFA MobileNetV3 take 8.4 instead of 12.9 million queries, for
a mean that is .015 points lower (measured)."""
MIN_BATCH = 8
MIN_SEEDS = 200
"""Minimum number of best architectures that are expanded, if the space has as many."""
MAX_LABELLING_SHARE = 0.3
"""Share of the space that is expanded before the last labels are collected; less before earlier ones, in proportion."""
LABEL_POOL = 1.5
"""Labels are drawn from so many times the target of the best architectures seen."""
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
    batches: ClassVar[int] = 1
    """Maximum batches of seeds that an iteration expands."""

    def check(self, problem: Problem) -> None:  # noqa: B027  # accepts every problem unless overridden
        """Raise UserError for an unreachable target, before anything is drawn."""

    @abstractmethod
    def target(self, state: State, problem: Problem) -> State:
        """Return the state with the target size, and a note if it was chosen by the rule."""

    @abstractmethod
    def first_size(self, state: State, problem: Problem) -> int:
        """Return the size of the first sample."""

    def strata(self, state: State, problem: Problem) -> State:
        """Return the state with strata, if the selection has quotas, and a row in each."""
        return state

    @abstractmethod
    def top(self, state: State, among: IntArray, k: int, strict: bool = False) -> IntArray:
        """Return the `k` best rows of `among`, best first."""

    @abstractmethod
    def seeds(self, state: State, problem: Problem) -> IntArray:
        """Return the seed architectures of the next iteration, best first."""

    def label_now(self, state: State, problem: Problem) -> bool:
        """Return whether labels that are due are collected before the next iteration."""
        return True

    def label_pool(self, state: State) -> IntArray:
        """Return the rows that labels are drawn from."""
        return state.current

    def drop_rows(self, state: State, problem: Problem) -> State:
        """Return the state with enough free memory for the next batch of neighbors."""
        return state

    @abstractmethod
    def choose(self, state: State, problem: Problem) -> State:
        """Return the state with the next space."""

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
    """Keep the best architectures seen, with a quota per stratum, up to a target size; expand the best of them.

    Seed architectures are the best members of the space, in small batches, until the best `seed_fraction` of the
    target are all expanded: best-first search. An iteration has five batches.
    """

    config: EliteConfig
    batches: ClassVar[int] = 5

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
            return self._with_target(state, self.listed_target)
        size, share = target_size(problem.space, state.cross_validated, state.archive.labels[state.archive.labelled])
        note = f"target size {size:,}: by cross-validation the best {100 * share:.0f} % hold 9 in 10 of the best"
        if share >= MAX_USEFUL_SHARE:
            note += "; the labels say next to nothing about this space, more or better ones are needed"
        return self._with_target(replace(state, notes=(*state.notes, note)), size)

    def _with_target(self, state: State, target: int | None) -> State:
        assert target is not None
        return replace(state, target=target, capacity=min(target, SEARCH_SIZE))

    def first_size(self, state: State, problem: Problem) -> int:
        """Return a quarter of the target, at least 100, unless a size is configured."""
        if self.config.first_size is not None:
            return self.config.first_size
        assert state.target is not None
        return int(min(max(state.target / 4, MIN_FIRST_SIZE), MAX_FIRST, problem.space.size() / 2))

    def strata(self, state: State, problem: Problem) -> State:
        """Return the state with strata, unless diversity is 0, and one more row in each stratum without any.

        Strata are computed from a uniform sample that the predictor never scores.
        """
        if self.config.diversity == 0:
            return state
        space, rng = problem.space, stream(self.params.seed, "strata")
        strata, found = Strata.sampled(space, rng)
        stratum = strata.of_each(space, state.archive.rows).astype(np.int16)
        state = replace(state, strata=strata, archive=replace(state.archive, stratum=stratum))
        missing, at = np.unique(strata.of_each(space, found), return_index=True)
        rows = found[at[~np.isin(missing, stratum)]]
        return state.extend(problem, rows, space.key(rows), None, np.zeros(len(rows), np.int64))

    def top(self, state: State, among: IntArray, k: int, strict: bool = False) -> IntArray:
        """Return the best `k` rows, with each stratum's quota."""
        return state.archive.top(among, k, state.strata, self.config.diversity, strict)

    def seeds(self, state: State, problem: Problem) -> IntArray:
        """Return the next batch of the best members that have not been seeds before."""
        share = BATCH_SHARE if state.capacity <= SEARCH_SIZE else LARGE_BATCH_SHARE
        return self._unexpanded(state, problem)[: max(MIN_BATCH, math.ceil(share * state.capacity))]

    def _seed_share(self, state: State) -> float:
        """Return the share of the space that becomes seed architectures."""
        return self.config.seed_fraction * (LARGE_SEED_SHARE if state.capacity > SEARCH_SIZE else 1.0)

    def _unexpanded(self, state: State, problem: Problem) -> IntArray:
        """Return the best members, as many as are to be expanded by now, less those that were."""
        share = self._seed_share(state) if len(state.archive) >= state.capacity else 1.0
        if labels_due(state, problem):
            share = min(share, MAX_LABELLING_SHARE * state.rounds / self.config.label_rounds)
        size = max(math.ceil(share * state.capacity), min(state.capacity, MIN_SEEDS))
        top = self.top(state, state.current, size)
        return top[~state.archive.expanded[top]]

    def label_now(self, state: State, problem: Problem) -> bool:
        """Return whether all members that are to be expanded before the next labels are."""
        return not len(self._unexpanded(state, problem))

    def label_pool(self, state: State) -> IntArray:
        """Return somewhat more of the best rows than the target."""
        return self.top(state, np.arange(len(state.archive)), math.ceil(LABEL_POOL * state.capacity))

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

    def choose(self, state: State, problem: Problem) -> State:
        """Return the state with the best of all rows as its next space; a large target is reached in steps."""
        target, everything = state.target, np.arange(len(state.archive))
        assert target is not None
        state = replace(state, current=self.top(state, everything, state.capacity))
        if state.capacity >= target or labels_due(state, problem) or len(self._unexpanded(state, problem)):
            return state
        capacity = min(target, GROWTH_FACTOR * state.capacity)
        return replace(state, current=self.top(state, everything, capacity), capacity=capacity)

    def converged(self, state: State, problem: Problem, turnover: float) -> str:
        """Return the reason to stop: all seed architectures are expanded."""
        if labels_due(state, problem) or len(self._unexpanded(state, problem)):
            return ""
        return f"the best {100 * self._seed_share(state):g} % of the target are expanded"

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

    def seeds(self, state: State, problem: Problem) -> IntArray:
        """Return the best of the current space."""
        return self.top(state, state.current, math.ceil(self.config.seed_fraction * len(state.current)))

    def choose(self, state: State, problem: Problem) -> State:
        """Return the state with seeds and neighbors as its next space."""
        members = np.unique(np.concatenate([state.seeds, state.children]))
        return replace(state, current=self.top(state, members, len(members)))

    def converged(self, state: State, problem: Problem, turnover: float) -> str:
        """Return the reason to stop: the mean prediction stopped rising, or the target is reached."""
        before, now = (r["mean_predicted"] for r in state.records[-2:])
        rise = problem.source.sign * (now - before)
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
