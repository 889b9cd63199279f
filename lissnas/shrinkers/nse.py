"""NSE, neural search-space evolution (Ci et al., 2021): keep the choices on the Pareto front, refill, repeat."""

from __future__ import annotations

import math

import numpy as np
from numpy.random import Generator

from lissnas.oracles.base import CountedOracle
from lissnas.shrinkers.pruning import all_choices, ascending, distinct_sample, drop, mean_by_choice, total_by_choice
from lissnas.spaces import Archs, FloatArray, Space
from lissnas.spaces.base import BoolArray
from lissnas.spaces.subspace import Subspace

SAMPLES = 2_000
"""Minimum architectures evaluated per round (published)."""
MIN_ACTIVE = 2
"""Minimum choices of a decision that are compared: half of two would fix e.g. the part of a union at random."""


def shrink(space: Space, oracle: CountedOracle, target: int, rng: Generator) -> Subspace:
    """Evolve subsets of half of each decision's choices, then drop the choices with the lowest means.

    A round samples the active subsets, computes the Pareto front of FLOPs and value over all rounds (within
    the better half: the original samples near a FLOPs target, and a front down to the cheapest networks was
    worse), keeps the choices on it, and refills each subset with untried ones. Finally, choices are dropped
    by the mean of all evaluated architectures with them, down to the size nearest to the target. The published space
    is the product of the choices on the front, of any size; dropping by their use on the front, the front's
    choices last, or by the mean of the better half was worse on two of four tables.
    """
    oracle.need_budget()
    whole = all_choices(space)
    assert whole.allowed is not None
    n_choices = whole.allowed.sum(axis=1)
    keep = np.minimum(n_choices, np.maximum(MIN_ACTIVE, -(-n_choices // 2)))
    unseen = [list(rng.permutation(np.flatnonzero(a))) for a in whole.allowed]
    rounds = 1 + max(math.ceil((n - k) / max(1, k - 1)) for n, k in zip(n_choices, keep, strict=True))
    portion = max(min(SAMPLES, oracle.budget), oracle.budget // rounds)
    inherited = np.zeros_like(whole.allowed)
    while any(unseen) and oracle.left:
        active = inherited.copy()
        for slot, rest in enumerate(unseen):
            # At least one new choice per layer, as in the published refill.
            room = max(int(keep[slot] - active[slot].sum()), 1) if rest else 0
            for _ in range(min(room, len(rest))):
                active[slot, rest.pop()] = True
        product = Subspace(space, allowed=active)
        if not product.size():
            product = whole
        oracle(oracle.affordable(distinct_sample(product, portion, rng)))
        inherited = _use(space, *oracle.queried(), whole.allowed) > 0
    rows, values = oracle.queried()
    mean = mean_by_choice(space.slots(rows), values, whole.allowed)
    product, _ = drop(whole, ascending(mean, whole.allowed), target)
    return product


def _use(space: Space, rows: Archs, values: FloatArray, allowed: BoolArray) -> FloatArray:
    """Return `(n_slots, choices)` counts of each choice on the Pareto front of the better half."""
    better = values >= np.median(values)
    best = front(space, rows[better], values[better])
    return total_by_choice(space.slots(best), np.ones(len(best)), allowed)


def front(space: Space, rows: Archs, values: FloatArray) -> Archs:
    """Return the Pareto front of FLOPs and value (the best value if costs are unknown)."""
    flops = space.costs(rows).get("flops", np.zeros(len(rows), np.int64))
    order = np.lexsort((-values, flops))
    best = np.maximum.accumulate(values[order])
    rising = np.ones(len(rows), bool)
    rising[1:] = values[order][1:] > best[:-1]
    return rows[order[rising]]
