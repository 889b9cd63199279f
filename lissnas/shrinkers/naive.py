"""Naive baselines: the best of a uniform sample, the best of the whole space, the costliest architectures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from lissnas.core.errors import UserError
from lissnas.oracles.base import CountedOracle
from lissnas.shrinkers.pruning import best_first, uniform_sample
from lissnas.spaces import Archs, Space
from lissnas.spaces.base import LISTABLE, first_of_each
from lissnas.spaces.subspace import Subspace

MAX_CLIMBS = 200  # rounds
EDITS = 4  # of each architecture per round
POOL = 10
"""Size of the uniform pool of a space too large to list, in multiples of the architectures that are ranked."""
MIN_TURNOVER = 0.01
"""Climbing stops with a smaller share of new architectures."""


def top_share(percent: float) -> Callable[[Space, CountedOracle, int, Generator], Subspace]:
    """Return naive random shrinkage: the best `percent` of as many samples as the budget allows (H.1)."""

    def shrink(space: Space, oracle: CountedOracle, target: int, rng: Generator) -> Subspace:
        rows = uniform_sample(space, oracle, rng)
        return Subspace(space, rows[best_first(oracle(rows), max(1, round(percent / 100 * len(rows))))])

    return shrink


def no_neighbors(space: Space, oracle: CountedOracle, target: int, rng: Generator) -> Subspace:
    """Return the best of a uniform sample at the target size: the method without neighbours (H.2)."""
    rows = uniform_sample(space, oracle, rng)
    return Subspace(space, rows[best_first(oracle(rows), target)])


def score_all(space: Space, oracle: CountedOracle, target: int, rng: Generator) -> Subspace:
    """Return the best of the whole space after querying all of it (H.3)."""
    rows = space.enumerate()
    return Subspace(space, rows[best_first(oracle(rows), target)])


def costliest(cost: str) -> Callable[[Space, CountedOracle, int, Generator], Subspace]:
    """Return a baseline without queries: the architectures with the highest cost.

    In a space too large to list, these are found by hill climbing with single edits (`climb`).
    """

    def shrink(space: Space, oracle: CountedOracle, target: int, rng: Generator) -> Subspace:
        return Subspace(space, highest(space, cost, target, rng))

    return shrink


def costliest_then_rank(cost: str) -> Callable[[Space, CountedOracle, int, Generator], Subspace]:
    """Return a baseline that queries only the architectures with the highest cost, as many as the budget allows.

    The result is the best of them. A space that is too large to list is represented by a uniform pool of
    ten times the budget: the costliest by hill climbing are all near one corner of the space.
    """

    def shrink(space: Space, oracle: CountedOracle, target: int, rng: Generator) -> Subspace:
        check_cost(space, cost)
        oracle.need_budget()
        n = min(oracle.left, space.size())
        if space.size() > LISTABLE:
            rows = _costliest_of(space, space.sample_distinct(min(POOL * n, LISTABLE), rng), cost, n, rng)
        else:
            rows = highest(space, cost, n, rng)
        return Subspace(space, rows[best_first(oracle(rows), target)])

    return shrink


def highest(space: Space, cost: str, n: int, rng: Generator) -> Archs:
    """Return the `n` architectures with the highest cost; raises UserError for a space without this cost."""
    check_cost(space, cost)
    if space.size() > LISTABLE:
        return climb(space, cost, n, rng)
    return _costliest_of(space, space.enumerate(), cost, n, rng)


def check_cost(space: Space, cost: str) -> None:
    """Raise UserError for a space without this cost."""
    if cost not in space.cost_names:
        raise UserError(f"space {space.name} knows no {cost}, so it can't be ranked by it")


def _costliest_of(space: Space, rows: Archs, cost: str, n: int, rng: Generator) -> Archs:
    costs = space.costs(rows)[cost].astype(np.float64)
    order = rng.permutation(len(rows))  # equal costs in random order, not in the order of keys
    return rows[order[best_first(costs[order], n)]]


def climb(space: Space, cost: str, target: int, rng: Generator) -> Archs:
    """Return approximately the costliest `target` architectures of a space, costliest first.

    Starts from a uniform sample and keeps the costliest of it and of a few single edits of each, until less
    than 1 % is new. The result is near the optimum without a guarantee. Raises UserError for too many.
    """
    if target > LISTABLE:
        raise UserError(f"{target:,} networks of {space.name} can't be listed; at most {LISTABLE:,} can")
    rows = space.sample_distinct(target, rng)
    for _ in range(MAX_CLIMBS):
        parents = np.repeat(rows, EDITS, axis=0)
        candidates = np.concatenate([rows, space.mutate(parents, np.ones(len(parents), np.int64), rng)])
        first = first_of_each(space.key(candidates))
        order = rng.permutation(first)  # equal costs in random order
        kept = order[best_first(space.costs(candidates[order])[cost].astype(np.float64), target)]
        rows, turnover = candidates[kept], float((kept >= target).mean())
        if turnover < MIN_TURNOVER:
            break
    return rows
