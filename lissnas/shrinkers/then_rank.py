"""Methods that drop choices, with a second step: the best of the product by the oracle's ranking."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from lissnas.oracles.base import CountedOracle
from lissnas.shrinkers.pruning import best_first
from lissnas.spaces import Archs, FloatArray, Space
from lissnas.spaces.base import LISTABLE, first_of_each
from lissnas.spaces.subspace import Subspace

SHARE = 0.25
"""Share of the budget that the first step may use; .1 was worse for two of four methods, .5 for three."""
MAX_DRAWS = 20
"""Maximum batches of draws from a product that is too large to list."""


def then_rank(
    prune: Callable[[Space, CountedOracle, int, Generator], Subspace],
) -> Callable[[Space, CountedOracle, int, Generator], Subspace]:
    """Return the method that shrinks with `prune` to what the rest of the budget can rank, and ranks it.

    The first step may use a quarter of the budget. It runs twice with the same random numbers: the second time to
    the size that the queries left by the first run can rank; it repeats the first run's queries, which are cached.
    A product that is larger than that is ranked in part, and after a smaller one the rest of the budget goes to a
    uniform sample. The result is the best of everything evaluated, in the product or not.
    """

    def shrink(space: Space, oracle: CountedOracle, target: int, rng: Generator) -> Subspace:
        oracle.need_budget()
        seed, part = int(rng.integers(1 << 63)), max(1, round(SHARE * oracle.budget))
        size = oracle.budget - part
        for _ in range(2):
            # A separate count, so that the first step can't use more than its part; `oracle` caches the answers.
            limited = CountedOracle(oracle, space, part)
            product = prune(space, limited, max(1, target, size), np.random.default_rng(seed))
            size = oracle.left
        oracle(oracle.affordable(members_of(product, oracle.budget, rng)))
        rows, values = evaluate_rest(space, oracle, rng)
        return Subspace(space, rows[best_first(values, target)])

    return shrink


def evaluate_rest(space: Space, oracle: CountedOracle, rng: Generator) -> tuple[Archs, FloatArray]:
    """Spend the rest of the budget on a uniform sample; return everything evaluated and its values."""
    known, _ = oracle.queried()
    n = min(oracle.left, space.size() - len(known))
    if n > 0:
        oracle(space.sample_distinct(n, rng, without=space.key(known)))
    return oracle.queried()


def members_of(part: Subspace, n: int, rng: Generator) -> Archs:
    """Return the members in random order, or about `n` distinct ones if the space is too large to list."""
    if part.kind == "set" or part.space.size() <= LISTABLE:
        return part.members[rng.permutation(len(part.members))]
    rows, n = part.sample(0, rng), min(n, part.size())
    for _ in range(MAX_DRAWS):
        rows = np.concatenate([rows, part.sample(2 * (n - len(rows)) + 16, rng)])
        rows = rows[first_of_each(part.space.key(rows))]
        if len(rows) >= n:
            break
    return rows[:n]
