"""A second model of the oracle's answers ranks the space; the oracle evaluates its top."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from lissnas.oracles.base import CountedOracle
from lissnas.predictors.boosting import xgb
from lissnas.shrinkers.greedynas_v2 import MAX_TRAINING_ROWS, candidates
from lissnas.shrinkers.pruning import best_first
from lissnas.spaces import Archs, FloatArray, Space
from lissnas.spaces.base import LISTABLE, first_of_each
from lissnas.spaces.subspace import Subspace

FIRST = 0.25
"""Share of the budget for the uniform sample that the model is first fitted to."""
ROUNDS = 3
"""Rounds of a space too large to list; the model is fitted again before each. In others, three are as good as one."""
TREES = 200
DEPTH = 6
ETA = 0.1
NEIGHBORS = 24
"""In a space too large to list: random single edits of each of the best architectures, added to the pool."""
CHUNK = 1 << 16


def shrink(space: Space, oracle: CountedOracle, target: int, rng: Generator) -> Subspace:
    """Fit boosted trees to the oracle's values of a sample, rank the space with them, evaluate the top.

    The model costs no query, so it scores the whole space. A space too large to list is represented by a uniform pool
    of ten times what the rest of the budget evaluates; the top is evaluated in three rounds, and in each the neighbors
    of the best architectures join the pool and the model is fitted again. The result is the best of everything
    evaluated.
    """
    oracle.need_budget()
    rows = space.sample_distinct(min(max(1, round(FIRST * oracle.budget)), space.size()), rng)
    oracle(rows)
    pool = candidates(space, max(1, oracle.left), rng)
    for left in range(ROUNDS if space.size() > LISTABLE else 1, 0, -1):
        if not oracle.left:
            break
        if space.size() > LISTABLE:
            pool = _with_neighbors(space, oracle, pool, target, rng)
        scores = fitted_scores(space, *oracle.queried(), pool, rng)
        ranked, portion = pool[np.argsort(-scores, kind="stable")], -(-oracle.left // left)
        known = Subspace(space, oracle.queried()[0]).contains(ranked)
        oracle(ranked[~known][:portion])
    rows, values = oracle.queried()
    return Subspace(space, rows[best_first(values, target)])


def _with_neighbors(space: Space, oracle: CountedOracle, pool: Archs, target: int, rng: Generator) -> Archs:
    rows, values = oracle.queried()
    parents = np.repeat(rows[best_first(values, target)], NEIGHBORS, axis=0)
    pool = np.concatenate([pool, space.mutate(parents, np.ones(len(parents), np.int64), rng)])
    return pool[first_of_each(space.key(pool))]


def fitted_scores(space: Space, rows: Archs, values: FloatArray, others: Archs, rng: Generator) -> FloatArray:
    """Return predictions for `others` by a model fitted to `rows` and the ranks of their values."""
    order = rng.permutation(len(rows))[:MAX_TRAINING_ROWS]
    ranks = np.unique(values[order], return_inverse=True)[1].astype(np.float32)
    parameters = {
        "max_depth": DEPTH,
        "eta": ETA,
        "subsample": 0.7,
        "colsample_bytree": 0.5,
        "tree_method": "hist",
        "seed": int(rng.integers(1 << 31)),
    }
    ranks /= max(1, ranks.max())
    model = xgb.train(parameters, xgb.DMatrix(space.encode(rows[order]), ranks), TREES)
    parts = np.array_split(others, max(1, len(others) // CHUNK))
    return np.concatenate([model.predict(xgb.DMatrix(space.encode(p))) for p in parts]).astype(np.float64)
