"""ABS with pairs of choices: architectures are ranked by the mean values of their pairs."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.random import Generator

from lissnas.oracles.base import CountedOracle
from lissnas.shrinkers.edges import edge_space
from lissnas.shrinkers.greedynas_v2 import candidates
from lissnas.shrinkers.pruning import best_first
from lissnas.spaces import Archs, FloatArray, Space
from lissnas.spaces.cell import CellSpace
from lissnas.spaces.subspace import Subspace

SHARE = 0.25
"""Share of the budget for the uniform sample from which means are computed."""
PRIOR = 5.0
"""Weight of the mean of the sample in the mean of a pair, in architectures."""


def shrink(space: Space, oracle: CountedOracle, target: int, rng: Generator) -> Subspace:
    """Score pairs of choices by the mean of a sample, rank the space by them, and evaluate its top.

    Not published: ABS scores single choices, so it misses choices that are good only together. The score of an
    architecture is the sum over its pairs of decisions; a missing decision counts as a choice, and edges of cells are
    decisions. The result is the best of everything evaluated. A space too large to list is represented by a uniform
    pool of ten times what the rest of the budget evaluates.
    """
    oracle.need_budget()
    rows = space.sample_distinct(min(max(1, round(SHARE * oracle.budget)), space.size()), rng)
    values = oracle(rows)
    if oracle.left:
        everything = candidates(space, oracle.left, rng)
        order = np.argsort(-pair_scores(space, rows, values, everything), kind="stable")
        oracle(oracle.affordable(everything[order]))
    rows, values = oracle.queried()
    return Subspace(space, rows[best_first(values, target)])


def pair_scores(space: Space, rows: Archs, values: FloatArray, others: Archs) -> FloatArray:
    """Return for each of `others` the sum of the mean values of its pairs of choices in `rows`."""
    described = edge_space(space) if isinstance(space, CellSpace) else space
    slots, other_slots = described.slots(rows) + 1, described.slots(others) + 1
    n_choices = max(described.slot_choices) + 1
    gain, score = values - values.mean(), np.zeros(len(others))
    for i, j in combinations(range(slots.shape[1]), 2):
        pair = slots[:, i].astype(np.int64) * n_choices + slots[:, j]
        count = np.bincount(pair, minlength=n_choices**2)
        mean = np.bincount(pair, gain, n_choices**2) / (count + PRIOR)
        score += mean[other_slots[:, i].astype(np.int64) * n_choices + other_slots[:, j]]
    return score
