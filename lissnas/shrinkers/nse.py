"""NSE, neural search-space evolution (Ci et al., 2021): keep what the Pareto front uses, refill, repeat."""

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
"""Networks asked about in a round, as published, where the budget doesn't buy more."""


def shrink(space: Space, oracle: CountedOracle, target: int, rng: Generator) -> Subspace:
    """Evolve a subset of half of each layer's choices; the choices that the front uses are the space.

    A round samples networks of the active subsets, keeps the Pareto front of FLOPs and value over all
    rounds (of the better half: the original samples near a FLOPs target, and a front that runs down to
    the cheapest networks did worse), inherits the choices that it uses and refills each subset with
    ones not tried yet. At the end the choices that the front uses least go first, those with the lowest
    mean among them, down to the size nearest to the target.
    """
    oracle.need_budget()
    whole = all_choices(space)
    assert whole.allowed is not None
    n_choices = whole.allowed.sum(axis=1)
    keep = np.array([max(1, math.ceil(n / 2)) for n in n_choices])
    unseen = [list(rng.permutation(np.flatnonzero(a))) for a in whole.allowed]
    rounds = 1 + max(math.ceil((n - k) / max(1, k - 1)) for n, k in zip(n_choices, keep, strict=True))
    portion = max(min(SAMPLES, oracle.budget), oracle.budget // rounds)
    inherited = np.zeros_like(whole.allowed)
    while any(unseen) and oracle.left:
        active = inherited.copy()
        for slot, rest in enumerate(unseen):
            # At least one new choice a layer, as the published refill leaves room for one.
            room = max(int(keep[slot] - active[slot].sum()), 1) if rest else 0
            for _ in range(min(room, len(rest))):
                active[slot, rest.pop()] = True
        product = Subspace(space, allowed=active)
        if not product.size():
            product = whole
        oracle(oracle.affordable(distinct_sample(product, portion, rng)))
        inherited = _use(space, *oracle.queried(), whole.allowed) > 0
    rows, values = oracle.queried()
    use = _use(space, rows, values, whole.allowed)
    use /= np.maximum(use.sum(axis=1, keepdims=True), 1)
    mean = mean_by_choice(space.slots(rows), values, whole.allowed)
    spread = float(np.ptp(values)) or 1.0
    score = use + np.nan_to_num((mean - values.min()) / spread, nan=-1.0) / 2
    product, _ = drop(whole, ascending(score, whole.allowed), target)
    return product


def _use(space: Space, rows: Archs, values: FloatArray, allowed: BoolArray) -> FloatArray:
    """Return how many networks on the front of the better half use each choice."""
    better = values >= np.median(values)
    best = front(space, rows[better], values[better])
    return total_by_choice(space.slots(best), np.ones(len(best)), allowed)


def front(space: Space, rows: Archs, values: FloatArray) -> Archs:
    """Return the networks that no other one beats in both FLOPs and value (value alone without costs)."""
    flops = space.costs(rows).get("flops", np.zeros(len(rows), np.int64))
    order = np.lexsort((-values, flops))
    best = np.maximum.accumulate(values[order])
    rising = np.ones(len(rows), bool)
    rising[1:] = values[order][1:] > best[:-1]
    return rows[order[rising]]
