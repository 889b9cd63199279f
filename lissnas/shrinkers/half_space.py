"""Half Search Space (Rumiantsev & Coates, 2025): mask the worse half of each decision by a zero-cost rank."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from lissnas.oracles.base import CountedOracle
from lissnas.shrinkers.naive import check_cost
from lissnas.shrinkers.pruning import all_choices, ascending, best_first, drop, mean_by_choice
from lissnas.shrinkers.then_rank import evaluate_rest, members_of
from lissnas.spaces import Space
from lissnas.spaces.subspace import Subspace

COST = "flops"
"""The zero-cost rank: published are proxies of a network's initial weights, which an encoding does not have."""
SAMPLE = 10_000
"""Architectures whose costs give the rank of a choice; they cost no query."""


def shrink(space: Space, oracle: CountedOracle, target: int, rng: Generator) -> Subspace:
    """Drop the choices with the lowest mean FLOPs, at most half of each decision's, and rank what remains.

    Published: a mask of half of the operations of each mixed operation, then a one-shot search. Here, choices are
    dropped in order of their mean FLOPs, down to the size that the budget can rank; by the difference to the mean of
    their decision it was worse on one of three tables. A larger product is ranked in part. The result is the best of
    everything evaluated.
    """
    check_cost(space, COST)
    oracle.need_budget()
    whole = all_choices(space)
    assert whole.allowed is not None
    sample = space.sample_distinct(min(SAMPLE, space.size()), rng)
    flops = space.costs(sample)[COST].astype(np.float64)
    mean = mean_by_choice(space.slots(sample), flops, whole.allowed)
    n_choices = whole.allowed.sum(axis=1)
    place = np.argsort(np.argsort(np.where(whole.allowed, np.nan_to_num(mean, nan=-np.inf), np.inf), axis=1), axis=1)
    worse = [pair for pair in ascending(mean, whole.allowed) if place[pair] < n_choices[pair[0]] // 2]
    product, _ = drop(whole, worse, max(target, oracle.budget))
    oracle(oracle.affordable(members_of(product, oracle.budget, rng)))
    rows, values = evaluate_rest(space, oracle, rng)
    return Subspace(space, rows[best_first(values, target)])
