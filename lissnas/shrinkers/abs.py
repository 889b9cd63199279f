"""ABS, angle-based shrinking (Hu et al., 2020): drop the choices with the lowest mean score."""

from __future__ import annotations

from numpy.random import Generator

from lissnas.oracles.base import CountedOracle
from lissnas.shrinkers.pruning import all_choices, ascending, distinct_sample, drop, mean_by_choice
from lissnas.spaces import Space
from lissnas.spaces.subspace import Subspace

DROPS = 0.05
"""Share of all choices dropped per round: the published 7 of the 140 of a ShuffleNet-like space."""


def shrink(space: Space, oracle: CountedOracle, target: int, rng: Generator) -> Subspace:
    """Score each choice by the mean of the sampled architectures with it, drop the lowest, repeat.

    Scores are the oracle's; the original uses the angle of a supernet's weights (its code also has this
    variant). Each round samples from the remaining space; all evaluated architectures that are still in it
    count. Stops at the size nearest to the target (published: 10^6).
    """
    product = all_choices(space)
    assert product.allowed is not None
    n_drops = max(1, round(DROPS * int(product.allowed.sum())))
    rounds = max(1, int(product.allowed.sum() - len(product.allowed)) // (2 * n_drops))
    portion = max(1, oracle.budget // rounds)
    done = product.size() <= target
    while not done:
        if oracle.left:
            oracle(oracle.affordable(distinct_sample(product, min(portion, oracle.left), rng)))
        rows, values = oracle.queried()
        inside = product.contains(rows)
        assert product.allowed is not None
        score = mean_by_choice(space.slots(rows[inside]), values[inside], product.allowed)
        product, done = drop(product, ascending(score, product.allowed)[:n_drops], target)
    return product
