"""PAD-NAS (Xia & Ding, 2020): prune the choices of each layer in stages, each after a search."""

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
"""Share of the evaluated architectures whose choices are counted."""
POPULATION = 50
GENERATIONS = 20
PARENTS = 10
"""As in SPOS."""


def shrink(space: Space, oracle: CountedOracle, target: int, rng: Generator) -> Subspace:
    """Search the remaining space, drop the choice of each layer that the best architectures use least, repeat.

    The number of stages and the formula are not published; this follows the literature: evolution as in SPOS
    at each of four stages; a choice's score is its frequency in the best tenth of the architectures, weighted
    by rank. Each stage drops one choice per layer, lowest scores first; stops at the size nearest to the target.
    Cells keep all edges: dropping edges too (`edges.with_edges`) was worse on NAS-Bench-101.
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
    """Return the distinct architectures of the product that SPOS' evolution evaluated, and their values.

    The best 10 of 50 are parents; of the next 50, half are children at one edit and half are random, all in
    the product; 20 generations. A larger budget increases the population, not the number of generations.
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
