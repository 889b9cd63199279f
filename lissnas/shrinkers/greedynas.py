"""GreedyNAS (You et al., 2020): a candidate pool that better paths enter as they are sampled."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from lissnas.oracles.base import CountedOracle
from lissnas.shrinkers.pruning import best_first, uniform_sample
from lissnas.spaces import Archs, Space
from lissnas.spaces.base import first_of_each
from lissnas.spaces.subspace import Subspace

PATHS, KEPT = 10, 5
EPSILON = 0.8
"""Share of the paths that the pool gives at the end; it rises from 0 linearly."""
ROUNDS = 100


def shrink(space: Space, oracle: CountedOracle, target: int, rng: Generator) -> Subspace:
    """Draw ten paths, from the pool with growing probability, and push the five best; the pool is the space.

    The pool holds the best `target` of what was pushed (published: 1,000). Paths that the pool gives
    were asked about before, so they cost no query and change nothing in it; groups of ten are drawn
    in 100 rounds at once. When a pool of that size isn't full by then, the rest of the asked
    networks fill it, best first.
    """
    fresh = uniform_sample(space, oracle, rng)
    pool: Archs = fresh[:0]
    at = 0
    epsilon = np.linspace(0, EPSILON, ROUNDS)
    share = np.cumsum(1 - epsilon) / (1 - epsilon).sum()
    for e, until in zip(epsilon, np.ceil(share * len(fresh)).astype(int), strict=True):
        new, at = fresh[at:until], until
        n_old = max(0, round(len(new) / (1 - e)) - len(new)) if len(pool) else 0
        old = pool[rng.integers(0, max(1, len(pool)), n_old)]
        paths = np.concatenate([new, old])
        paths = paths[rng.permutation(len(paths))]
        values = oracle(paths)
        whole = len(paths) // PATHS * PATHS
        ranked = np.argsort(-values[:whole].reshape(-1, PATHS), axis=1, kind="stable")[:, :KEPT]
        pushed = paths[(ranked + np.arange(len(ranked))[:, None] * PATHS).ravel()]
        pool = np.concatenate([pool, pushed, paths[whole:]])
        pool = pool[first_of_each(space.key(pool))]
        pool = pool[best_first(oracle(pool), target)]
    if len(pool) < target:
        rows, values = oracle.queried()
        rest = ~Subspace(space, pool).contains(rows)
        pool = np.concatenate([pool, rows[rest][best_first(values[rest], target - len(pool))]])
    return Subspace(space, pool)
