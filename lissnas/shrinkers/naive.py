"""What needs no idea of structure: the best of a uniform sample, of the whole space, or the costliest."""

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

CLIMBS, EDITS, SETTLED = 200, 4, 0.01
"""Rounds of climbing at most, edits of each network in a round, and the share of new ones that ends it."""


def top_share(percent: float) -> Callable[[Space, CountedOracle, int, Generator], Subspace]:
    """Return naive random shrinkage: the best `percent` of as many samples as the budget buys (H.1)."""

    def shrink(space: Space, oracle: CountedOracle, target: int, rng: Generator) -> Subspace:
        rows = uniform_sample(space, oracle, rng)
        return Subspace(space, rows[best_first(oracle(rows), max(1, round(percent / 100 * len(rows))))])

    return shrink


def no_neighbors(space: Space, oracle: CountedOracle, target: int, rng: Generator) -> Subspace:
    """Return the best of a uniform sample at the target size: the method without neighbours (H.2)."""
    rows = uniform_sample(space, oracle, rng)
    return Subspace(space, rows[best_first(oracle(rows), target)])


def score_all(space: Space, oracle: CountedOracle, target: int, rng: Generator) -> Subspace:
    """Return the best of the whole space, every network of which is asked about (H.3)."""
    rows = space.enumerate()
    return Subspace(space, rows[best_first(oracle(rows), target)])


def costliest(cost: str) -> Callable[[Space, CountedOracle, int, Generator], Subspace]:
    """Return a baseline that asks nothing: the networks with the highest cost.

    In a space too large to list they are those that climbing by single edits finds (`climb`).
    """

    def shrink(space: Space, oracle: CountedOracle, target: int, rng: Generator) -> Subspace:
        if cost not in space.cost_names:
            raise UserError(f"space {space.name} knows no {cost}, so it can't be ranked by it")
        if space.size() > LISTABLE:
            return Subspace(space, climb(space, cost, target, rng))
        rows = space.enumerate()
        costs = space.costs(rows)
        # Equal costs in random order, not in the order of keys.
        order = rng.permutation(len(rows))
        return Subspace(space, rows[order[best_first(costs[cost][order].astype(np.float64), target)]])

    return shrink


def climb(space: Space, cost: str, target: int, rng: Generator) -> Archs:
    """Return about the costliest `target` networks of a space, costliest first; raises UserError for too many.

    From a uniform sample: a few single edits of each network, and of all seen the costliest are kept,
    until hardly any of them is new. It ends near the top of the range, not with a proof of it.
    """
    if target > LISTABLE:
        raise UserError(f"{target:,} of the costliest networks of {space.name} can't be listed")
    rows = space.sample_distinct(target, rng)
    for _ in range(CLIMBS):
        parents = np.repeat(rows, EDITS, axis=0)
        every = np.concatenate([rows, space.mutate(parents, np.ones(len(parents), np.int64), rng)])
        first = first_of_each(space.key(every))
        order = rng.permutation(first)  # equal costs in random order
        kept = order[best_first(space.costs(every[order])[cost].astype(np.float64), target)]
        rows, fresh = every[kept], float((kept >= target).mean())
        if fresh < SETTLED:
            break
    return rows
