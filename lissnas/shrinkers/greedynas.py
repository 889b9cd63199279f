"""GreedyNAS (You et al., 2020): a candidate pool, filled with the best of the sampled paths."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from lissnas.oracles.base import CountedOracle
from lissnas.shrinkers.pruning import best_first, uniform_sample
from lissnas.spaces import Archs, Space
from lissnas.spaces.base import first_of_each
from lissnas.spaces.subspace import Subspace

PATHS = 10  # sampled together
KEPT = 5  # of them, added to the pool
EPSILON = 0.8
"""Final share of paths sampled from the pool; it rises linearly from 0."""
ROUNDS = 100


def shrink(space: Space, oracle: CountedOracle, target: int, rng: Generator) -> Subspace:
    """Sample ten paths, from the pool with increasing probability, and add the five best; the pool is the space.

    The pool contains the best `target` paths added (published: 1,000). Paths sampled from the pool were
    already evaluated, so they cost no query and do not change it; groups of ten are sampled in batches, 100
    in all. If the pool is not full at the end, the best other evaluated architectures are added.
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
