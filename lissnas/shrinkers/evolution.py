"""The evolutionary search of one-shot NAS (Guo et al., 2020), inside what is left of a space."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from lissnas.oracles.base import CountedOracle
from lissnas.shrinkers.pruning import best_first, distinct_sample
from lissnas.spaces import Archs, FloatArray
from lissnas.spaces.base import first_of_each
from lissnas.spaces.subspace import Subspace

POPULATION, GENERATIONS, PARENTS = 50, 20, 10


def evolve(product: Subspace, oracle: CountedOracle, budget: int, rng: Generator) -> tuple[Archs, FloatArray]:
    """Return every network that evolution asked about, once each, and their values.

    SPOS' settings: the 10 best of 50 are parents; half of the next 50 are children at one edit, the
    other half are redrawn, all inside the product; 20 generations. A larger budget buys a larger
    population, in the same number of generations.
    """
    space = product.space
    size = max(POPULATION, budget // GENERATIONS)
    start = oracle.left
    population = oracle.affordable(distinct_sample(product, size, rng))
    values = oracle(population)
    for _ in range(GENERATIONS - 1):
        left = min(oracle.left, budget - (start - oracle.left))
        if left <= 0 or not len(population):
            break
        parents = population[best_first(values, max(1, size * PARENTS // POPULATION))]
        chosen = parents[rng.integers(0, len(parents), size // 2)]
        children = space.mutate(chosen, np.ones(len(chosen), np.int64), rng)
        children = children[product.contains(children)]
        fresh = distinct_sample(product, size - len(children), rng)
        rows = oracle.affordable(np.concatenate([children, fresh]))
        population = np.concatenate([population, rows])
        population = population[first_of_each(space.key(population))]
        values = oracle(population)
    return population, values
