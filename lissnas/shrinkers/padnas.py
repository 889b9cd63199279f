"""PAD-NAS (Xia & Ding, 2020): prune the choices of each layer in stages, after a search in each."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from lissnas.oracles.base import CountedOracle
from lissnas.shrinkers.pruning import all_choices, ascending, best_first, distinct_sample, drop, total_by_choice
from lissnas.spaces import Archs, FloatArray, Space
from lissnas.spaces.base import first_of_each
from lissnas.spaces.subspace import Subspace

STAGES = 4
TOP = 0.1
"""Share of the networks of a search whose choices are counted."""
POPULATION, GENERATIONS, PARENTS = 50, 20, 10
"""SPOS' settings."""


def shrink(space: Space, oracle: CountedOracle, target: int, rng: Generator) -> Subspace:
    """Search in what is left, drop from every layer the choice that its top networks use least, repeat.

    The original's number of stages and its formula are not published; this is the reading of the
    literature: evolution as in SPOS at each of four stages, a choice's score being how often the
    best tenth of the networks use it, weighted by rank. One choice of each layer goes a stage, the
    layer with the weakest first; it ends at the size nearest to the target.
    """
    product = all_choices(space)
    done = product.size() <= target
    while not done:
        budget = oracle.budget // STAGES
        rows, values = evolve(product, oracle, budget, rng) if oracle.left else oracle.queried()
        inside = product.contains(rows)
        rows, values = rows[inside], values[inside]
        top = best_first(values, max(1, round(TOP * len(rows))))
        assert product.allowed is not None
        score = total_by_choice(space.slots(rows[top]), np.arange(len(top), 0, -1, dtype=np.float64), product.allowed)
        score /= np.maximum(score.sum(axis=1, keepdims=True), 1)
        worst: dict[int, tuple[int, int]] = {}
        for slot, choice in ascending(score, product.allowed):
            worst.setdefault(slot, (slot, choice))
        product, done = drop(product, worst.values(), target)
    return product


def evolve(product: Subspace, oracle: CountedOracle, budget: int, rng: Generator) -> tuple[Archs, FloatArray]:
    """Return every network that the evolution of SPOS asked about inside the product, once each, and their values.

    The 10 best of 50 are parents; half of the next 50 are children at one edit, the
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
