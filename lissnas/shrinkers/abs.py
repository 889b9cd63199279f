"""ABS, angle-based shrinking (Hu et al., 2020): drop the choices whose networks are worst on average."""

from __future__ import annotations

from numpy.random import Generator

from lissnas.oracles.base import CountedOracle
from lissnas.shrinkers.pruning import all_choices, ascending, distinct_sample, drop, mean_by_choice
from lissnas.spaces import Space
from lissnas.spaces.subspace import Subspace

DROPS = 0.05
"""Share of all choices that goes in a round: the published 7 of the 140 of a ShuffleNet-like space."""


def shrink(space: Space, oracle: CountedOracle, target: int, rng: Generator) -> Subspace:
    """Score each choice by the mean of the sampled networks that hold it, drop the lowest, repeat.

    A choice's score is the oracle's, where the original takes the angle of a supernet's weights (its
    code has this variant too). Networks of each round come from what is left then; all that were ever
    asked about and are still in it count. Ends at the size nearest to the target; published is 10^6.
    """
    product = all_choices(space)
    assert product.allowed is not None
    a_round = max(1, round(DROPS * int(product.allowed.sum())))
    rounds = max(1, int(product.allowed.sum() - len(product.allowed)) // (2 * a_round))
    portion = max(1, oracle.budget // rounds)
    done = product.size() <= target
    while not done:
        if oracle.left:
            oracle(oracle.affordable(distinct_sample(product, min(portion, oracle.left), rng)))
        rows, values = oracle.queried()
        inside = product.contains(rows)
        assert product.allowed is not None
        score = mean_by_choice(space.slots(rows[inside]), values[inside], product.allowed)
        product, done = drop(product, ascending(score, product.allowed)[:a_round], target)
    return product
