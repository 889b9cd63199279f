"""What needs no idea of structure: the best of a uniform sample, of the whole space, or the costliest."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from lissnas.errors import UserError
from lissnas.oracles import CountedOracle
from lissnas.shrinkers.pruning import best_first, uniform_sample
from lissnas.spaces import Space
from lissnas.subspace import Subspace


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
    """Return a baseline that asks nothing: the networks with the highest cost."""

    def shrink(space: Space, oracle: CountedOracle, target: int, rng: Generator) -> Subspace:
        rows = space.enumerate()
        costs = space.costs(rows)
        if cost not in costs:
            raise UserError(f"space {space.name} knows no {cost}, so it can't be ranked by it")
        # Equal costs in random order, not in the order of keys.
        order = rng.permutation(len(rows))
        return Subspace(space, rows[order[best_first(costs[cost][order].astype(np.float64), target)]])

    return shrink
