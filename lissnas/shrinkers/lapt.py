"""LAPT (Zhou et al., 2025) without the language model: design rules learned on other tasks, then adapted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.random import Generator

from lissnas.oracles.base import CountedOracle
from lissnas.shrinkers.evaluated import Evaluated
from lissnas.shrinkers.greedynas_v2 import candidates
from lissnas.shrinkers.pruning import best_first, total_by_choice
from lissnas.spaces import Archs, FloatArray, Space
from lissnas.spaces.base import is_in
from lissnas.spaces.subspace import Subspace

LABELS = 300
"""Uniform labels of each other task; 1,000 and complete tables give the same."""
GOOD = 0.1
"""Share of a task's architectures that rules are learned from; .2 gives the same."""
RARE = 0.02
"""Added to both shares of a choice, so that rare ones are not decisive; .001 gives the same."""
ADAPTED = 0.5
"""Weight of the rules of the new task; 0, .25 and .8 give the same, 1 with a uniform sample is worse."""
ROUNDS = 4
"""Times that rules are adapted."""

Labelled = tuple[Archs, FloatArray]
"""Architectures of the space, and their values on another task."""


def learned_on(tasks: Sequence[Labelled]) -> Callable[[Space, CountedOracle, int, Generator], Subspace]:
    """Return LAPT with rules from the labels of other tasks on the same space.

    Published: a language model states rules about the choices of well-performing architectures of other tasks; what
    contradicts them is removed, and the rules are adapted to the best networks of the new task. Here, a rule is the
    log ratio of a choice's shares among the best tenth and among all, averaged over the tasks, and an architecture's
    score is the sum over its choices. The highest are evaluated in four rounds; after each, the rules are averaged
    with those of what was evaluated. Removing choices down to .5, 1 or 1.5 times the budget instead was worse.
    The result is the best of everything evaluated.

    The method uses labels that no other method has. Without another task of the space it does not exist: rules that
    are learned on the task itself are those of `abs`.
    """

    def shrink(space: Space, oracle: CountedOracle, target: int, rng: Generator) -> Subspace:
        oracle.need_budget()
        learned = np.mean([rules(space, rows, values) for rows, values in tasks], axis=0)
        seen, pool, current = Evaluated(space, oracle, 0, rng), candidates(space, oracle.left, rng), learned
        for left in range(ROUNDS, 0, -1):
            pool = pool[~is_in(space.key(pool), np.sort(space.key(seen.rows)))]
            order = best_first(scores(space, pool, current), -(-oracle.left // left))
            seen.add(pool[order])
            current = (1 - ADAPTED) * learned + ADAPTED * rules(space, seen.rows, seen.scores)
        seen.add_uniform(oracle.left, rng)
        return seen.best(target)

    return shrink


def rules(space: Space, rows: Archs, values: FloatArray) -> FloatArray:
    """Return `(n_slots, choices)`: how over-represented each choice is among the best `GOOD`, as a log ratio."""
    best = rows[best_first(values, max(1, round(GOOD * len(rows))))]
    possible = space.possible()
    share = [total_by_choice(space.slots(part), np.full(len(part), 1 / len(part)), possible) for part in (best, rows)]
    return np.asarray(np.log((share[0] + RARE) / (share[1] + RARE)))


def scores(space: Space, rows: Archs, rule: FloatArray) -> FloatArray:
    """Return the sum of the rules over the choices of each row; missing decisions count as 0."""
    slots = space.slots(rows)
    return np.asarray(np.where(slots >= 0, rule[np.arange(slots.shape[1]), slots], 0).sum(axis=1))
