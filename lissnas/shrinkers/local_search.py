"""Best-first local search: the neighbors of the best architectures, until the budget is spent."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from lissnas.oracles.base import CountedOracle
from lissnas.shrinkers.evaluated import Evaluated
from lissnas.spaces import Space
from lissnas.spaces.subspace import Subspace

FIRST = 0.1
"""Share of the budget for the uniform sample; .05 and .2 give the same."""
NEIGHBORS = 24
"""Random single edits of each architecture that is expanded, as many as our method draws; 12 and 48 give the same."""
MIN_BATCH = 8
"""Minimum number of architectures expanded together."""
BATCH = 0.02
"""The same as a share of the target; 8 at any target and .05 give the same."""


def search(diversity: float) -> Callable[[Space, CountedOracle, int, Generator], Subspace]:
    """Return best-first search with a quota of `diversity` for each stratum; 0 is without quota.

    A tenth of the budget is a uniform sample. Then the best architectures that are not expanded yet are expanded in
    small batches, each to 24 random neighbors at one edit. The result is the best of everything evaluated. A quota
    applies to the architectures that are expanded and to the result. A search that has expanded everything it found
    spends the rest of the budget on a uniform sample.
    """

    def shrink(space: Space, oracle: CountedOracle, target: int, rng: Generator) -> Subspace:
        oracle.need_budget()
        seen, batch = Evaluated(space, oracle, diversity, rng), max(MIN_BATCH, round(BATCH * target))
        seen.add_uniform(max(1, round(FIRST * oracle.budget)), rng)
        while oracle.left:
            order = seen.top(target if diversity else len(seen.rows))
            parents = order[~seen.expanded[order]][:batch]
            if not len(parents):
                parents = np.flatnonzero(~seen.expanded)
                parents = parents[np.argsort(-seen.scores[parents], kind="stable")][:batch]
            if not len(parents):
                seen.add_uniform(oracle.left, rng)
                break
            seen.expanded[parents] = True
            drawn = np.repeat(seen.rows[parents], NEIGHBORS, axis=0)
            seen.add(space.mutate(drawn, np.ones(len(drawn), np.int64), rng))
        return seen.best(target)

    return shrink
