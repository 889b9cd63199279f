"""GreedyNASv2 (Huang et al., 2022): a path filter, trained with weak paths as the only labelled class."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from scipy.special import expit

from lissnas.oracles.base import CountedOracle
from lissnas.predictors.boosting import xgb
from lissnas.shrinkers.pruning import best_first
from lissnas.spaces import Archs, FloatArray, Space
from lissnas.spaces.base import LISTABLE
from lissnas.spaces.subspace import Subspace

SHARE = 0.25
"""Share of the budget for the sample that the filter is trained on; .1 and .5 were worse on two of four tables."""
WEAK = 0.5
"""Share of the evaluated architectures that count as weak paths; .8 was worse."""
TREES = 200
DEPTH = 6
ETA = 0.1
POOL = 10
"""Size of the pool that represents a space too large to list, in multiples of what is ranked."""
MAX_POOL = 5_000_000
"""Maximum size of such a pool."""
MAX_TRAINING_ROWS = 500_000
"""Architectures of such a space that the filter is trained on: millions would take gigabytes."""


def shrink(space: Space, oracle: CountedOracle, target: int, rng: Generator) -> Subspace:
    """Train a classifier of weak architectures on part of the budget, and rank those that are the least likely weak.

    Half of the weak ones in the evaluated sample are labelled positives, all others are unlabelled; the
    classifier minimises the non-negative risk of positive-unlabelled learning (Kiryo et al., 2017). The
    published filter is a network on path embeddings with unpublished settings; here it is boosted trees on the
    space's features. The threshold on the probability of being weak is chosen for what the rest of the budget can
    rank; published is a search in the filtered space, here the result is the best of everything evaluated. The
    published space is implicit: all samples that pass. A space too large to list is therefore represented by a
    uniform pool of ten times what can be ranked, which takes no queries.
    """
    oracle.need_budget()
    rows = space.sample_distinct(min(max(1, round(SHARE * oracle.budget)), MAX_TRAINING_ROWS, space.size()), rng)
    values = oracle(rows)
    weak = np.flatnonzero(values <= np.quantile(values, WEAK))
    labelled = np.zeros(len(rows), bool)
    labelled[rng.permutation(weak)[: len(weak) // 2]] = True
    prior = float((len(weak) - labelled.sum()) / max(1, (~labelled).sum()))
    data = xgb.DMatrix(space.encode(rows), labelled.astype(np.float32))
    parameters = {
        "max_depth": DEPTH,
        "eta": ETA,
        "subsample": 0.7,
        "colsample_bytree": 0.5,
        "base_score": 0.0,
        "tree_method": "hist",
        "disable_default_eval_metric": 1,
        "seed": int(rng.integers(1 << 31)),
    }

    def risk(margin: FloatArray, _: xgb.DMatrix) -> tuple[FloatArray, FloatArray]:
        return non_negative_risk(np.asarray(margin, np.float64), labelled, prior)

    filter_ = xgb.train(parameters, data, TREES, obj=risk)
    everything = candidates(space, oracle.left, rng)
    parts = np.array_split(everything, max(1, len(everything) // 65_536))
    margin = np.concatenate([filter_.predict(xgb.DMatrix(space.encode(p)), output_margin=True) for p in parts])
    oracle(oracle.affordable(everything[np.argsort(margin, kind="stable")]))
    rows, values = oracle.queried()
    return Subspace(space, rows[best_first(values, target)])


def candidates(space: Space, n: int, rng: Generator) -> Archs:
    """Return the architectures of which a filter chooses `n`: the whole space, or a uniform pool of distinct ones."""
    if space.size() <= LISTABLE:
        return space.enumerate()
    return space.sample_distinct(min(POOL * n, MAX_POOL), rng)


def non_negative_risk(
    margin: FloatArray, positive: np.ndarray[tuple[int], np.dtype[np.bool_]], prior: float
) -> tuple[FloatArray, FloatArray]:
    """Return gradient and curvature of the non-negative PU risk with logistic loss, by row.

    The risk is `prior R+(positive) + max(0, R-(unlabelled) - prior R-(positive))`; if the
    second term is negative, the step is reversed, so that it is not fitted below zero.
    """
    n_positive, n_unlabelled = max(1, int(positive.sum())), max(1, int((~positive).sum()))
    p = expit(margin)
    scale = len(margin)
    negative_loss = np.logaddexp(0, margin)
    bracket = negative_loss[~positive].sum() / n_unlabelled - prior * negative_loss[positive].sum() / n_positive
    sign = 1.0 if bracket >= 0 else -1.0
    gradient = np.where(positive, prior * ((p - 1) - sign * p) / n_positive, sign * p / n_unlabelled)
    curvature = p * (1 - p) * np.where(positive, prior / n_positive, 1 / n_unlabelled)
    return scale * gradient, np.maximum(scale * curvature, 1e-6)
