"""Genetic search: children of the best quarter of a population by mutation and crossover, until the budget is spent."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from lissnas.oracles.base import CountedOracle
from lissnas.shrinkers.evaluated import Evaluated
from lissnas.spaces import Archs, ChoiceSpace, Space
from lissnas.spaces.subspace import Subspace

FIRST = 0.1
"""Share of the budget for the uniform first generation."""
SMALLEST = 0.1
"""Size of the first population, in multiples of the target."""
LARGEST = 2.0
"""Size of the last population; it grows in proportion to the queries.

Of constant sizes, a quarter to all of the target converge early on three tables, and twice the target is slow on
OFA MobileNetV3."""
PARENTS = 0.25
"""Share of the population that may be parents; with a half the same, with all of it worse."""
CHILDREN = 0.1
"""Children of a generation, as a share of the population; .02 and .25 give the same."""
CROSSOVER = 0.5
"""Share of the children that have two parents, in a space whose positions can be crossed; 0 is about as good."""
MIN_CHILDREN = 100


def search(diversity: float) -> Callable[[Space, CountedOracle, int, Generator], Subspace]:
    """Return genetic search with a quota of `diversity` for each stratum; 0 is without quota.

    The population is the best of everything evaluated, with the quota, and grows with the queries; a generation
    without a new architecture doubles it. Half of the children take each position from one of two parents, the others
    are a parent at one edit. A space that is not a product of choices has no crossover.
    """

    def shrink(space: Space, oracle: CountedOracle, target: int, rng: Generator) -> Subspace:
        oracle.need_budget()
        seen, wider = Evaluated(space, oracle, diversity, rng), 1
        seen.add_uniform(max(1, round(FIRST * oracle.budget)), rng)
        while oracle.left:
            spent = oracle.queries / oracle.budget
            size = max(1, round((SMALLEST + (LARGEST - SMALLEST) * spent) * target * wider))
            population = seen.top(size)
            parents = seen.rows[population[: max(2, round(PARENTS * len(population)))]]
            if not seen.add(children(space, parents, max(MIN_CHILDREN, round(CHILDREN * size)), rng)):
                if size >= len(seen.rows):
                    seen.add_uniform(oracle.left, rng)
                    break
                wider *= 2
        return seen.best(target)

    return shrink


def children(space: Space, parents: Archs, n: int, rng: Generator) -> Archs:
    """Return at most `n` children of random parents, by crossover and by mutation."""
    n_crossed = round(CROSSOVER * n) if isinstance(space, ChoiceSpace) else 0
    mutated = parents[rng.integers(0, len(parents), n - n_crossed)]
    mutated = space.mutate(mutated, np.ones(len(mutated), np.int64), rng)
    if not n_crossed or not isinstance(space, ChoiceSpace):
        return mutated
    mother, father = parents[rng.integers(0, len(parents), (2, n_crossed))]
    rows, valid = space.networks(np.where(rng.random(mother.shape) < 0.5, mother, father))
    return np.concatenate([mutated, rows[valid]])
