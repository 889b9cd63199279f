"""PAD-NAS (Xia & Ding, 2020): prune the choices of each layer in stages, after a search in each."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from lissnas.oracles.base import CountedOracle
from lissnas.shrinkers.evolution import evolve
from lissnas.shrinkers.pruning import all_choices, ascending, best_first, drop, total_by_choice
from lissnas.spaces import Space
from lissnas.spaces.subspace import Subspace

STAGES = 4
TOP = 0.1
"""Share of the networks of a search whose choices are counted."""


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
        rows, values = evolve(product, oracle, budget, rng) if oracle.left else oracle.asked()
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
